"""What `train` and `prune --train` are given wrongly: one clear message, the right exit code, and nothing is lost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.model import save
from onnxprune.recovery import checkpoint, fine_tune
from tests.cli.conftest import DIGITS, MODELS, Run, run
from tests.graphs.net import Net

__all__ = ["run"]
DATA = str(MODELS / "digits_calibration.npz")
RNG = np.random.default_rng(0)
Given = tuple[str, tuple[Any, ...]]


def made(folder: Path, build: Callable[[Net], None]) -> str:
    net = Net()
    build(net)
    save(net.model(), folder / "model.onnx")
    return str(folder / "model.onnx")


def stored(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "data.npz", **{n: np.asarray(a) for n, a in arrays.items()})
    return str(folder / "data.npz")


def no_parameter(folder: Path) -> Given:
    model = made(folder, lambda net: net.output(net.add("Relu", net.input(("n", 4), name="x"))))
    return model, ("--teacher", model, "--data", stored(folder, x=np.ones((8, 4), np.float32)))


def no_path(folder: Path) -> Given:
    """The only weight decides which class it is; a number that jumps has no gradient."""

    def build(net: Net) -> None:
        y = net.add("MatMul", net.input(("n", 4), name="x"), net.weight(4, 3))
        net.output(net.add("Cast", net.add("ArgMax", y, axis=1), to=onnx.TensorProto.FLOAT))

    model = made(folder, build)
    return model, ("--teacher", model, "--data", stored(folder, x=RNG.standard_normal((8, 4)).astype(np.float32)))


def labels_out_of_range(folder: Path) -> Given:
    images = RNG.standard_normal((16, 1, 8, 8)).astype(np.float32)
    return DIGITS, ("--labels", "y", "--data", stored(folder, image=images, y=np.arange(16)))


def labels_of_another_shape(folder: Path) -> Given:
    images = RNG.standard_normal((16, 1, 8, 8)).astype(np.float32)
    return DIGITS, ("--labels", "y", "--data", stored(folder, image=images, y=np.zeros((16, 3), int)))


def another_teacher(folder: Path) -> Given:
    def build(net: Net) -> None:
        x = net.add("Flatten", net.input(("n", 1, 8, 8), name="image"))
        net.add("MatMul", x, net.weight(64, 7))
        net.nodes[-1].output[0] = "logits"
        net.output("logits")

    return DIGITS, ("--teacher", made(folder, build), "--data", DATA)


def not_numbers(folder: Path) -> Given:
    images = RNG.standard_normal((16, 1, 8, 8)).astype(np.float32)
    images[9, 0, 3, 3] = np.nan
    return DIGITS, ("--teacher", DIGITS, "--data", stored(folder, image=images))


def infinite(folder: Path) -> Given:
    images = np.full((16, 1, 8, 8), np.inf, np.float32)
    return DIGITS, ("--teacher", DIGITS, "--data", stored(folder, image=images))


def many_shapes(folder: Path) -> Given:
    def build(net: Net) -> None:
        net.output(net.add("MatMul", net.input(("n", "t", 4), name="x"), net.weight(4, 4)))

    model = made(folder, build)
    for length in range(1, 30):
        np.save(folder / f"{length}.npy", np.ones((2, length, 4), np.float32))
    return model, ("--teacher", model, "--data", str(folder))


CASES: list[tuple[Callable[[Path], Given], int, str]] = [
    (no_parameter, 3, "no parameter of the model reaches the loss"),
    (no_path, 3, "no parameter of the model reaches the loss"),
    (labels_out_of_range, 2, "labels 'y' go from"),
    (labels_of_another_shape, 2, "'y' has shape [16, 3]"),
    (another_teacher, 2, "output 'logits' has shape"),
    (not_numbers, 2, "input 'image' holds NaN"),
    (infinite, 4, "the loss of the model is not a finite number before training"),
    (many_shapes, 2, "different shapes, and a training graph is built for each"),
]


@pytest.mark.parametrize(("case", "code", "problem"), CASES, ids=[case.__name__ for case, *_ in CASES])
def test_refused(run: Run, tmp_path: Path, case: Callable[[Path], Given], code: int, problem: str) -> None:
    place, out = tmp_path / "given", tmp_path / "out"
    place.mkdir()
    out.mkdir()
    model, given = case(place)
    before = Path(model).read_bytes()
    ran = run("train", model, "-o", out / "o.onnx", "--steps", 4, "--rate", 1e-3, *given)
    assert ran.code == code and problem in ran.err, ran.err
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in ran.err
    assert Path(model).read_bytes() == before and not [p for p in out.iterdir() if p.suffix != ".checkpoint"]


def test_a_batch_of_one_with_norms(run: Run, tmp_path: Path) -> None:
    """Statistics stay as they are, so one sample is enough for a step."""

    def build(net: Net) -> None:
        y = net.add("Conv", net.input((1, 3, 8, 8), name="x"), net.weight(4, 3, 3, 3))
        numbers = [net.const(np.asarray(v, np.float32)) for v in (np.ones(4), np.zeros(4), np.ones(4), np.full(4, 2.0))]
        net.output(net.add("BatchNormalization", y, *numbers))

    model = made(tmp_path, build)
    data = stored(tmp_path, x=RNG.standard_normal((12, 3, 8, 8)).astype(np.float32))
    given = ("--teacher", model, "--data", data, "--steps", 3, "--rate", 1e-3, "--norm-statistics")
    ran = run("train", model, "-o", tmp_path / "o.onnx", *given)
    assert ran.code == 0, ran.err
    one = run("train", model, "-o", tmp_path / "p.onnx", *given, "--samples", 1)
    assert one.code == 2 and "cannot train and judge" in one.err


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("verb", ["train", "prune"])
def test_a_full_disk_at_a_checkpoint(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """Said, and no reason to lose the run."""
    more = {"train": ("--teacher", DIGITS, "--steps", 4), "prune": ("-r", "0.5", "--criterion", "l2", "--train", 4)}
    given = ("-o", tmp_path / "o.onnx", "--data", DATA, "--rate", 1e-3, *more[verb])
    monkeypatch.setattr(checkpoint, "replacing", full)
    monkeypatch.setattr(fine_tune._Run, "is_due", lambda *_: True)
    ran = run(verb, DIGITS, *given)
    assert ran.code == 0, ran.err
    assert "no checkpoint was written: disk full" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["o.onnx"]


def test_a_checkpoint_of_another_model(run: Run, tmp_path: Path) -> None:
    given = ("--data", DATA, "--teacher", DIGITS, "--rate", 1e-3, "--resume")
    output, kept = tmp_path / "o.onnx", tmp_path / "o.onnx.checkpoint"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxprune.cli.kept_training.KeptTraining.remove", lambda _: None)
        assert run("train", DIGITS, "-o", output, *given, "--steps", 3).code == 0
    output.unlink()
    before = kept.read_bytes()
    ran = run("train", DIGITS, "-o", output, *given, "--steps", 4)
    assert ran.code == 2 and "is a checkpoint of another run" in ran.err and "remove it to begin again" in ran.err
    assert kept.read_bytes() == before and not output.exists()


def test_a_loss_that_is_no_number_is_none_in_json(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has neither infinity nor NaN."""
    losses = iter([1.0, math.inf, math.nan])
    monkeypatch.setattr(fine_tune._Run, "_held", lambda *_: next(losses, math.nan))
    given = ("--teacher", DIGITS, "--data", DATA, "--steps", 3, "--rate", 1e-3, "--json")
    ran = run("train", DIGITS, "-o", tmp_path / "o.onnx", *given)
    assert ran.code == 0, ran.err

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    report = json.loads(ran.out, parse_constant=refuse)
    assert [judgement["held"] for judgement in report["course"]] == [None] * 3 and report["after"] == 1.0
