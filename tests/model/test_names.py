"""Names that are free."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.model.names import Names


def test_a_free_name_is_taken_as_it_is_and_others_get_numbers() -> None:
    names = Names(["a", "b_1"])
    assert [names.unique(s) for s in ("c", "a", "a", "b", "b", "c")] == ["c", "a_1", "a_2", "b", "b_2", "c_1"]


def test_names_of_graphs_and_of_bodies_are_taken() -> None:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["inside_in"], ["inside_out"], name="inside_node")],
        "body",
        [],
        [helper.make_tensor_value_info("inside_out", TensorProto.FLOAT, [1])],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [onnx.numpy_helper.from_array(np.ones(1), "w")],
    )
    names = Names(graph, ["more"])
    for taken in ("inside_in", "inside_out", "inside_node", "x", "y", "w", "c", "more"):
        assert names.unique(taken) == f"{taken}_1"
