"""One pass over the graph: labels from inputs to outputs, and constraints on the way."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.model import load
from onnxprune.model.flatten import flattened
from onnxprune.model.shapes.infer import infer
from onnxprune.tracing import TraceResult
from onnxprune.tracing.labels import Constraints
from onnxprune.tracing.tracer import Tracer
from tests.graphs.net import Net


def traced(proto: onnx.ModelProto) -> TraceResult:
    model = flattened(load(proto))
    return Tracer(model, infer(model), Constraints()).run()[0]


def line(of: TraceResult, tensor: str, axis: int) -> np.ndarray:
    return np.ravel(of.axes[tensor][axis])


def test_outputs_of_a_layer_have_the_labels_of_its_weight() -> None:
    net = Net()
    h = net.add("MatMul", net.input([2, 4]), net.weight(4, 6, name="w"), name="h")
    net.output(net.add("Relu", h, name="y"))
    found = traced(net.proto())
    assert (line(found, "w", 1) == line(found, "h", 1)).all() and (line(found, "h", 1) == line(found, "y", 1)).all()
    assert np.unique(line(found, "w", 1)).size == 6 and {v.node.op_type for v, _ in found.views} == {"MatMul", "Relu"}


def test_every_tensor_has_labels_for_every_axis() -> None:
    net = Net()
    h = net.add("Conv", net.input([1, 3, 8, 8]), net.weight(6, 3, 3, 3, name="a"))
    h = net.add("Flatten", net.add("GlobalAveragePool", h))
    net.output(net.add("Gemm", h, net.weight(6, 5, name="b"), net.weight(5)))
    found = traced(net.proto())
    for name, axes in found.axes.items():
        shape = found.static.shapes[found.weights.get(name, name)]
        assert len(axes) == len(shape), name
        for labels, size in zip(axes, shape, strict=True):
            assert labels.ndim == len(shape) or len(labels) in (1, size), name


def test_an_operator_without_a_rule_gives_no_labels() -> None:
    net = Net()
    h = net.add("MatMul", net.input([2, 4]), net.weight(4, 6, name="w"), name="h")
    net.output(net.add("NonZero", h, name="y"), [2, "n"], onnx.TensorProto.INT64)
    found = traced(net.proto())
    assert [rule for view, rule in found.views if view.node.op_type == "NonZero"] == [None]
    assert all((np.ravel(a) < 0).all() for a in found.axes.get("y", ()))


def test_two_traces_give_the_same_labels() -> None:
    net = Net()
    h = net.add("MatMul", net.input([2, 4]), net.weight(4, 6, name="w"))
    net.output(net.add("Add", h, net.weight(6)))
    one, two = (traced(net.proto()) for _ in range(2))
    assert one.axes.keys() == two.axes.keys()
    for name in one.axes:
        assert all(np.array_equal(a, b) for a, b in zip(one.axes[name], two.axes[name], strict=True))
