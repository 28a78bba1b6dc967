"""Training that is interrupted goes on from its checkpoint, to the same result bit for bit; other runs' are refused."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import onnxprune
from onnxprune import Saving, TrainingOptions, api
from onnxprune.autodiff import relative_squares
from onnxprune.errors import RunError
from onnxprune.model import Model
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.sparsify import sparsified
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.recovery import checkpoint, fine_tune
from onnxprune.recovery.training_state import TrainingState
from onnxprune.sparsity import SparsifyOptions
from tests.recovery.test_fine_tune import DATA, QUICK, original, same, small

__all__ = ["original", "small"]
Training = Callable[[TrainingOptions], Any]


class Stop(KeyboardInterrupt):
    """Ctrl-C in a test."""


def stopped(train: Training, options: TrainingOptions, where: str, time: int) -> None:
    """Train, and interrupt a method of the run when it is called for a time, counted from 1."""
    made, calls = getattr(fine_tune._Run, where), [0]

    def interrupted(self: fine_tune._Run, *given: Any) -> Any:
        calls[0] += 1
        if calls[0] == time:
            raise Stop
        return made(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tune._Run, where, interrupted)
        with pytest.raises(Stop):
            train(options)


def counted(train: Training, options: TrainingOptions, where: str) -> tuple[Any, int]:
    """What training gives, and how often it called a method of the run."""
    made, calls = getattr(fine_tune._Run, where), [0]

    def called(self: fine_tune._Run, *given: Any) -> Any:
        calls[0] += 1
        return made(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tune._Run, where, called)
        return train(options), calls[0]


@pytest.mark.parametrize(
    ("where", "time"),
    [("_step", 2), ("_step", 8), ("_gradients", 8), ("_gradients", 30), ("_judge", 3), ("_held", 4), ("_tried", 3)],
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    original: Model, small: Model, tmp_path: Path, where: str, time: int
) -> None:
    options = TrainingOptions(20, batch=32, average=0.9, augment=("shift",), threads=1)
    saved = replace(options, saving=Saving(tmp_path / "run.checkpoint"))

    def train(options: TrainingOptions) -> Any:
        return learn(small, TrainingData(DATA, teacher=original), options)

    whole, done = train(options)
    stopped(train, saved, where, time)
    resumed, again = train(replace(saved, saving=Saving(tmp_path / "run.checkpoint", resume=True)))
    assert same(resumed, whole)
    assert (again.course, again.rate, again.found, again.best) == (done.course, done.rate, done.found, done.best)


def test_rates_that_were_tried_are_not_tried_again(original: Model, small: Model, tmp_path: Path) -> None:
    saving = Saving(tmp_path / "run.checkpoint")
    options = TrainingOptions(10, batch=32, threads=1, saving=saving)

    def train(options: TrainingOptions) -> Any:
        return learn(small, TrainingData(DATA, teacher=original), options)[1]

    stopped(train, options, "_tried", 4)
    resumed = replace(options, saving=replace(saving, resume=True))
    done, trials = counted(train, resumed, "_tried")
    assert trials == len(done.found) - 3 > 0
    assert counted(train, resumed, "_tried")[1] == 0, "a finished run is there"


def prune(options: TrainingOptions) -> Any:
    """Cut half of the multiply-accumulates, in one step or in rounds."""
    rounds = {"steps": 2} if not options.while_training else {}
    recovery = api.RecoveryOptions(train=options)
    done = api.run(api.load(str(DIGITS)), onnxprune.Options(macs="40%", **rounds), data=DATA, recovery=recovery)
    return done.model


def sparsify(options: TrainingOptions) -> Any:
    """Set 80 % of the weights to zero."""
    inputs = RunInputs(DATA, train=options)
    return sparsified(api.load(str(DIGITS)), SparsifyOptions(sparsity=0.8, method="magnitude"), inputs).model


DIGITS = DATA.parent / "digits.onnx"
WAYS: list[tuple[Training, str]] = [
    *((prune, way) for way in ("", "soft", "group-lasso", "growing")),
    *((sparsify, way) for way in ("", "gradual", "rigl", "l1")),
]
# These keep the same kinds of state as others do.
LIKE_OTHERS = ("growing", "l1")


@pytest.mark.parametrize(
    ("train", "way"),
    [
        pytest.param(train, way, id=f"{train.__name__} {way}", marks=[pytest.mark.long] * (way in LIKE_OTHERS))
        for train, way in WAYS
    ],
)
def test_what_changes_while_training_goes_on(tmp_path: Path, train: Training, way: str) -> None:
    """Masks, penalties and what was seen of gradients are kept, and so are trainings that are finished."""
    options = TrainingOptions(12, while_training=way, every=2 if way else None, **QUICK)
    saving = Saving(tmp_path / "run.checkpoint")
    whole, steps = counted(train, options, "_step")
    resumed = replace(options, saving=saving)
    for time in (4, steps - 3):
        if not saving.path.exists():
            stopped(train, resumed, "_step", time)
        else:
            stopped(train, resumed, "_step", time - 3)
        resumed = replace(options, saving=replace(saving, resume=True))
    again, left = counted(train, resumed, "_step")
    assert same(again, whole)
    assert left == 4, "what was done is not done again"
    saving.remove()
    assert not list(tmp_path.iterdir())


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_does_not_end_a_run(
    original: Model, small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The checkpoint from before stays as it was, and the run goes on."""
    path, data = tmp_path / "run.checkpoint", TrainingData(DATA, teacher=original)
    options = TrainingOptions(6, saving=Saving(path), **QUICK)
    stopped(lambda options: learn(small, data, options), options, "_step", 3)
    before = path.read_bytes()
    monkeypatch.setattr(checkpoint, "replacing", full)
    monkeypatch.setattr(fine_tune._Run, "is_due", lambda *_: True)
    with caplog.at_level(logging.WARNING):
        _, done = learn(small, data, replace(options, saving=Saving(path, resume=True)))
    assert done.steps == 6 and "disk full" in caplog.text and path.read_bytes() == before


def test_a_full_disk_when_interrupted_is_an_error(
    original: Model, small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: fine_tune._Run, state: TrainingState) -> None:
        raise Stop

    monkeypatch.setattr(checkpoint, "replacing", full)
    monkeypatch.setattr(fine_tune._Run, "_step", interrupted)
    options = TrainingOptions(6, saving=Saving(tmp_path / "run.checkpoint"), **QUICK)
    with pytest.raises(RunError, match="disk full while writing"):
        learn(small, TrainingData(DATA, teacher=original), options)


def test_a_loss_of_ones_own_is_known_by_its_name(original: Model, small: Model, tmp_path: Path) -> None:
    """Where a function lies in memory is another place in every process."""

    def made() -> Any:
        def loss(graph: Any, outputs: Any) -> Any:
            return relative_squares({name: f"teacher/{name}" for name in outputs})(graph, outputs)

        return loss

    saving = Saving(tmp_path / "run.checkpoint", resume=True)
    data = TrainingData(DATA, teacher=original)
    for _ in range(2):
        options = TrainingOptions(3, loss=made(), saving=saving, **QUICK)
        assert learn(small, data, options)[1].steps == 3
