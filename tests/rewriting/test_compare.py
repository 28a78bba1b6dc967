"""Agreement of a smaller model with the original."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune import api
from onnxprune.model import load
from onnxprune.rewriting import Removal, agreement
from onnxprune.rewriting.rewrite import rewrite
from tests.graphs.net import Net


def classifier() -> onnx.ModelProto:
    net = Net()
    h = net.add("Relu", net.add("MatMul", net.input(["n", 6]), net.weight(6, 8, name="w1")))
    net.output(net.add("MatMul", h, net.weight(8, 5, name="w2"), name="y"), ["n", 5])
    return net.proto()


def runs(count: int = 2) -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(i).standard_normal((9, 6)).astype(np.float32)} for i in range(count)]


def nothing() -> Removal:
    groups = api.trace(classifier())
    return Removal(groups, np.zeros(groups.classes.count, bool))


def test_the_same_model_agrees_wholly() -> None:
    found = agreement(nothing(), load(classifier()), runs())
    assert found.error < 1e-12 and found.top1 == 1.0 and found.is_known


def test_what_a_removal_costs_is_the_error_of_the_outputs() -> None:
    groups = api.trace(classifier())
    gone = np.zeros(groups.classes.count, bool)
    gone[groups.groups[0].classes[:3]] = True
    removal = Removal(groups, gone)
    small = rewrite(groups, gone)
    found = agreement(removal, small, runs())
    w1, w2 = (onnx.numpy_helper.to_array(t) for t in classifier().graph.initializer)
    kept = ~gone[groups.classes.of[np.ravel(groups.tracing.axes["w1"][1])]]
    x = np.concatenate([r["x"] for r in runs()])
    whole, left = np.maximum(x @ w1, 0) @ w2, (np.maximum(x @ w1, 0) * kept) @ w2
    ratio = np.square(whole).sum() / np.square(whole - left).sum()
    assert np.isclose(found.sqnr, 10 * np.log10(ratio), rtol=1e-3)
    assert np.isclose(found.top1 or 0, (whole.argmax(1) == left.argmax(1)).mean())


def test_ids_are_compared_by_what_is_in_front_of_them() -> None:
    """Of a model that gives the number of a class alone, the scores in front of it tell."""
    proto = classifier()
    chosen = onnx.helper.make_node("ArgMax", ["y"], ["id"], axis=1)
    proto.graph.node.append(chosen)
    del proto.graph.output[:]
    proto.graph.output.append(onnx.helper.make_tensor_value_info("id", onnx.TensorProto.INT64, ["n", 1]))
    groups = api.trace(proto)
    gone = np.zeros(groups.classes.count, bool)
    gone[groups.groups[0].classes[:3]] = True
    found = agreement(Removal(groups, gone), rewrite(groups, gone), runs())
    assert found.is_known and found.error > 1e-4
