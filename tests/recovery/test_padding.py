"""Padding does not count: neither in the loss nor in its gradients."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.autodiff import write_back
from onnxprune.errors import UsageError
from onnxprune.model import Model, load
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.recovery import TrainingOptions
from onnxprune.runtime import Session
from onnxprune.typing import Array

T, C = 5, 4


def model(ending: str) -> Model:
    """Every token by itself; the mask is an input, and an output that is the same in all models."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node(ending, ["h"], ["y"], **({"axis": -1} if "Softmax" in ending else {})),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
    ]
    ends = [("x", TensorProto.FLOAT, ["n", T, 3]), ("mask", TensorProto.INT64, ["n", T])]
    outs = [("y", TensorProto.FLOAT, ["n", T, C]), ("m", TensorProto.FLOAT, ["n", T])]
    infos = [[helper.make_tensor_value_info(*e) for e in part] for part in (ends, outs)]
    weight = numpy_helper.from_array(rng.standard_normal((3, C)).astype(np.float32), "w")
    graph = helper.make_graph(nodes, "g", infos[0], infos[1], [weight])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def other(teacher: Model) -> Model:
    noise = np.random.default_rng(1).standard_normal((3, C)).astype(np.float32)
    return write_back(teacher, {"w": teacher.array("w") + noise / 2})


def data(seed: int = 0) -> list[dict[str, Array]]:
    """Eight runs; where the mask is zero, inputs are drawn by another seed, and large."""
    rng, padding = np.random.default_rng(2), np.random.default_rng(seed)
    runs = []
    for _ in range(8):
        mask = (np.arange(T) < rng.integers(1, T + 1, (4, 1))).astype(np.int64)
        x = np.where(mask[:, :, None] > 0, rng.standard_normal((4, T, 3)), 9 * padding.standard_normal((4, T, 3)))
        runs.append({"x": x.astype(np.float32), "mask": mask})
    return runs


OPTIONS = {"rate": 1e-2, "batch": 4, "threads": 1}


@pytest.mark.parametrize(("ending", "temperature"), [("Softmax", None), ("LogSoftmax", None), ("Identity", None)])
def test_what_the_padding_holds_makes_no_difference(ending: str, temperature: float | None) -> None:
    teacher = model(ending)
    options = TrainingOptions(12, padding="mask", temperature=temperature, **OPTIONS)
    (one, first), (two, second) = (
        learn(other(teacher), TrainingData(data(s), teacher=teacher), options) for s in (0, 1)
    )
    assert first.before == pytest.approx(second.before, rel=1e-5) and first.after < first.before
    assert np.allclose(one.array("w"), two.array("w"), atol=1e-5)
    plain = TrainingOptions(12, temperature=temperature, **OPTIONS)
    unlike = [learn(other(teacher), TrainingData(data(s), teacher=teacher), plain)[1].before for s in (0, 1)]
    assert abs(unlike[0] - unlike[1]) > 1e-3 * unlike[0]


def test_the_loss_is_the_mean_over_what_counts() -> None:
    teacher = model("LogSoftmax")
    student = other(teacher)
    run = data()[0]
    held = learn(student, TrainingData([run, run], teacher=teacher), TrainingOptions(1, padding="mask", **OPTIONS))[1]
    with Session(teacher) as one, Session(student) as two:
        wanted, found = (session.run(run)[0].astype(np.float64) for session in (one, two))
    rows = (np.exp(wanted) * (wanted - found)).sum(axis=-1)
    inside = run["mask"] > 0
    assert held.before == pytest.approx(rows[inside].mean(), rel=1e-4)
    assert rows.mean() != pytest.approx(rows[inside].mean(), rel=1e-2)


def test_at_a_temperature() -> None:
    teacher = model("Identity")
    options = TrainingOptions(6, padding="mask", temperature=2.0, **OPTIONS)
    first, second = (learn(other(teacher), TrainingData(data(s), teacher=teacher), options)[1] for s in (0, 1))
    assert first.before == pytest.approx(second.before, rel=1e-4)


def test_labels_of_padding_do_not_count() -> None:
    student = model("Identity")
    rng = np.random.default_rng(3)
    runs = [{**run, "label": rng.integers(0, C, (4, T))} for run in data()]
    spoilt = [{**run, "label": np.where(run["mask"] > 0, run["label"], 0)} for run in runs]
    options = TrainingOptions(2, padding="mask", **OPTIONS)
    one, two = (learn(student, TrainingData(r, labels="label"), options)[1] for r in (runs, spoilt))
    assert one.before == two.before and one.after == two.after


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"padding": "nothing"}, "the model has no input 'nothing'"),
        ({"padding": "mask", "loss": "mse"}, "mse to a teacher"),
    ],
)
def test_refused(given: dict[str, str], problem: str) -> None:
    teacher = model("Identity")
    with pytest.raises(UsageError, match=problem):
        learn(other(teacher), TrainingData(data(), teacher=teacher), TrainingOptions(2, **given, **OPTIONS))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no output begins with the axes"):
        learn(other(teacher), TrainingData(data(), teacher=teacher), TrainingOptions(2, padding="x", **OPTIONS))
