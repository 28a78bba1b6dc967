"""Which initializers of a model are weights to train, as far as a graph shows it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnxprune.model import Model
from onnxprune.model.graph import captured
from onnxprune.typing import Array

# Operator -> slots of its weights. Statistics of BatchNormalization, scales and bounds are none.
_SLOTS: Mapping[str, tuple[int, ...]] = {
    "Attention": (1, 2),
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "Einsum": (0, 1, 2, 3),
    "EmbedLayerNormalization": (2, 3, 4, 5, 6),
    "FusedConv": (1, 2),
    "FusedGemm": (0, 1, 2),
    "FusedMatMul": (0, 1),
    "GRU": (1, 2, 3),
    "Gather": (0,),
    "Gemm": (0, 1, 2),
    "GroupNorm": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "RNN": (1, 2, 3),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3, 4),
    "SkipSimplifiedLayerNormalization": (2, 3),
    "BiasGelu": (1,),
    "FastGelu": (1,),
    "BiasSplitGelu": (1,),
    "BiasAdd": (1,),
}
_MOVES = frozenset(
    ("Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")
)
_AFFINE = frozenset(("Add", "Sub", "Mul", "Div"))
# Terms below this are masks, which forbid a position.
_MASK = -1e4


def default_parameters(nodes: Sequence[onnx.NodeProto], arrays: Mapping[str, Array]) -> list[str]:
    """Choose the initializers that a framework would train.

    An initializer counts if an operator reads it as a weight, if it is added (a bias, a table of positions, but no
    mask), or if it scales with at most one axis longer than one; directly, or after operators that only move elements.

    Args:
        nodes: nodes of the graph and of the graphs in it.
        arrays: initializer -> its elements.

    Returns:
        Names in the order of `arrays`.
    """
    users: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in nodes:
        for slot, name in enumerate(node.input):
            users.setdefault(name, []).append((node, slot))

    def is_weight(name: str, array: Array) -> bool:
        for node, slot in users.get(name, ()):
            if node.op_type in _MOVES and slot == 0:
                if any(is_weight(output, array) for output in node.output if output):
                    return True
            elif slot in _SLOTS.get(node.op_type, ()) or (node.op_type in _AFFINE and _is_affine(node.op_type, array)):
                return True
        return False

    return [name for name, array in arrays.items() if array.dtype.kind == "f" and is_weight(name, array)]


def _is_affine(operator: str, array: Array) -> bool:
    """Whether a constant operand of arithmetic looks like a bias, a table of positions or a scale per channel."""
    long_axes = sum(n > 1 for n in array.shape)
    if long_axes == 0:
        return False
    if operator == "Add":
        return bool(np.isfinite(array).all() and array.min() > _MASK)
    return long_axes == 1


def unshared(model: Model) -> Model:
    """Give every norm and bias its own weight where an exporter stored equal ones once.

    Exporters store tensors with equal elements once, such as the scales of norms that were never trained. Their
    gradients would add up, as those of tied weights do. A tensor counts as equal by chance if it has one axis, and all
    of its elements are the same.

    Args:
        model: the model.

    Returns:
        A model in which the first use keeps the name; the same object if nothing is shared by chance.
    """
    uses: dict[str, list[tuple[int, int]]] = {}
    for number, node in enumerate(model.proto.graph.node):
        for slot, name in enumerate(node.input):
            uses.setdefault(name, []).append((number, slot))
    inner = {name for node in model.proto.graph.node for name in captured(node)}
    shared = [
        tensor
        for tensor in model.proto.graph.initializer
        if len(tensor.dims) == 1 and len(uses.get(tensor.name, ())) > 1 and tensor.name not in inner
    ]
    shared = [t for t in shared if _is_even(model.array(t)) and _is_trained(model, uses[t.name])]
    if not shared:
        return model
    proto, values = onnx.ModelProto(), dict(model.values)
    taken = {*uses, *inner, *(o for node in model.proto.graph.node for o in node.output)}
    proto.CopyFrom(model.proto)
    for tensor in shared:
        for number, slot in uses[tensor.name][1:]:
            own = next(n for n in (f"{tensor.name}_{i}" for i in itertools.count(1)) if n not in taken)
            taken.add(own)
            copy = proto.graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = proto.graph.node[number].input[slot] = own
            if tensor.name in values:
                values[own] = values[tensor.name]
    return replace(model, proto=proto, values=values)


def _is_even(array: Array) -> bool:
    return array.dtype.kind == "f" and array.size > 1 and bool((array == array[0]).all())


def _is_trained(model: Model, uses: Sequence[tuple[int, int]]) -> bool:
    """Whether every use is that of a weight."""
    nodes = model.proto.graph.node
    return all(slot in _SLOTS.get(nodes[number].op_type, ()) for number, slot in uses)
