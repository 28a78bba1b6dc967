"""Groups between contractions with nothing nonlinear in between: their units may be mixed with each other.

A group is linear if every node that meets its units gives the same outputs when these are rotated, and the weights that
make and read them with them. That is asked node by node, of the labels: no pattern of nodes is looked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from onnxprune.model.traits import Traits, traits_of
from onnxprune.rewriting.mixed_units import cell_places, unit_places, why_not_stored
from onnxprune.rewriting.unit_scales import scale_of, scale_slot
from onnxprune.tracing import Group, Groups, NodeView
from onnxprune.typing import Array

# Sums over an axis, and what is the same whatever the directions along it.
_SUMS, _LENGTHS = ("ReduceSum", "ReduceMean"), ("ReduceSumSquare", "ReduceL2")
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def why_not_linear(groups: Groups, group: Group) -> str:
    """Tell why the units of a group cannot be mixed with each other.

    Args:
        groups: the traced model.
        group: one of its groups.

    Returns:
        The reason; empty where they can.
    """
    if why := why_not_stored(groups, group) or _why_not_float(groups, group):
        return why
    held = _Held(groups, group)
    return held.why_in_parts() or next((why for view in held.nodes() if (why := held.why_bent(view))), "")


def _why_not_float(groups: Groups, group: Group) -> str:
    tracing = groups.tracing
    for member in group.members:
        if tracing.static.dtypes.get(member.tensor) not in _FLOATS or member.tensor in tracing.encodings:
            return f"weight {member.tensor!r} is not stored as floats"
    return ""


def fibres(labels: Array, axis: int, rank: int) -> tuple[tuple[int, ...], Array]:
    """Lay out the labels of an axis.

    Args:
        labels: a line, or a field with as many axes as the tensor.
        axis: the axis.
        rank: how many axes the tensor has.

    Returns:
        The other axes along which the labels differ, and the labels [positions of these, size of the axis].
    """
    if labels.ndim == 1:
        return (), labels[None]
    others = tuple(a for a in range(rank) if a != axis and labels.shape[a] > 1)
    turned = np.moveaxis(labels, axis, -1)
    return others, turned.reshape(-1, labels.shape[axis])


@dataclass(frozen=True, eq=False)
class _Held:
    """The axes that hold the units of a group."""

    groups: Groups
    group: Group

    @cached_property
    def axes(self) -> Mapping[str, tuple[int, ...]]:
        """Entry of `tracing.axes` -> its axes with units of the group."""
        found = {
            key: tuple(a for a, labels in enumerate(axes) if (self._units(labels) >= 0).any())
            for key, axes in self.groups.tracing.axes.items()
        }
        return {key: axes for key, axes in found.items() if axes}

    def _units(self, labels: Array) -> Array:
        return unit_places(self.groups, self.group, labels)

    def why_in_parts(self) -> str:
        """Why the units do not lie side by side wherever there are any; empty where they do."""
        tracing = self.groups.tracing
        for key, held in self.axes.items():
            for axis in held:
                labels = tracing.axes[key][axis]
                if labels.ndim > 1 and key in tracing.weights:
                    return f"weight {key!r} holds its units in another order in every row"
                rows = fibres(self._units(labels), axis, len(tracing.axes[key]))[1]
                if not all(self._is_whole(row) for row in np.unique(rows, axis=0)):
                    return f"{key!r} holds a part of its units, or several positions of one"
        return ""

    def _is_whole(self, units: Array) -> bool:
        """Whether each cell is there as a whole, once or in blocks one behind the other, or not at all."""
        try:
            cells = cell_places(units, self.group)
        except ValueError:
            return False
        return all((places.max(axis=0)[:-1] < places.min(axis=0)[1:]).all() for places in cells if places.size)

    def nodes(self) -> Iterator[NodeView]:
        """The nodes that read or make units."""
        tracing = self.groups.tracing
        for view, _ in tracing.views:
            if any(self.read(view)) or any(name in self.axes for name in view.node.output):
                yield view

    def read(self, view: NodeView) -> list[tuple[int, ...]]:
        """For every input of a node, its axes with units."""
        use_key = self.groups.tracing.use_key
        return [self.axes.get(use_key(view.node, slot), ()) for slot in range(len(view.node.input))]

    def why_bent(self, view: NodeView) -> str:
        """Why a node gives another result if units are mixed; empty where it does not."""
        traits, read = traits_of(view.node), self.read(view)
        made = self.axes.get(view.node.output[0], ()) if view.node.output else ()
        others = any(name in self.axes for name in view.node.output[1:]) and not traits.moves
        told = f"{view.node.op_type} {view.name!r}"
        if traits.tells_sizes or self._keeps_lengths(view, read) or self._is_scaled(view, read):
            return ""
        if traits.multilinear:
            return (
                "" if not others and self._keeps_products(view, traits, read, made) else f"{told} takes them one by one"
            )
        alike = made and not others and _acts_alike(view, traits, read)
        return "" if alike else f"{told} is not the same linear function of all of them"

    def _keeps_lengths(self, view: NodeView, read: Sequence[tuple[int, ...]]) -> bool:
        """Whether a node squares units that are summed up behind it and nothing else, or sums up squares."""
        tracing = self.groups.tracing
        if _is_square(view):
            consumers = tracing.consumers(view.node.output[0])
            return not tracing.is_output(view.node.output[0]) and all(self._sums_up(n, _SUMS) for n in consumers)
        if [slot for slot, axes in enumerate(read) if axes] != [0]:
            return False
        producer = tracing.by_output.get(view.node.input[0], (None, None))[0]
        return self._sums_up(view.node, _LENGTHS if producer is None or not _is_square(producer) else _SUMS)

    def _sums_up(self, node: onnx.NodeProto, operators: Collection[str]) -> bool:
        """Whether a node is one of some operators, and gives one number for all units."""
        return node.op_type in operators and not node.domain and not any(name in self.axes for name in node.output)

    def _is_scaled(self, view: NodeView, read: Sequence[tuple[int, ...]]) -> bool:
        """Whether a node multiplies units with factors that may move into the layers behind."""
        slot = scale_slot(view)
        holding = [s for s, axes in enumerate(read) if axes]
        if slot is None or holding != sorted((slot, 1 - slot)):
            return False
        return scale_of(self.groups, self.group, view) is not None

    def _keeps_products(
        self, view: NodeView, traits: Traits, read: Sequence[tuple[int, ...]], made: tuple[int, ...]
    ) -> bool:
        """Whether every letter with units is that of two factors, or of a factor and the result, with its bias."""
        given, leaving = view.letters
        if not given or (traits.bias is not None and view.has(traits.bias) and bool(read[traits.bias]) != bool(made)):
            return False
        met: Counter[object] = Counter()
        for slot, axes in enumerate(read):
            letters = given[slot] if slot < len(given) else None
            if axes and letters is None:
                return False
            if slot in traits.multilinear:
                met.update(letters[a] for a in axes if letters is not None)
        met.update(leaving[0][a] for a in made)
        return all(count == 2 for count in met.values())


def _is_square(view: NodeView) -> bool:
    """Whether a node multiplies its input with itself."""
    if view.node.op_type == "Mul":
        return view.inputs[0] == view.inputs[1]
    if view.node.op_type != "Pow" or not view.is_weight(1):
        return False
    return view.state.filler(view.inputs[1]) == 2


def _acts_alike(view: NodeView, traits: Traits, read: Sequence[tuple[int, ...]]) -> bool:
    """Whether an operator that keeps units apart does the same to all of them, and to their sums."""
    holding = [slot for slot, axes in enumerate(read) if axes]
    if traits.joins:  # what has none of them lies beside them
        return True
    if traits.linear and traits.elementwise:
        return holding == [slot for slot in range(len(read)) if view.has(slot)]
    if traits.linear or traits.moves:
        return holding == [0]
    return traits.elementwise and len(holding) == 1 and holding[0] in traits.affine
