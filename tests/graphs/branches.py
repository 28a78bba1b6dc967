"""Any model again, inside of both branches of an If."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper


def in_branches(proto: onnx.ModelProto, other: onnx.ModelProto | None = None) -> onnx.ModelProto:
    """All nodes and weights of a model in either branch of an If, under the same names.

    Args:
        proto: the model of the first branch, and of the second where there is no `other`.
        other: the same model with other weights, for the second branch.
    """
    bodies = {}
    for name, graph in (("then_branch", proto.graph), ("else_branch", (other or proto).graph)):
        ends = [helper.make_node("Identity", [o.name], [f"{o.name}_of_{name}"]) for o in graph.output]
        outputs = []
        for value in graph.output:
            outputs.append(onnx.ValueInfoProto())
            outputs[-1].CopyFrom(value)
            outputs[-1].name = f"{value.name}_of_{name}"
        bodies[name] = helper.make_graph(
            [*graph.node, *ends], name, [], outputs, graph.initializer, value_info=graph.value_info
        )
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for items in (made.graph.node, made.graph.initializer, made.graph.value_info):
        del items[:]
    for value in made.graph.output:
        value.name = f"{value.name}_chosen"
    made.graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    made.graph.node.append(helper.make_node("If", ["which"], [o.name for o in made.graph.output], **bodies))
    return made
