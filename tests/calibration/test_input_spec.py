"""What a model takes: names, types, and axes of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune import calibration
from onnxprune.calibration.input_spec import InputSpec, tell_pixels
from onnxprune.errors import UsageError
from onnxprune.model import Model, load
from tests.calibration.test_calibration import DATA, model


def test_two_inputs_stay_together(tmp_path: Path):
    np.savez(tmp_path / "c.npz", a=DATA, b=-DATA)
    runs = calibration.read(tmp_path / "c.npz", model(inputs=("a", "b")), batch=7)
    assert all(np.array_equal(run["a"], -run["b"]) for run in runs)


def apart(*firsts: int | str) -> Model:
    """A model whose inputs have other names for axis 0, or other sizes."""
    names = [f"x{i}" for i in range(len(firsts))]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [first, 3])
        for name, first in zip(names, firsts, strict=True)
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])
    graph = helper.make_graph([helper.make_node("Sum", names, ["y"])], "g", values, [result])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("firsts", [("unk__330", "unk__331"), ("", ""), ("n", "n", "m")])
def test_batch_axes_of_other_names_are_one_sample_each(tmp_path: Path, firsts: tuple[str, ...]):
    data = {f"x{i}": DATA * (i + 1) for i in range(len(firsts))}
    np.savez(tmp_path / "c.npz", **data)
    runs = calibration.read(tmp_path / "c.npz", apart(*firsts), samples=12, batch=4)
    assert [len(run["x0"]) for run in runs] == [4, 4, 4]
    assert all(np.array_equal(run["x0"] * 2, run["x1"]) for run in runs)
    one = calibration.read([{name: value[:1] for name, value in data.items()}] * 3, apart(*firsts))
    assert [len(run["x1"]) for run in one] == [1, 1, 1]


def test_a_number_for_one_of_their_names_fixes_the_batch(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x0=DATA, x1=DATA)
    runs = calibration.read(tmp_path / "c.npz", apart("a", "b"), sizes={"b": 8})
    assert [len(run["x0"]) for run in runs] == [8, 8]


def test_axes_of_other_lengths_are_no_batch():
    """Points and boxes: every feed is a sample."""
    feeds = [{"x0": DATA[: 3 + i], "x1": DATA[:5]} for i in range(4)]
    runs = calibration.read(feeds, apart("points", "boxes"))
    assert sorted((len(run["x0"]), len(run["x1"])) for run in runs) == [(3, 5), (4, 5), (5, 5), (6, 5)]
    assert [len(run["x0"]) for run in calibration.read(feeds[:1], apart(3, "boxes"))] == [3]


def test_types_are_converted_without_loss(tmp_path: Path):
    np.savez(tmp_path / "c.npz", x=DATA.astype(np.uint8))
    assert calibration.read(tmp_path / "c.npz", model())[0]["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": DATA}, "input 'x' is missing"),
        ({"x": DATA[:, :2]}, r"has shape \[20, 2\], the model wants \['n', 3\]"),
        ({"x": DATA.reshape(-1)}, r"has shape \[60\]"),
        ({"x": DATA.astype(str)}, "the model wants float32"),
        ({"x": DATA[:0]}, "no calibration sample: it is empty"),
        ({"x": np.where(DATA == 7, np.nan, DATA)}, "input 'x' holds NaN"),
        ({"0": DATA[0], "1": DATA[0, :2]}, r"c\.npz\['1'\]: input 'x' has shape \[1, 2\]"),
    ],
)
def test_data_that_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], message: str):
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        calibration.read(tmp_path / "c.npz", model())


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8), True),
        (np.arange(256).reshape(4, 1, 8, 8), True),
        (np.arange(256, dtype=np.float32).reshape(4, 1, 8, 8) / 255, False),
        (np.ones((4, 1, 8, 8), np.uint8), False),
        (np.arange(1024).reshape(4, 4, 8, 8), False),
        (-np.arange(256).reshape(4, 1, 8, 8), False),
    ],
)
def test_pixels_that_nobody_scaled_are_noticed(value, told, caplog):
    spec = InputSpec("image", np.dtype(np.float32), ("n", 1, 8, 8))
    tell_pixels({"image": value}, {"image": spec}, "inputs.npz")
    assert ("integers from 0 to 255" in caplog.text) == told
    caplog.clear()
    tell_pixels({"image": value}, {"image": InputSpec("image", np.dtype(np.uint8), ("n", 1, 8, 8))}, "inputs.npz")
    tell_pixels([value], {"image": spec}, "inputs.npz")
    assert caplog.text == ""
