"""Variants of quantised models in which a wrong removal shows, and rounding does not.

On processors without VNNI, ONNX Runtime adds pairs of products of an uint8 and an int8 in 16 bits, which saturate:
which pairs there are depends on the positions, so the sums change when others go. With uint8 weights it does not.
"""

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
from onnxprune.model.traits import TRAITS, operators_where

# Contractions of stored numbers: the slots of the second factor and of its zero point.
_WEIGHTS: Mapping[str, tuple[int, int]] = {
    op: (t.weight, t.zero_point) for (_, op), t in TRAITS.items() if t.weight is not None and t.zero_point is not None
}
_SHIFT = 128


def unsaturated(model: Model, original: Model, dtypes: Mapping[str, int]) -> Model:
    """`model` with int8 weights as uint8, 128 higher like their zero points, where they meet uint8 activations.

    Args:
        model: a variant of the original, with the same names of node outputs.
        original: the original.
        dtypes: types of its tensors.
    """
    wide = {n.output[0] for n in original.proto.graph.node if _is_mixed(n, dtypes)}
    if not wide:
        return model
    proto, nodes = _taken_apart(model)
    graph = proto.graph
    names = Names(model.proto.graph)
    shifts = {dtype: names.unique("onnxprune_shift") for dtype in (np.uint8, np.int32)}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(_SHIFT, kind), n) for kind, n in shifts.items())
    for node in nodes:
        if node.output and node.output[0] in wide:
            weight, zero = _WEIGHTS[node.op_type]
            node.input.extend([""] * (zero + 1 - len(node.input)))
            for slot in (weight, zero):
                given = node.input[slot]
                node.input[slot] = _shifted(graph, given, names, shifts[np.int32]) if given else shifts[np.uint8]
        graph.node.append(node)
    return replace(model, proto=proto)


def _taken_apart(model: Model) -> tuple[onnx.ModelProto, list[onnx.NodeProto]]:
    """A copy of the model without its nodes, and copies of these, to be put back one by one."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    return proto, nodes


def _is_mixed(node: onnx.NodeProto, dtypes: Mapping[str, int]) -> bool:
    if node.op_type not in _WEIGHTS or dtypes.get(node.input[_WEIGHTS[node.op_type][0]]) != TensorProto.INT8:
        return False
    return node.op_type == "DynamicQuantizeMatMul" or dtypes.get(node.input[0]) == TensorProto.UINT8


def _shifted(graph: onnx.GraphProto, tensor: str, names: Names, shift: str) -> str:
    steps = [names.unique(f"onnxprune_{role}") for role in ("wide", "sum", "uint8")]
    graph.node.append(helper.make_node("Cast", [tensor], steps[:1], to=TensorProto.INT32))
    graph.node.append(helper.make_node("Add", [steps[0], shift], steps[1:2]))
    graph.node.append(helper.make_node("Cast", steps[1:2], steps[2:], to=TensorProto.UINT8))
    return steps[2]


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
    proto, nodes = _taken_apart(model)
    graph = proto.graph
    del graph.value_info[:]
    names = Names(model.proto.graph)
    for node in nodes:
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
