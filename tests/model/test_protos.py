"""Copies of parts of messages."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.model.protos import SMALL, bodies, copy_except, graphs, keep, skeleton, without_weights
from tests.graphs.net import Net


def weighted() -> onnx.ModelProto:
    net = Net()
    h = net.add("MatMul", net.input([2, 64]), net.const(np.ones((64, 64), np.float32), "large"))
    net.output(net.add("Reshape", h, net.const(np.array([4, 32]), "small")))
    proto = net.proto()
    proto.producer_name, proto.graph.doc_string = "someone", "about it"
    return proto


def test_a_skeleton_has_all_but_the_weights() -> None:
    proto = weighted()
    light = skeleton(proto)
    assert not light.graph.initializer and light.producer_name == "someone" and light.graph.doc_string == "about it"
    assert light.graph.node == proto.graph.node and light.opset_import == proto.opset_import
    light.graph.initializer.extend(proto.graph.initializer)
    assert light == proto
    assert not skeleton(proto, "node", "doc_string").graph.node
    assert skeleton(onnx.ModelProto()).HasField("graph")


def test_large_weights_become_inputs_and_small_ones_stay() -> None:
    proto = weighted()
    light = without_weights(proto)
    assert [t.name for t in light.graph.initializer] == ["small"]
    (value,) = [v for v in light.graph.input if v.name == "large"]
    assert [d.dim_value for d in value.type.tensor_type.shape.dim] == [64, 64] and SMALL < 64 * 64
    assert light.ByteSize() < proto.ByteSize() / 10
    assert onnx.shape_inference.infer_shapes(light).graph.value_info == (
        onnx.shape_inference.infer_shapes(proto).graph.value_info
    )


def test_a_weight_that_is_an_input_is_one_input() -> None:
    proto = weighted()
    proto.graph.input.append(helper.make_tensor_value_info("large", TensorProto.FLOAT, [64, 64]))
    assert [v.name for v in without_weights(proto).graph.input].count("large") == 1


def test_what_lies_in_another_file_is_not_read() -> None:
    proto = weighted()
    small = next(t for t in proto.graph.initializer if t.name == "small")
    small.data_location = TensorProto.EXTERNAL
    assert [t.name for t in without_weights(proto).graph.initializer] == []


def test_all_fields_but_those_named_are_copied() -> None:
    source = helper.make_node("Conv", ["x", "w"], ["y"], name="n", pads=[1, 1])
    target = onnx.NodeProto()
    copy_except(source, target, "name", "output")
    assert target.op_type == "Conv" and list(target.input) == ["x", "w"] and target.attribute == source.attribute
    assert not target.name and not target.output


def test_graphs_in_graphs() -> None:
    inner = helper.make_graph([], "inner", [], [])
    middle = helper.make_graph([helper.make_node("Loop", [], ["l"], body=inner)], "middle", [], [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=middle, else_branch=inner)
    graph = helper.make_graph([node], "outer", [], [])
    assert [g.name for g in bodies(node)] == ["middle", "inner"] or [g.name for g in bodies(node)] == [
        "inner",
        "middle",
    ]
    assert sorted(g.name for g in graphs(graph)) == ["inner", "inner", "middle", "outer"]


def test_what_is_not_wanted_is_deleted_in_place() -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], [f"y{i}"]) for i in range(5)], "g", [], [])
    keep(graph.node, lambda node: node.output[0] in ("y1", "y4"))
    assert [n.output[0] for n in graph.node] == ["y1", "y4"]
