"""Batches to train on: every sample once in an epoch, data larger than memory, a teacher's answers that are kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune import TrainingOptions
from onnxprune.autodiff import write_back
from onnxprune.calibration import arrays, stored_rows
from onnxprune.model import Model, save
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.recovery import from_teacher, objectives
from onnxprune.recovery.examples import examples_of
from onnxprune.typing import Array
from tests.calibration.test_stored_rows import is_mapped
from tests.graphs.net import Net


def pictures(batch: int | str = "n", size: int = 8) -> Model:
    net = Net()
    x = net.input((batch, 3, size, size), name="x")
    h = net.add("Relu", net.add("Conv", x, net.weight(8, 3, 3, 3), strides=[2, 2]))
    net.output(net.add("Gemm", net.add("Flatten", net.add("GlobalAveragePool", h)), net.weight(8, 4)))
    return net.model()


def runs(count: int = 50, each: int = 7) -> list[dict[str, Array]]:
    """Numbered samples, some in a run."""
    x = np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)
    x[:, 0, 0, 0] = np.arange(count)
    return [{"x": x[start : start + each]} for start in range(0, count, each)]


def numbers(batch: Mapping[str, Array]) -> list[int]:
    return [int(n) for n in batch["x"][:, 0, 0, 0]]


@pytest.mark.parametrize(("model_batch", "batch"), [("n", 16), ("n", 1), (5, 16), ("n", 64)])
def test_every_sample_once_in_an_epoch(model_batch: int | str, batch: int) -> None:
    given, model = runs(), pictures(model_batch)
    examples = examples_of(given, model, batch)
    whole = np.concatenate([run["x"] for run in given])
    epochs = []
    for epoch in range(2):
        seen: list[int] = []
        for place in range(examples.per_epoch):
            drawn = examples.draw(epoch * examples.per_epoch + place, 3)
            assert np.array_equal(drawn["x"], whole[numbers(drawn)])
            seen += numbers(drawn)
        assert len(seen) == len(set(seen)) == examples.per_epoch * examples.per_batch
        epochs.append(seen)
    assert epochs[0] != epochs[1], "every epoch has an order of its own"
    assert numbers(examples.draw(0, 3)) == epochs[0][: examples.per_batch]
    assert numbers(examples.draw(0, 4)) != epochs[0][: examples.per_batch]


class Teacher:
    """Counts how many samples it is asked about."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.asked += len(feeds["x"])
        return {"teacher/y": np.stack([feeds["x"][:, 0, 0, 0]] * 4, axis=1)}


def objective(teacher: Teacher, **options: Any) -> objectives.Objective:
    model, given = pictures(), runs()
    model.proto.graph.output[0].name = model.proto.graph.node[-1].output[0] = "y"
    return from_teacher(model, (given[:6], given[6:]), TrainingOptions(10, batch=8, **options), teacher)


@pytest.mark.parametrize("held", [0, 1 << 20])
def test_answers_for_a_fixed_set_are_kept(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(stored_rows, "LARGEST_HELD", held)
    teacher = Teacher()
    found, options = objective(teacher), TrainingOptions(10, batch=8)
    asked = teacher.asked
    for number in range(30):
        batch = found.batch(number, options)
        assert np.array_equal(batch["teacher/y"][:, 2], batch["x"][:, 0, 0, 0])
    assert teacher.asked == asked and found.complete is None
    (pool,) = found.fitting.pools
    (answers,) = pool.columns["teacher/y"].parts
    assert is_mapped(answers) == (held == 0) and len(answers) == 42
    assert len(pool.columns["x"].parts) == 6, "inputs are not stored again"


@pytest.mark.parametrize("way", ["augmented", "too large", "little disk"])
def test_answers_that_are_not_kept_are_asked_for_again(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "too large":
        monkeypatch.setattr(objectives, "MOST_KEPT", 100)
    if way == "little disk":
        monkeypatch.setattr(objectives.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    teacher, augment = Teacher(), ("mixup",) if way == "augmented" else ()
    found, options = objective(teacher, augment=augment), TrainingOptions(10, batch=8, augment=augment)
    asked = teacher.asked
    for number in range(5):
        batch = found.batch(number, options)
        assert np.array_equal(batch["teacher/y"][:, 2], batch["x"][:, 0, 0, 0]), "of the pictures as they are changed"
    assert teacher.asked == asked + 5 * 8


@pytest.mark.parametrize("augment", [(), ("flip",)])
def test_training_on_data_that_is_not_held_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: tuple[str, ...]
) -> None:
    x = np.random.default_rng(0).integers(0, 255, (200, 3, 8, 8)).astype(np.uint8)
    np.savez_compressed(tmp_path / "x.npz", x=x)
    teacher, options = pictures(), TrainingOptions(12, rate=1e-2, batch=16, threads=1, augment=augment)
    student = pictures()
    name = next(n for n in student.initializers if student.array(n).ndim == 4)
    student = write_back(student, {name: student.array(name) * 0.5})
    found = []
    for held in (1 << 20, 100):
        monkeypatch.setattr(stored_rows, "LARGEST_HELD", held)
        monkeypatch.setattr(arrays, "LARGEST_READ", held)
        monkeypatch.setattr(stored_rows, "PIECE", held)
        trained, done = learn(student, TrainingData(str(tmp_path / "x.npz"), teacher=teacher), options)
        found.append([trained.array(n).tobytes() for n in trained.initializers])
        assert done.after < done.before
    assert found[0] == found[1]


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on the memory of a process")
def test_data_larger_than_memory(tmp_path: Path) -> None:
    """492 MB of pictures, in a process that may hold 300 MB."""
    save(pictures(size=32), tmp_path / "model.onnx")
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (40_000, 3, 32, 32))
    x[::1000] = np.random.default_rng(0).standard_normal((40, 3, 32, 32))
    x.flush()
    del x
    model = str(tmp_path / "model.onnx")
    command = ["--max-memory", "300MB", "train", model, "-o", str(tmp_path / "out.onnx"), "--teacher", model]
    options = ["--data", str(tmp_path / "x.npy"), "--samples", "40000", "--steps", "3", "--rate", "0.001"]
    done = subprocess.run(
        [sys.executable, "-m", "onnxprune", *command, *options, "--threads", "1"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert "36000 samples, 4000 others judge" in done.stdout
