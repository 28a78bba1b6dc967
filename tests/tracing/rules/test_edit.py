"""Edits of nodes: attributes, constants, targets and what is put around a node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune import api
from onnxprune.model.names import Names
from onnxprune.tracing.rules.edit import Edit
from tests.graphs.net import Net


def edit(proto: onnx.ModelProto, output: str, new: tuple[int, ...]) -> Edit:
    """An edit of the node that makes a tensor, which gets a new shape."""
    groups = api.trace(proto)
    (view,) = [v for v, _ in groups.tracing.views if output in v.node.output]
    node = onnx.NodeProto()
    node.CopyFrom(view.node)
    names = Names(groups.tracing.model.proto.graph)
    return Edit(view, node, [None] * len(node.input), [new], lambda slot, axis: np.ones(1, bool), names.unique, {})


def attribute(of: Edit, name: str) -> Any:
    return next(onnx.helper.get_attribute_value(a) for a in of.node.attribute if a.name == name)


def reshaped(target: Any, *, opset: int = 17, static: bool = True) -> Edit:
    net = Net(opset)
    x = net.input([4, 6])
    if static:
        y = net.add("Reshape", x, net.ints(*target), name="y")
    else:
        size = net.add("Mul", net.add("Shape", x), net.ints(2, 1))
        y = net.add("Reshape", net.add("Concat", x, x, axis=0), size, name="y")
    net.output(y)
    return edit(net.proto(), "y", (target[0], 3) if static else (8, 3))


def test_attributes_are_replaced_or_added_and_keep_their_notes() -> None:
    of = reshaped((4, 6))
    of.set_attribute("allowzero", 1)
    of.node.attribute[0].doc_string = "why"
    of.set_attribute("allowzero", 0)
    assert attribute(of, "allowzero") == 0 and of.node.attribute[0].doc_string == "why" and len(of.node.attribute) == 1


def test_equal_constants_are_stored_once() -> None:
    of = reshaped((4, 6))
    one, again = (of.constant(np.array([1, 2]), "role") for _ in range(2))
    other, float_one = of.constant(np.array([1, 3]), "role"), of.constant(np.array([1.0, 2.0]), "role")
    assert one == again and len({one, other, float_one}) == 3 and set(of.constants) == {one, other, float_one}


def test_a_stored_target_gets_the_new_size() -> None:
    of = reshaped((4, 6))
    of.retarget(1)
    assert of.constants[of.node.input[1]].tolist() == [4, 3] and not of.before


def test_entries_that_are_no_sizes_follow_by_themselves() -> None:
    of = reshaped((4, -1))
    before = of.node.input[1]
    of.retarget(1)
    assert of.node.input[1] == before and not of.constants


def test_an_input_that_was_left_out_is_filled_up() -> None:
    of = reshaped((4, 6))
    of.set_input(3, np.array([7]), "axes")
    assert list(of.node.input[2:3]) == [""] and of.constants[of.node.input[3]].tolist() == [7]


def test_numbers_are_multiplied_in_front_and_behind() -> None:
    of = reshaped((4, 6))
    of.multiply_input(0, np.array(2.0, np.float32))
    of.multiply_output(np.array(0.5, np.float32))
    assert [n.op_type for n in of.before] == ["Mul"] and of.before[0].input[0] == "x"
    assert of.node.input[0] == of.before[0].output[0]
    assert of.after[0].output[0] == "y" and of.after[0].input[0] == of.node.output[0] != "y"


def test_vectors_are_scaled_by_fractions_without_needless_nodes() -> None:
    of = reshaped((4, 6))
    name = of.scaled("sizes", [(1, 2), (3, 4)], "shape")
    assert [n.op_type for n in of.before] == ["Mul", "Div"] and of.before[-1].output[0] == name
    assert [of.constants[n.input[1]].tolist() for n in of.before] == [[1, 3], [2, 4]]
    assert of.scaled("other", [(1, 1)], "shape") == "other"
    assert [n.op_type for n in of.before] == ["Mul", "Div"]


@pytest.mark.parametrize(("opset", "op"), [(17, "Constant"), (8, "Identity")])
def test_a_constant_in_the_place_of_a_node(opset: int, op: str) -> None:
    of = reshaped((4, 6), opset=opset)
    of.replace_by(np.array([1, 2], np.int64))
    assert of.node.op_type == op and list(of.node.output) == ["y"]
    value = attribute(of, "value") if op == "Constant" else None
    found = onnx.numpy_helper.to_array(value) if value is not None else of.constants[of.node.input[0]]
    assert found.tolist() == [1, 2]


def test_positions_are_taken_behind_the_node() -> None:
    of = reshaped((4, 6))
    of.gather_after(1, np.array([0, 2, 4]))
    (gather,) = of.after
    assert gather.op_type == "Gather" and gather.output[0] == "y" and gather.input[0] == of.node.output[0]
    assert of.constants[gather.input[1]].tolist() == [0, 2, 4] and of.changed() == [1]
