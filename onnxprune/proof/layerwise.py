"""Comparison layer by layer: every pruned layer reads what the masked original computed in front of it.

Outputs that do not react (a class id, a threshold, a saturated function) hide what is wrong inside, and a network that
amplifies rounding exceeds any tolerance at its outputs although nothing is wrong. So a proof compares the tensors that
layers give as well, each made from the masked original's values at the layer before: errors do not add up, a wrong
layer is named at once, and if all layers are equal, then so is what they make together.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.model import Model, Names
from onnxprune.model.graph import first_output
from onnxprune.model.protos import keep
from onnxprune.model.run_order import reads
from onnxprune.model.tensors import item_bits
from onnxprune.rewriting import Removal
from onnxprune.tracing import NodeView

# Bytes of all tensors together that are compared inside.
MEMORY = 1 << 30
# Steps of a loop that are reckoned with.
MANY_STEPS = 64
# Types that go in and out of the runtime as arrays.
_ARRAYS = frozenset(
    (
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT8),
        *(TensorProto.INT16, TensorProto.UINT16, TensorProto.INT32),
    )
)


@dataclass(frozen=True)
class Layered:
    """A pruned model whose layers read the masked original's values.

    Attributes:
        model: the model; beside its own inputs it has one per tensor of `made`, under the tensor's name.
        made: tensor -> the output that holds what its layer gives.
        given: more inputs that the masked original makes.
        outputs: graph output -> the output that holds it.
    """

    model: Model
    made: Mapping[str, str]
    given: Sequence[str]
    outputs: Mapping[str, str]

    @property
    def ends(self) -> dict[str, str]:
        """All that is compared, the graph's outputs and what layers give -> the outputs that hold it."""
        return {**self.outputs, **self.made}


@dataclass(frozen=True)
class Layers:
    """The layers that a cut touches, by the tensors that they give.

    Attributes:
        removal: what goes.
        views: tensor -> the node that makes it, in graph order.
        left_out: how many tensors are too large to be compared.
    """

    removal: Removal
    views: Mapping[str, NodeView]
    left_out: int = 0

    @property
    def tensors(self) -> list[str]:
        """The tensors, in graph order."""
        return list(self.views)

    def groups_behind(self, tensor: str) -> list[str]:
        """The groups that were cut between `tensor` and the layers before it."""
        tracing, found = self.removal.groups.tracing, set[int]()
        open_names, met = [tensor], set[str]()
        while open_names:
            node = self._producers.get(open_names.pop())
            if node is None or first_output(node) in met:
                continue
            met.add(first_output(node))
            view, _ = tracing.by_output.get(first_output(node), (None, None))
            if view is not None:
                found.update(groups_at(self.removal, view))
            open_names.extend(name for name in reads(node) if name not in self.views)
        return [self.removal.groups.groups[i].name for i in sorted(found)]

    @cached_property
    def _producers(self) -> Mapping[str, onnx.NodeProto]:
        graph = self.removal.groups.tracing.model.proto.graph
        return {name: node for node in graph.node for name in node.output if name}


def layers(removal: Removal, shared: Collection[str], depths: Mapping[str, int]) -> Layers:
    """The layers whose results both models have: those that were cut, and those that read what was.

    Args:
        removal: what goes.
        shared: the tensors that can be had of either model.
        depths: tensor that is made in every step of loops, and kept of all -> how many loops.
    """
    groups = removal.groups
    found: dict[str, NodeView] = {}
    for view, rule in groups.tracing.views:
        if rule is None or first_output(view.node) in groups.tracing.constants or not _is_layer(removal, view):
            continue
        for name in view.node.output:
            known = name in groups.tracing.axes and name in groups.static.shapes
            if name in shared and known and groups.static.dtypes.get(name) in _ARRAYS:
                found[name] = view
    sizes = {name: _bytes(removal, name) * MANY_STEPS ** depths.get(name, 0) for name in found}
    room, fits = MEMORY, set[str]()
    for name in sorted(found, key=sizes.__getitem__):
        room -= sizes[name]
        if room >= 0:
            fits.add(name)
    return Layers(removal, {n: s for n, s in found.items() if n in fits}, len(found) - len(fits))


def _is_layer(removal: Removal, view: NodeView) -> bool:
    """Whether a node reads a weight that is cut, or contracts or averages over positions that go."""
    inputs, _ = removal.around(view)

    def is_cut(slot: int, axes: Iterable[int]) -> bool:
        lines = inputs[slot] if slot < len(inputs) else None
        return lines is not None and any(removal.loses(lines[a]) for a in axes if a < len(lines))

    if any(is_cut(r.slot, [r.axis]) for r in view.masked_axes):
        return True
    return any(view.has(s) and view.is_weight(s) and is_cut(s, range(len(x or ()))) for s, x in enumerate(inputs))


def _bytes(removal: Removal, name: str) -> int:
    static = removal.groups.static
    return math.prod(static.shapes[name]) * item_bits(static.dtypes[name]) // 8


def groups_at(removal: Removal, view: NodeView, slots: Iterable[int] | None = None) -> set[int]:
    """The groups, by index, that lose units of an input or output of a node; of `slots` only, if these are given."""
    inputs, outputs = removal.around(view)
    chosen = [*inputs, *outputs] if slots is None else [inputs[s] for s in slots]
    found = set[int]()
    for labels in (labels for axes in chosen if axes for labels in axes):
        removed = removal.removed(labels)
        if removed.any():
            found.update(np.unique(removal.groups.group_of[removal.groups.classes.of[labels[removed]]]).tolist())
    return found - {-1}


def tapped(model: Model, tensors: Sequence[str]) -> Model:
    """`model` with more of its tensors as outputs."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    known = {o.name for o in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in known)
    return replace(model, proto=proto)


def layered(removal: Removal, pruned: Model, tensors: Sequence[str], given: Sequence[str]) -> Layered:
    """`pruned` with every layer reading the masked original's values, which become inputs.

    Args:
        removal: what went.
        pruned: the smaller model.
        tensors: what the layers give.
        given: its inputs that the masked original makes.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(pruned.proto)
    graph, static = proto.graph, removal.groups.static
    names, wanted, made = Names(graph), set(tensors), dict[str, str]()
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name in wanted:
                made[name] = node.output[place] = names.unique(f"onnxprune_made_{name}")
    for name in made:  # a size may depend on values, and be another one than that of the trace
        sizes = [None] * len(static.shapes[name])
        graph.input.append(helper.make_tensor_value_info(name, static.dtypes[name], sizes))
    outputs = {o.name: made.get(o.name, o.name) for o in graph.output}
    for value in graph.output:
        value.name = outputs[value.name]
    graph.output.extend(onnx.ValueInfoProto(name=made[name]) for name in made if name not in outputs)
    keep(graph.value_info, lambda info: info.name not in made)
    return Layered(replace(pruned, proto=proto), made, given, outputs)
