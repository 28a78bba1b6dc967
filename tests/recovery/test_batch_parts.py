"""Gradients of the parts of a batch: their mean is the batch's, wherever they are computed, and whoever is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune import Saving, TrainingOptions
from onnxprune.errors import RunError, UsageError
from onnxprune.model import Model
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.recovery import from_labels, from_teacher
from onnxprune.recovery.batch_parts import _prepared, parts_of, shares_of
from onnxprune.recovery.distill import Teacher
from onnxprune.recovery.objectives import Objective
from onnxprune.recovery.student import Student
from onnxprune.typing import Array
from tests.graphs.net import Net
from tests.recovery.test_fine_tune import damage, same

RNG = np.random.default_rng(0)


def network(ending: str = "") -> Model:
    """Tokens of 6 numbers, a score for each of 5 classes at each of 7 places."""
    net = Net()
    x, mask = net.input(("n", 7, 6), name="x"), net.input(("n", 7), name="mask")
    h = net.add("Relu", net.add("MatMul", x, net.weight(6, 12)))
    y = net.add("MatMul", h, net.weight(12, 5))
    y = net.add("Mul", y, net.add("Unsqueeze", net.add("Add", mask, net.const(np.float32(1))), net.ints(2)))
    net.output(net.add(ending, y, axis=-1) if ending else y)
    return net.model()


def inputs(count: int = 24) -> dict[str, Array]:
    """Samples of other sizes, and other lengths: parts count for different amounts."""
    x = RNG.standard_normal((count, 7, 6)) * np.linspace(0.3, 3, count)[:, None, None]
    mask = (np.arange(7) < np.linspace(1, 7, count).round()[:, None]).astype(np.float32)
    return {"x": x.astype(np.float32), "mask": mask}


def learned(model: Model, way: str) -> Iterator[Objective]:
    """An objective for each kind of loss."""
    feeds, options = inputs(), TrainingOptions(4, batch=24, padding="mask" if "padding" in way else None)
    if way.startswith("labels"):
        labels = RNG.integers(0, 5, (24, 7))
        labels[:6] = -1  # a quarter of the batch, and so a whole part, has no label
        runs = [{**feeds, "labels": labels}]
        yield from_labels(model, (runs, runs), options, "labels")
        return
    if "temperature" in way:
        options = replace(options, temperature=2.0)
    if "mse" in way:
        options = replace(options, loss="mse")
    teacher = Teacher(damage(model))
    yield from_teacher(model, ([feeds], [feeds]), options, teacher)
    teacher.close()


WAYS = ("squares", "squares, padding", "probabilities", "probabilities, padding", "temperature", "mse", "labels")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [2, 4, 5])
def test_the_mean_of_the_parts_is_the_gradient_of_the_batch(way: str, count: int) -> None:
    model = network("Softmax" if "probabilities" in way else "")
    for objective in learned(model, way):
        batch = next(objective.kinds())
        student = Student(model, objective.loss, batch)
        whole, parts = student.gradients(batch), parts_of(batch, count)
        shares = shares_of(parts, objective.size)
        assert len(parts) == count and sum(shares) == pytest.approx(1)
        if way in ("squares", "squares, padding", "labels"):
            assert len({round(s, 6) for s in shares}) > 1, "parts count for different amounts"
        assert [len(part["x"]) for part in parts] in ([12, 12], [6] * 4, [5, 5, 4, 5, 5])
        found = [student.gradients(part) for part in parts]
        kept = [(s, f) for s, f in zip(shares, found, strict=True) if s]
        assert sum(s * f.loss for s, f in kept) == pytest.approx(whole.loss, rel=1e-5)
        for name, gradient in whole.gradients.items():
            mean = sum(s * f.gradients[name] for s, f in kept)
            assert np.abs(mean - gradient).max() <= 1e-5 * np.abs(gradient).max(), name
        student.close()


def test_what_cannot_be_cut_stays_whole() -> None:
    batch = {"x": np.zeros((4, 2)), "state": np.zeros((1, 4))}
    assert parts_of(batch, 2) == [batch]
    assert parts_of({"x": np.zeros((4, 2)), "scale": np.float32(1)}, 2)[0].keys() == {"x", "scale"}
    assert len(parts_of({"x": np.zeros((3, 2))}, 8)) == 3
    assert shares_of([{"x": np.zeros(2)}] * 2, lambda _: 0.0) == [0.5, 0.5]


DATA = [{"x": x, "mask": mask} for x, mask in zip(*(np.split(a, 8) for a in inputs(64).values()), strict=True)]
OPTIONS = TrainingOptions(8, rate=1e-2, batch=16, threads=1)


def train(options: TrainingOptions, progress: Any = lambda _: None) -> Model:
    """From the same damaged model every time."""
    teacher = network()
    return learn(damage(teacher), TrainingData(DATA, teacher=teacher), options, progress=progress)[0]


@pytest.fixture(scope="module")
def alone() -> Model:
    """In one process, in two parts."""
    return train(replace(OPTIONS, parts=2))


def largest_difference(one: Model, two: Model) -> float:
    pairs = [(one.array(n), two.array(n)) for n in one.initializers if one.array(n).dtype.kind == "f"]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


def test_two_workers_give_what_one_process_gives(alone: Model) -> None:
    found = train(replace(OPTIONS, workers=2))
    assert same(found, alone), "the same parts, added up in the same order"
    assert largest_difference(found, train(OPTIONS)) < 1e-4, "to rounding, whatever the parts"
    assert not same(found, damage(network()))


def test_an_executor_and_the_search_for_a_rate() -> None:
    with ThreadPoolExecutor(2) as executor:
        options = replace(OPTIONS, rate=None, parts=3)
        assert same(train(replace(options, workers=executor)), train(options))


def test_a_worker_that_is_killed_is_replaced(alone: Model) -> None:
    killed = []

    def progress(said: str) -> None:
        """At the first judgement, kill one of the two."""
        if said.startswith("training step") and not killed:
            child = multiprocessing.active_children()[0]
            os.kill(child.pid or 0, signal.SIGKILL)
            killed.append(child.pid)

    found = train(replace(OPTIONS, workers=2), progress)
    assert killed and same(found, alone)
    assert not [child for child in multiprocessing.active_children() if child.is_alive()], "no worker is left"


def test_a_dask_cluster(alone: Model) -> None:
    distributed = pytest.importorskip("distributed")
    how = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**how) as cluster, distributed.Client(cluster) as client:
        assert same(train(replace(OPTIONS, workers=client)), alone)


def test_a_fixed_batch_is_distributed_as_it_is() -> None:
    net = Net()
    net.output(net.add("MatMul", net.input((4, 8), name="x"), net.weight(8, 3)))
    model, x = net.model(), RNG.standard_normal((64, 8)).astype(np.float32)
    found = []
    for workers in (1, 2):
        options = TrainingOptions(6, rate=1e-2, batch=16, threads=1, workers=workers)
        found.append(learn(damage(model), TrainingData([{"x": x}], teacher=model), options)[0])
    assert same(*found)


def test_an_interrupted_run_goes_on_with_other_workers(tmp_path: Path, alone: Model) -> None:
    saving = Saving(tmp_path / "run.checkpoint")

    class Stop(KeyboardInterrupt):
        pass

    def progress(said: str) -> None:
        if said.startswith("training step 4"):
            raise Stop

    with pytest.raises(Stop):
        train(replace(OPTIONS, workers=2, saving=saving), progress)
    resumed = replace(OPTIONS, saving=replace(saving, resume=True))
    with pytest.raises(UsageError, match="checkpoint of another run"):
        train(resumed)
    assert same(train(replace(resumed, parts=2)), alone)


def test_one_training_graph_for_parts_of_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    built, graph = [], Student.graph

    def counted(self: Student, feeds: Mapping[str, Array]) -> Any:
        built.append(len(feeds["x"]))
        return graph(self, feeds)

    monkeypatch.setattr(Student, "graph", counted)
    with ThreadPoolExecutor(2) as executor:
        train(replace(OPTIONS, workers=executor, parts=5, batch=16))
    assert len(built) == len(set(built)), "the first batch, parts of 3 and of 4, and what judges"


def read_only(shared: Any) -> Any:
    perform = _prepared(shared)

    def performed(job: Any) -> Any:
        loss, gradients = perform(job)
        for array in gradients.values():
            array.flags.writeable = False
        return loss, gradients

    return performed


def test_gradients_that_are_read_only_are_clipped_and_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(OPTIONS, clip=1e-3, parts=1)
    teacher = network()
    student = damage(teacher)
    masks = {n: RNG.random(student.array(n).shape) < 0.7 for n in student.initializers if student.array(n).ndim == 2}
    data, found = TrainingData(DATA, teacher=teacher), []
    monkeypatch.setattr("onnxprune.recovery.batch_parts._prepared", read_only)
    with ThreadPoolExecutor(2) as executor:
        for workers in (1, executor):
            found.append(learn(student, data, replace(options, workers=workers), masks=masks)[0])
    assert same(*found)


def broken(shared: Any) -> Any:
    def perform(job: Mapping[str, Any]) -> Any:
        raise RunError("the worker's runtime fails")

    return perform


def test_what_fails_on_a_worker_fails_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.recovery.batch_parts._prepared", broken)
    with pytest.raises(RunError, match="the worker's runtime fails"):
        train(replace(OPTIONS, workers=2))
