"""Shapes of inputs, as far as the nodes that read them fix these."""

from __future__ import annotations

import onnx
import pytest

from onnxprune.model.rank_of_inputs import shape_by_consumers
from tests.graphs.net import Net


def graph_of(*steps: tuple) -> onnx.GraphProto:
    """A chain of nodes behind the input: operator, shape of the weight, attributes."""
    net = Net()
    x = net.input(["?"])
    for op, weight, attributes in steps:
        x = net.add(op, x, *([net.weight(*weight)] if weight else []), **attributes)
    net.output(x, [])
    graph = onnx.GraphProto()
    graph.node.extend(net.nodes)
    graph.initializer.extend(net.weights)
    return graph


CONV = ("Conv", (6, 4, 3, 3), {})


@pytest.mark.parametrize(
    ("steps", "shape"),
    [
        ([CONV], (None, 4, None, None)),
        ([("Conv", (6, 2, 3), {"group": 2})], (None, 4, None)),
        ([("ConvTranspose", (4, 6, 3), {})], (None, 4, None)),
        ([("Gemm", (4, 6), {})], (None, 4)),
        ([("Gemm", (6, 4), {"transB": 1})], (None, 4)),
        ([("Gemm", (4, 6), {"transA": 1})], (4, None)),
        ([("LSTM", (1, 20, 4), {"hidden_size": 5})], (None, None, 4)),
        ([("Relu", (), {}), CONV], (None, 4, None, None)),
        ([("Mul", (1,), {}), CONV], (None, 4, None, None)),
        ([("Mul", (1, 1, 1, 1, 1), {}), CONV], None),
        ([("Transpose", (), {"perm": [0, 3, 1, 2]}), CONV], None),
        ([("MatMul", (4, 6), {})], None),
    ],
)
def test_what_weights_fix(steps: list[tuple], shape: tuple | None) -> None:
    assert shape_by_consumers(graph_of(*steps), "x") == shape


def test_a_declared_shape_behind_a_product_tells_its_rank() -> None:
    graph = graph_of(("MatMul", (4, 6), {}))
    info = onnx.helper.make_tensor_value_info(graph.node[0].output[0], onnx.TensorProto.FLOAT, [2, "n", 6])
    graph.value_info.append(info)
    assert shape_by_consumers(graph, "x") == (2, None, 4)
