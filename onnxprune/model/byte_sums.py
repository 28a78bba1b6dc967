"""A variant of a quantised model whose sums are the same on every processor.

On processors without VNNI, ONNX Runtime adds pairs of products of an uint8 and an int8 in 16 bits, which saturate:
which pairs there are depends on the positions, so the sums change when others go. With uint8 weights it does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model.model import Model
from onnxprune.model.names import Names
from onnxprune.model.protos import copy_without
from onnxprune.model.traits import TRAITS, operators_where

# Contractions of stored numbers: the slots of the stored factors and of their zero points.
_FACTORS: Mapping[str, tuple[tuple[int, int], ...]] = {op: t.zero_points for (_, op), t in TRAITS.items()}
_KEEP_TYPE = operators_where(lambda traits: traits.moves, "")
_SHIFT = 128


def unsaturated(model: Model, dtypes: Mapping[str, int]) -> Model:
    """`model` with int8 weights as uint8, 128 higher like their zero points, where they meet uint8 activations.

    Args:
        model: a model, or a variant of it in which tensors of the same name have the same type.
        dtypes: types of its tensors.

    Returns:
        The variant; the same object where there is nothing to change.
    """
    mixed = set(_mixed(model.proto.graph, dtypes))
    if not mixed:
        return model
    proto = copy_without(model.proto, "node")
    graph = proto.graph
    names = Names(model.proto.graph)
    shifts = {dtype: names.unique("onnxprune_shift") for dtype in (np.uint8, np.int32)}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(_SHIFT, kind), n) for kind, n in shifts.items())
    for index, node in enumerate(model.proto.graph.node):
        new = onnx.NodeProto()
        new.CopyFrom(node)
        if index in mixed:
            for slot in itertools.chain(*_FACTORS[node.op_type]):
                new.input.extend([""] * (slot + 1 - len(new.input)))
                given = new.input[slot]
                new.input[slot] = _shifted(graph, given, names, shifts[np.int32]) if given else shifts[np.uint8]
        graph.node.append(new)
    return replace(model, proto=proto)


def _mixed(graph: onnx.GraphProto, dtypes: Mapping[str, int]) -> Iterator[int]:
    """Indices of the nodes whose int8 weights meet uint8 activations, or such as the operator quantises itself."""
    types = {**dtypes, **{tensor.name: tensor.data_type for tensor in graph.initializer}}
    for index, node in enumerate(graph.node):
        given = dict(enumerate(node.input))
        factors = [types.get(given.get(slot, "")) for slot, _ in _FACTORS.get(node.op_type, ())]
        if TensorProto.INT8 in factors and types.get(node.input[0]) != TensorProto.INT8:
            yield index
        if node.op_type in _KEEP_TYPE or node.op_type == "Cast":
            made = next((a.i for a in node.attribute if a.name == "to"), types.get(given.get(0, ""), 0))
            types |= {name: made for name in node.output if name not in types}


def _shifted(graph: onnx.GraphProto, tensor: str, names: Names, shift: str) -> str:
    steps = [names.unique(f"onnxprune_{role}") for role in ("wide", "sum", "uint8")]
    graph.node.append(helper.make_node("Cast", [tensor], steps[:1], to=TensorProto.INT32))
    graph.node.append(helper.make_node("Add", [steps[0], shift], steps[1:2]))
    graph.node.append(helper.make_node("Cast", steps[1:2], steps[2:], to=TensorProto.UINT8))
    return steps[2]
