"""Feeds from Python objects: what data loaders, datasets, lists of arrays, readers and functions give."""

from __future__ import annotations

import logging
from collections import UserDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from onnxprune import calibration
from onnxprune.calibration.input_spec import InputSpec
from onnxprune.errors import RunError, UsageError
from tests.calibration.test_calibration import DATA, model, together

LABELS = np.arange(20)


@dataclass(frozen=True)
class Tensor:
    """A tensor of a library that numpy reads only when it is told to leave gradients and devices behind, as torch's."""

    held: np.ndarray
    left: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.held.shape

    @property
    def dtype(self) -> np.dtype:
        """The type."""
        return self.held.dtype

    def detach(self) -> Tensor:
        """Without gradients."""
        return self

    def cpu(self) -> Tensor:
        """On this device."""
        return Tensor(self.held, left=True)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        """As numpy has it."""
        if not self.left:
            raise RuntimeError("call detach() and cpu() first")
        return self.held


class Dataset:
    """Samples by number, with a label each; reading past the end gives no IndexError."""

    def __init__(self, count: int = 20) -> None:
        self.count = count

    def __len__(self) -> int:
        """How many samples there are."""
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """A sample and its label."""
        return Tensor(DATA[number % 20]), number % 3


class Loader:
    """Batches of four, as often as they are asked for; an element is what `element` makes of inputs and labels."""

    def __init__(self, element) -> None:
        self.element = element

    def __iter__(self) -> Iterator[object]:
        """The batches."""
        for start in range(0, 20, 4):
            yield self.element(DATA[start : start + 4], LABELS[start : start + 4])


def yields() -> Iterator[object]:
    """Batches with labels."""
    yield from Loader(lambda x, y: (x, y))


SOURCES = {
    "array": DATA,
    "tensor": Tensor(DATA),
    "list of arrays": [DATA[:7], DATA[7:]],
    "list of samples": list(DATA),
    "list of tensors": [Tensor(row) for row in DATA],
    "tuple of pairs": tuple((row, 1) for row in DATA),
    "dataset": Dataset(),
    "loader of mappings": Loader(lambda x, y: {"x": Tensor(x), "label": y}),
    "loader of mappings that are no dicts": Loader(lambda x, y: UserDict(x=x)),
    "loader of tensors": Loader(lambda x, y: Tensor(x)),
    "loader of pairs": Loader(lambda x, y: (Tensor(x), Tensor(y))),
    "loader of lists": Loader(lambda x, y: [Tensor(x), Tensor(y)]),
    "generator": yields(),
    "function that yields": yields,
    "function that returns": lambda: DATA,
    "function that returns a loader": lambda: Loader(lambda x, y: {"x": x}),
    "one pair": (DATA,),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_gives_the_same_samples(kind: str):
    assert np.array_equal(together(calibration.read(SOURCES[kind], model())), DATA)


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_fits_a_model_of_a_fixed_batch(kind: str):
    source = yields if kind == "generator" else SOURCES[kind]
    runs = calibration.read(source, model(batch=2))
    assert [run["x"].shape for run in runs] == [(2, 3)] * 10 and np.array_equal(together(runs), DATA)


def test_elements_are_inputs_in_the_order_of_the_model():
    two = model(inputs=("b", "a"))
    for source in (Loader(lambda x, y: (x, x + 1)), Loader(lambda x, y: (x, x + 1, y)), [(DATA, DATA + 1)]):
        runs = calibration.read(source, two)
        assert np.array_equal(together(runs, "b"), DATA) and np.array_equal(together(runs, "a"), DATA + 1)
    with pytest.raises(UsageError, match="feed 0 of the calibration data: input 'a' is missing"):
        calibration.read([(DATA,)], two)


def test_labels_are_told_to_be_ignored_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    calibration.read(Loader(lambda x, y: {"x": x, "label": y}), model())
    assert caplog.messages == ["the calibration data: 'label' is no input of the model, and not used"]
    caplog.clear()
    calibration.read(yields, model())
    assert caplog.messages == ["yields: 'element 1' is no input of the model, and not used"]


@pytest.mark.parametrize("source", [yields, Dataset(), Loader(lambda x, y: {"x": x, "label": y})])
def test_labels_that_are_wanted_are_by_name_or_behind_the_inputs(source: object):
    labels = InputSpec("label", np.dtype(np.int64), ("n",), "label")
    runs = calibration.read(source, model(), also=[labels])
    wanted = LABELS % 3 if isinstance(source, Dataset) else LABELS
    assert np.array_equal(together(runs), DATA) and np.array_equal(together(runs, "label"), wanted)


def test_no_more_samples_are_read_than_are_wanted():
    read = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            read.append(None)
            yield DATA[:4]

    assert together(calibration.read(endless, model(), samples=10)).shape == (10, 3) and len(read) == 3


def test_what_is_refused():
    class Foreign(Tensor):
        """A tensor that cannot be read at all."""

        def cpu(self) -> Foreign:
            """As before."""
            return self

    def fails() -> None:
        raise KeyError("no such file")

    with pytest.raises(RunError, match="fails failed: KeyError: 'no such file'"):
        calibration.read(fails, model())
    with pytest.raises(UsageError, match=r"feed 0 of the calibration data: 'x': a Foreign cannot be read as an array"):
        calibration.read([Foreign(DATA)], model())
    with pytest.raises(UsageError, match="a NoneType is no source of feeds"):
        calibration.read(lambda: None, model())
    with pytest.raises(UsageError, match="feed 0 of the calibration data is a list, not a mapping"):
        calibration.read([[[1, 2, 3]]], model())
    with pytest.raises(UsageError, match="an array fits models with one input, this one has 2: a, b"):
        calibration.read([Tensor(DATA)], model(inputs=("a", "b")))
    with pytest.raises(UsageError, match=r"input 'x' has shape \[1, 4\]"):
        calibration.read([np.ones(4, np.float32)], model())
