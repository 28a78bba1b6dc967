"""A variant of quantised models in which a wrong removal shows, and rounding does not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model import Model, Names
from onnxprune.model.graph import captured
from onnxprune.model.protos import copy_without
from onnxprune.model.traits import operators_where

# Operators that take the numbers of their first input as they are, whatever they mean; a MaxPool some of them.
_CARRIERS = operators_where(lambda traits: traits.moves, "") | {"MaxPool"}
_ROUNDED = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16)


def unrounded(model: Model, original: Model, dtypes: Mapping[str, int]) -> Model:
    """`model` without the rounding of activations that are quantised only to be dequantised again; they still saturate.

    Sums of floats in another order differ by a rounding error, which rounding to steps turns into a whole step now
    and then: layer by layer, that grows beyond any tolerance that would show a mistake. Without the steps it is small.
    """
    found = _roundings(original, dtypes)
    if not found:
        return model
    proto = copy_without(model.proto, "node", "value_info")
    graph = proto.graph
    names = Names(model.proto.graph)
    for node in model.proto.graph.node:
        limits = found.get(node.output[0]) if node.output else None
        if limits is None:
            graph.node.append(node)
        else:
            _spell_out(graph, node, names, *limits)
    return replace(model, proto=proto)


def has_roundings(original: Model, dtypes: Mapping[str, int]) -> bool:
    """Whether `unrounded` changes anything."""
    return bool(_roundings(original, dtypes))


def _roundings(original: Model, dtypes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Outputs of the nodes to replace: QuantizeLinear -> (float type, stored type), DequantizeLinear -> the same."""
    graph = original.proto.graph
    if not any(node.op_type == "QuantizeLinear" for node in graph.node):
        return {}
    free: dict[str, bool] = {o.name: False for o in graph.output}  # whether all users of a tensor take real numbers
    kept = {i for n in graph.node if any(a.HasField("g") for a in n.attribute) for i in captured(n)}
    for node in reversed(graph.node):
        carried = node.op_type in _CARRIERS and all(free.get(o, True) and o not in kept for o in node.output if o)
        for slot, name in enumerate(node.input):
            taken = carried or (node.op_type == "DequantizeLinear" and _is_single(original, node))
            free[name] = free.get(name, True) and taken and slot == 0
    real: set[str] = set()
    found: dict[str, tuple[int, int]] = {}
    for node in graph.node:
        name = node.output[0] if node.output else ""
        known = name in dtypes and node.input and node.input[0] in dtypes  # else it came through an untraced operator
        if known and node.op_type == "QuantizeLinear" and free.get(name) and _is_single(original, node, dtypes[name]):
            real.add(name)
            found[name] = dtypes[node.input[0]], dtypes[name]
        elif node.op_type in _CARRIERS and node.input and node.input[0] in real:
            real.update(node.output)
        elif known and node.op_type == "DequantizeLinear" and node.input[0] in real:
            found[name] = dtypes[name], dtypes[node.input[0]]
    return found


def _is_single(original: Model, node: onnx.NodeProto, stored: int = TensorProto.UINT8) -> bool:
    scale = original.initializers.get(node.input[1]) if len(node.input) > 1 else None
    return scale is not None and math.prod(scale.dims) == 1 and stored in _ROUNDED


def _spell_out(graph: onnx.GraphProto, node: onnx.NodeProto, names: Names, real: int, stored: int) -> None:
    """Append (de)quantisation in real numbers in place of `node`."""
    output = node.output[0]

    def add(op: str, *inputs: str, made: str = "", **attributes: Any) -> str:
        name = made or names.unique(f"onnxprune_{op.lower()}")
        graph.node.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def limit(value: float) -> str:
        value_name = names.unique("onnxprune_limit")
        kind = helper.tensor_dtype_to_np_dtype(real)
        graph.initializer.append(numpy_helper.from_array(np.array(value, kind), value_name))
        return value_name

    zero = node.input[2] if len(node.input) > 2 else ""
    x, offset = node.input[0], add("Cast", zero, to=real) if zero else limit(0)
    if node.op_type == "DequantizeLinear":
        add("Mul", add("Sub", x, offset), node.input[1], made=output)
    else:
        info = np.iinfo(helper.tensor_dtype_to_np_dtype(stored))
        moved = add("Add", add("Div", x, node.input[1]), offset)
        add("Min", add("Max", moved, limit(info.min)), limit(info.max), made=output)
