"""Functions written out where they are called."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import ModelError
from onnxprune.model import inlined, load, to_proto
from tests.graphs.net import Net, run

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]


def calling(depth: int, calls: int = 2) -> onnx.ModelProto:
    """f0 calls f1 so often, f1 calls f2, ...; the last one is a Relu."""
    functions = []
    for level in range(depth):
        inside = f"f{level + 1}" if level + 1 < depth else "Relu"
        domain = "own" if level + 1 < depth else ""
        names = ["x", *(f"h{i}" for i in range(calls - 1)), "y"]
        nodes = [helper.make_node(inside, [names[i]], [names[i + 1]], domain=domain) for i in range(calls)]
        functions.append(helper.make_function("own", f"f{level}", ["x"], ["y"], nodes, OPSETS))
    node = helper.make_node("f0", ["s"], ["out"], domain="own")
    first = helper.make_node("Sub", ["in", "h0"], ["s"])
    info = helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(np.ones(3, np.float32), "h0")
    graph = helper.make_graph(
        [first, node], "g", [info("in", TensorProto.FLOAT, [3])], [info("out", TensorProto.FLOAT, [3])], [weight]
    )
    return helper.make_model(graph, opset_imports=OPSETS, functions=functions, ir_version=9)


def test_calls_are_written_out_and_compute_the_same() -> None:
    proto = calling(3)
    done = to_proto(inlined(load(proto)))
    assert {n.op_type for n in done.graph.node} == {"Sub", "Relu"} and len(done.graph.node) == 9
    x = np.array([-1.0, 0.5, 3.0], np.float32)
    np.testing.assert_array_equal(run(done, feeds={"in": x})["out"], run(proto, feeds={"in": x})["out"])
    assert [t.name for t in done.graph.initializer] == ["h0"], (
        "weights keep their names, whatever functions call theirs"
    )


def test_without_calls_it_is_the_same_object() -> None:
    net = Net()
    net.output(net.add("Relu", net.input([2])))
    model = load(net.proto())
    assert inlined(model) is model


def test_functions_that_explode_are_refused() -> None:
    with pytest.raises(ModelError, match="written out, they are more than"):
        inlined(load(calling(22)))
