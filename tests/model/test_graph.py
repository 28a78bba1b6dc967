"""Constants, captured names, and nodes that nothing needs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.model import load
from onnxprune.model.graph import WEIGHT_TYPES, captured, constant_value, first_output, remove_dead
from tests.graphs.net import Net


def branch(name: str, *reads: str) -> onnx.GraphProto:
    node = helper.make_node("Add", list(reads), [f"{name}_y"])
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)])


def test_a_node_is_known_by_its_first_output_that_is_asked_for() -> None:
    assert first_output(helper.make_node("Split", ["x"], ["", "", "c", "d"])) == "c"
    assert first_output(helper.make_node("Relu", ["x"], ["y"])) == "y" and first_output(onnx.NodeProto()) == ""


def test_bodies_capture_names_at_any_depth() -> None:
    inner = helper.make_node("If", ["c"], ["z"], then_branch=branch("then", "a", "b"), else_branch=branch("else", "d"))
    outer = onnx.GraphProto(name="outer")
    outer.node.append(inner)
    node = helper.make_node("Loop", ["n"], ["y"], body=outer)
    assert {"a", "b", "c", "d"} <= set(captured(node)) and "n" not in set(captured(node))


@pytest.mark.parametrize(
    ("attribute", "value", "dtype"),
    [
        ({"value_int": 3}, 3, np.int64),
        ({"value_ints": [3, 4]}, [3, 4], np.int64),
        ({"value_float": 0.5}, 0.5, np.float32),
        ({"value_floats": [0.5, 2.0]}, [0.5, 2.0], np.float32),
        ({"value": onnx.numpy_helper.from_array(np.eye(2, dtype=np.float16))}, np.eye(2), np.float16),
    ],
)
def test_constants_however_they_are_written(attribute: dict, value: object, dtype: type) -> None:
    net = Net()
    net.output(net.add("Relu", net.input([2])))
    found = constant_value(load(net.proto()), helper.make_node("Constant", [], ["c"], **attribute))
    assert found is not None and found.dtype == dtype
    np.testing.assert_array_equal(found, np.asarray(value))


def test_text_is_no_constant_here() -> None:
    net = Net()
    net.output(net.add("Relu", net.input([2])))
    model = load(net.proto())
    assert constant_value(model, helper.make_node("Constant", [], ["c"], value_string="a")) is None
    assert constant_value(model, helper.make_node("Constant", [], ["c"])) is None


def test_what_no_output_depends_on_goes() -> None:
    net = Net()
    x = net.input([2, 4])
    net.output(net.add("MatMul", x, net.weight(4, 3, name="used"), name="y"))
    net.add("MatMul", net.add("Relu", x, name="dead"), net.weight(4, 3, name="unused"), name="deader")
    graph = onnx.GraphProto()
    graph.CopyFrom(net.proto().graph)
    graph.value_info.append(helper.make_tensor_value_info("dead", TensorProto.FLOAT, [2, 4]))
    kept = onnx.GraphProto()
    kept.CopyFrom(graph)
    remove_dead(graph)
    assert [n.output[0] for n in graph.node] == ["y"] and [t.name for t in graph.initializer] == ["used"]
    assert not graph.value_info and [i.name for i in graph.input] == ["x"], "inputs of the model stay"
    remove_dead(kept, {"deader"})
    assert len(kept.node) == 3


def test_what_a_body_reads_is_alive() -> None:
    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("then", "a", "a"), else_branch=branch("else", "b", "b")
    )
    before = helper.make_node("Relu", ["x"], ["a"])
    dead = helper.make_node("Relu", ["x"], ["e"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([before, dead, node], "g", [], [output])
    remove_dead(graph)
    assert [n.output[0] for n in graph.node] == ["a", "y"]


def test_sizes_and_masks_are_no_weights() -> None:
    assert {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT4} <= WEIGHT_TYPES
    assert not {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING} & WEIGHT_TYPES
