"""A variant of a quantised model whose sums are the same on every processor.

On processors without VNNI, ONNX Runtime adds pairs of products of an uint8 and an int8 in 16 bits, which saturate:
which pairs there are depends on the positions, so the sums change when others go. With uint8 weights it does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model.model import Model
from onnxprune.model.names import Names
from onnxprune.model.protos import bodies, copy_without, graphs
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
    graph = model.proto.graph
    if not any(_FACTORS.get(node.op_type) for part in graphs(graph) for node in part.node):
        return model
    names = Names(graph)
    shifts = {dtype: names.unique("onnxprune_shift") for dtype in (np.uint8, np.int32)}
    nodes, changed = _Shifting(names, shifts).nodes(graph, dtypes)
    if not changed:
        return model
    proto = copy_without(model.proto, "node")
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(_SHIFT, kind), n) for kind, n in shifts.items())
    proto.graph.node.extend(nodes)
    return replace(model, proto=proto)


@dataclass(frozen=True)
class _Shifting:
    """Weights made 128 higher, in a graph and in the bodies in it.

    Attributes:
        names: the names that are taken.
        shifts: type -> the tensor of that type that holds 128; bodies read it, too.
    """

    names: Names
    shifts: Mapping[Any, str]

    def nodes(self, graph: onnx.GraphProto, dtypes: Mapping[str, int]) -> tuple[list[onnx.NodeProto], bool]:
        """The nodes of a graph, weights changed; and whether any was."""
        made, changed = list[onnx.NodeProto](), False
        types = _types(graph, dtypes)
        for node in graph.node:
            new = onnx.NodeProto()
            new.CopyFrom(node)
            if _is_mixed(node, types):
                changed = True
                for slot in itertools.chain(*_FACTORS[node.op_type]):
                    new.input.extend([""] * (slot + 1 - len(new.input)))
                    given = new.input[slot]
                    new.input[slot] = self._shifted(made, given) if given else self.shifts[np.uint8]
            for body in bodies(new):
                inner, inside = self.nodes(body, types)
                if inside:
                    changed = True
                    del body.node[:]
                    body.node.extend(inner)
            made.append(new)
        return made, changed

    def _shifted(self, made: list[onnx.NodeProto], tensor: str) -> str:
        steps = [self.names.unique(f"onnxprune_{role}") for role in ("wide", "sum", "uint8")]
        made.append(helper.make_node("Cast", [tensor], steps[:1], to=TensorProto.INT32))
        made.append(helper.make_node("Add", [steps[0], self.shifts[np.int32]], steps[1:2]))
        made.append(helper.make_node("Cast", steps[1:2], steps[2:], to=TensorProto.UINT8))
        return steps[2]


def _types(graph: onnx.GraphProto, around: Mapping[str, int]) -> dict[str, int]:
    """Types of the tensors of a graph, and of those around it: as declared, stored, or handed on by nodes."""
    types = {**around, **{v.name: v.type.tensor_type.elem_type for v in graph.input if v.type.tensor_type.elem_type}}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in _KEEP_TYPE or node.op_type == "Cast":
            made = next((a.i for a in node.attribute if a.name == "to"), types.get(next(iter(node.input), ""), 0))
            types |= {name: made for name in node.output if name not in types}
        elif node.op_type == "Constant":
            stored = next((a.t.data_type for a in node.attribute if a.name == "value"), 0)
            types |= {name: stored for name in node.output if name not in types}
    return types


def _is_mixed(node: onnx.NodeProto, types: Mapping[str, int]) -> bool:
    """Whether int8 weights meet uint8 activations, or such as the operator quantises itself."""
    given = dict(enumerate(node.input))
    factors = [types.get(given.get(slot, "")) for slot, _ in _FACTORS.get(node.op_type, ())]
    return TensorProto.INT8 in factors and types.get(given.get(0, "")) != TensorProto.INT8
