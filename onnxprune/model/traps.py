"""Nodes on which ONNX's shape inference never ends, or ends the process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnxprune.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Axes; real tensors have some ten.
LARGEST_AXIS = 1 << 16
_TERM = r"[A-Za-z]*(\.\.\.)?[A-Za-z]*"
# Operators that make as many axes as an input has entries, and this input.
_TARGETS = {"Expand": 1, "Reshape": 1, "ConstantOfShape": 0}
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")


def refuse_traps(proto: ModelProto, name: str) -> None:
    """Refuse nodes on which ONNX's shape inference never ends, or ends the process; the checker does not notice them.

    Args:
        proto: the model; nodes of bodies and of functions count.
        name: name of the model in messages.

    Raises:
        ModelError: a node is a trap.
    """
    from onnxprune.model.tensors import nodes

    graph = proto.graph
    lists = {t.name: t.dims[0] for t in graph.initializer if len(t.dims) == 1}
    for value in (*graph.input, *graph.value_info):
        if len(value.type.tensor_type.shape.dim) == 1:
            lists[value.name] = value.type.tensor_type.shape.dim[0].dim_value
    for node in nodes(proto):
        if node.domain in ("", "ai.onnx"):
            problem = _problem(node, lists)
        else:
            problem = _learning_problem(node) if node.domain == "ai.onnx.ml" else ""
        if problem:
            label = node.name or next(iter(node.output), "")
            raise ModelError(f"{name}: {node.op_type} {label!r} has {problem}")


def _problem(node: NodeProto, lists: Mapping[str, int]) -> str:
    """What is wrong with a node; `lists` has the length of every tensor that is declared with one axis."""
    for attribute in node.attribute:
        if attribute.name == "equation" and node.op_type == "Einsum":
            text = attribute.s.decode("utf-8", "replace").replace(" ", "")
            if not _EQUATION.fullmatch(text):
                return f"the equation {text[:60]!r}, which is none"
        elif attribute.name in ("axis", "batch_dims") and abs(attribute.i) > LARGEST_AXIS:
            return f"{attribute.name} {attribute.i}"
        elif attribute.name == "batch_dims" and attribute.i < 0 and node.op_type == "GatherND":
            return f"batch_dims {attribute.i}"
        elif attribute.name == "num_outputs" and attribute.i != len(node.output) and node.op_type == "Split":
            return f"{len(node.output)} outputs, but num_outputs {attribute.i}"
    target = node.input[slot] if -1 < (slot := _TARGETS.get(node.op_type, -1)) < len(node.input) else ""
    if lists.get(target, 0) > LARGEST_AXIS:
        return f"a target shape of {lists[target]} axes"
    return ""


def _learning_problem(node: NodeProto) -> str:
    """What is wrong with a node of ONNX-ML, whose shape functions read inputs and outputs without looking for them."""
    from onnx import defs

    if not defs.has(node.op_type, node.domain):
        return ""
    schema = defs.get_schema(node.op_type, node.domain)
    if len(node.input) > schema.max_input or not node.input or not node.input[0]:
        return f"{sum(map(bool, node.input))} of at most {schema.max_input} inputs, and must have the first"
    if len(node.output) > schema.max_output:
        return f"{len(node.output)} outputs of at most {schema.max_output}"
    return ""
