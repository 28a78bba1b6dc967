"""Models judged on data, held against what ONNX Runtime gives and numpy makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.pipelines.evaluate import EvaluationData
from tests.graphs.net import Net, run

RNG = np.random.default_rng(3)
INPUTS = RNG.standard_normal((70, 6)).astype(np.float32)


def scorer(*shape: int, name: str = "y", seed: int = 0, last: str = "Identity") -> onnx.ModelProto:
    """MatMul and a reshape of what it gives: [n, *shape]."""
    net = Net()
    weight = np.random.default_rng(seed).standard_normal((6, int(np.prod(shape)))).astype(np.float32)
    made = net.add("MatMul", net.input(["n", 6], name="x"), net.const(weight))
    made = net.add("Reshape", made, net.ints(-1, *shape))
    net.output(net.add(last, made, name=name), ["n", *shape])
    return net.proto()


def of(model: onnx.ModelProto) -> np.ndarray:
    return run(model, feeds={"x": INPUTS})["y"]


def judged(models: Any, labels: np.ndarray, *metrics: str, **options: Any) -> Any:
    return onnxprune.evaluate(models, {"x": INPUTS, "label": labels}, labels="label", metrics=metrics, **options)


def test_classes() -> None:
    first, other = scorer(5), scorer(5, seed=1)
    labels = np.where(RNG.random(70) < 0.5, of(first).argmax(axis=1), RNG.integers(0, 5, 70))
    found = judged([first, other], labels)
    right = [of(model).argmax(axis=1) == labels for model in (first, other)]
    assert [m.metrics["accuracy"] for m in found.models] == [pytest.approx(r.mean()) for r in right]
    assert found.labels == 70 and set(found.models[0].metrics) == {"accuracy", "f1"}
    changes = found.models[1].changes
    assert found.models[0].changes is None and changes is not None
    assert (changes.both, changes.lost) == ((right[0] & right[1]).sum(), (right[0] & ~right[1]).sum())
    assert (changes.gained, changes.neither) == ((~right[0] & right[1]).sum(), (~right[0] & ~right[1]).sum())


def test_agreement_with_the_first_needs_no_labels() -> None:
    first, other = scorer(5), scorer(5, seed=1)
    found = onnxprune.evaluate([first, other, first], {"x": INPUTS})
    assert found.labels == 0 and found.models[0].agreement is None
    same = (of(first).argmax(axis=1) == of(other).argmax(axis=1)).mean()
    assert found.models[1].agreement is not None and found.models[2].agreement is not None
    assert found.models[1].agreement.top1 == pytest.approx(same) and found.models[2].agreement.error == 0


@pytest.mark.parametrize("last", ["Sigmoid", "Identity"])
@pytest.mark.parametrize("shape", [(1,), ()])
def test_one_score_is_cut_at_a_half_or_at_zero(last: str, shape: tuple[int, ...]) -> None:
    model = scorer(*shape, last=last)
    labels = RNG.integers(0, 2, 70)
    scores = of(model).reshape(70)
    found = judged(model, labels).models[0].metrics
    wanted = (scores > (0.5 if last == "Sigmoid" else 0)) == labels
    assert found["accuracy"] == pytest.approx(wanted.mean())
    pairs = scores[labels == 1][:, None] - scores[labels == 0]
    assert found["auc"] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_maps_have_their_classes_in_front() -> None:
    model = scorer(3, 4, 2)
    labels = RNG.integers(-1, 3, (70, 4, 2))
    found = judged(model, labels)
    pixels = of(model).argmax(axis=1)
    assert found.models[0].metrics["accuracy"] == pytest.approx((pixels == labels)[labels >= 0].mean())
    assert found.labels == (labels >= 0).sum() and "iou" in found.models[0].metrics


def test_class_numbers_have_no_scores() -> None:
    net = Net()
    made = net.add("MatMul", net.input(["n", 6], name="x"), net.weight(6, 5))
    net.output(net.add("ArgMax", made, axis=1, keepdims=0, name="y"), ["n"], TensorProto.INT64)
    labels = RNG.integers(0, 5, 70)
    assert judged(net.proto(), labels).models[0].metrics["accuracy"] == pytest.approx(
        (of(net.proto()) == labels).mean()
    )
    with pytest.raises(UsageError, match="needs scores"):
        judged(net.proto(), labels, "top2")


def test_numbers() -> None:
    model = scorer(3)
    labels = RNG.standard_normal((70, 3)).astype(np.float32)
    found = judged(model, labels, "mae", "rmse")
    assert found.models[0].metrics["mae"] == pytest.approx(np.abs(of(model) - labels).mean(), rel=1e-5)
    assert found.models[0].changes is None


def test_the_users_own_measure_needs_no_data() -> None:
    found = onnxprune.evaluate([scorer(2), scorer(2)], evaluate_with=lambda path: float(Path(path).stat().st_size > 0))
    assert [model.metrics for model in found.models] == [{"value": 1.0}] * 2


@pytest.mark.parametrize(
    ("labels", "metrics", "said"),
    [
        (np.full(70, 5), (), "a label is 5, and there are 5 classes"),
        (np.zeros((70, 2), np.int64), (), "label"),
        (np.zeros(70, np.int64), ("mae", "f1"), "not both"),
        (np.zeros(70, np.int64), ("best",), "no metric is called"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, metrics: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        judged(scorer(5), labels, *metrics)


def test_requests_that_contradict_themselves() -> None:
    with pytest.raises(UsageError, match="nothing to judge by"):
        EvaluationData()
    with pytest.raises(UsageError, match="metrics need labels"):
        EvaluationData("inputs.npz", metrics=("f1",))
    with pytest.raises(UsageError, match="no output is called 'z'"):
        judged(scorer(5), np.zeros(70, np.int64), output="z")


def test_models_with_other_inputs_are_refused() -> None:
    net = Net()
    net.output(net.add("Relu", net.input(["n", 6], name="z"), name="y"), ["n", 6])
    with pytest.raises(UsageError, match="model 2 takes"):
        onnxprune.evaluate([scorer(5), net.proto()], {"x": INPUTS})
