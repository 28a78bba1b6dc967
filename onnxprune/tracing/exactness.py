"""Exactness of groups: which are exact, and why the others are not.

A group is exact if the pruned model equals the original in which the stored weights at the removed positions are zero.
So wherever positions are summed over, a removed one must be zero then: by one of its factors. A weight is zero itself.
An activation is zero where all operators on the way keep zeros (see `traits`); it is *live* where one of them does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from onnx import TensorProto

from onnxprune.model import control_flow
from onnxprune.model.traits import Zero, zero
from onnxprune.tracing.labels import Axes, Classes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.node_view import MaskedAxis, NodeView
from onnxprune.tracing.trace_result import TraceResult
from onnxprune.typing import Array

# Group -> the node that makes its removed positions live.
Origins = dict[int, str]


def reasons(tracing: TraceResult, classes: Classes, cells: Sequence[Sequence[Array]]) -> dict[int, str]:
    """Why a group is approximate, by its number; an exact one has no entry.

    Args:
        tracing: the trace.
        classes: its classes.
        cells: the classes of every group, cell by cell.
    """
    group_of = np.full(classes.count + 1, -1, np.int64)
    for index, group in enumerate(cells):
        for cell in group:
            group_of[cell] = index
    walk = _Walk(tracing, np.append(group_of[classes.of], -1))
    again = True
    while again:  # what a loop hands on from step to step
        before = walk.extent
        for view, rule in tracing.views:
            if rule is not None:
                walk.node(view)
        again = walk.extent > before and any(control_flow.is_flat(view.node) for view, _ in tracing.views)
    return walk.reasons


@dataclass
class _Walk:
    """A pass in graph order.

    Attributes:
        tracing: the trace.
        group_of: int64[labels + 1], the group of every label; -1 for none, and for a barrier.
        live: tensor -> the groups whose removed positions are not zero in it.
        broken: tensor -> those where they may be infinite, or no number.
        reasons: group -> why it is approximate.
    """

    tracing: TraceResult
    group_of: Array
    live: dict[str, Origins] = field(default_factory=dict)
    broken: dict[str, Origins] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    _known: dict[int, tuple[Array, frozenset[int]]] = field(default_factory=dict)
    _carried: dict[tuple[int, int], frozenset[int]] = field(default_factory=dict)

    @property
    def extent(self) -> int:
        """How much is live or broken; it never shrinks."""
        return sum(map(len, self.live.values())) + sum(map(len, self.broken.values()))

    # --- groups of axes and inputs -----------------------------------------------------------------------

    def groups(self, labels: Array) -> frozenset[int]:
        """The groups with positions on an axis."""
        known = self._known.get(id(labels))
        if known is None or known[0] is not labels:
            here = np.zeros(self.count + 1, bool)
            here[self.group_of[np.maximum(labels, -1)]] = True
            known = self._known[id(labels)] = (labels, frozenset(np.flatnonzero(here[:-1]).tolist()))
        return known[1]

    @cached_property
    def count(self) -> int:
        """The number of groups."""
        return int(self.group_of.max()) + 1

    def axes(self, view: NodeView, slot: int) -> Axes:
        """The labels of an input; none where it is omitted, or has none."""
        if not view.has(slot):
            return ()
        return self.tracing.axes.get(self.tracing.use_key(view.node, slot), ())

    def carries(self, view: NodeView, slot: int, group: int) -> bool:
        """Whether an input has positions of a group."""
        return group in self.carried(view, slot)

    def carried(self, view: NodeView, slot: int) -> frozenset[int]:
        """The groups with positions in an input."""
        key = (id(view), slot)
        found = self._carried.get(key)
        if found is None:
            found = self._carried[key] = frozenset[int]().union(*map(self.groups, self.axes(view, slot)))
        return found

    def zeros(self, view: NodeView, slot: int) -> frozenset[int]:
        """The groups with positions in an input that are zero there."""
        name = view.inputs[slot]
        if self.tracing.is_weight(name):
            return frozenset() if self.origin(view, slot, -1) else self.carried(view, slot)
        return self.carried(view, slot).difference(self.live[name]) if name in self.live else frozenset()

    def origin(self, view: NodeView, slot: int, group: int) -> str:
        """The node that makes an input live at removed positions of a group; empty if they are zero."""
        name = view.node.input[slot]
        if not self.tracing.is_weight(name):
            return self.live.get(name, {}).get(group, _UNMADE if name not in self.live else "")
        if self.tracing.is_filled(name) and not self.tracing.is_zero(name):
            return f"ConstantOfShape {name!r}"
        return f"weight {name!r}" if self.tracing.use_key(view.node, slot) in self.tracing.divisors else ""

    # --- one node ----------------------------------------------------------------------------------------

    def node(self, view: NodeView) -> None:
        """Judge what a node sums over, and say where its outputs are live."""
        for masked_axis in view.masked_axes:
            self._judge(view, masked_axis)
        sources = _handed_on(view)
        made_of = [frozenset[int]().union(*map(self.groups, self.tracing.axes.get(o, ()))) for o in view.node.output]
        row = None if sources or not any(made_of) else zero(view.node, _value_of(view))
        for index, (name, groups) in enumerate(zip(view.node.output, made_of, strict=True)):
            live, broken = self.live.setdefault(name, {}), self.broken.setdefault(name, {})
            if sources:
                made = Zero(parts=tuple(sources[index]))
            else:
                made = row if row is not None and (index == 0 or row.all_outputs) else Zero()
            for group in groups - self._quiet(view, made, groups, index) if groups else ():
                if why := self._why_broken(view, made, group):
                    live.setdefault(group, why)
                    if self.tracing.static.dtypes.get(name) != TensorProto.BOOL:
                        broken.setdefault(group, why)
                if why := self._why_live(view, made, group, index):
                    live.setdefault(group, why)
        for state, end in _rounds(view):
            self.live.setdefault(state, {}).update(self.live.get(end, {}))
            self.broken.setdefault(state, {}).update(self.broken.get(end, {}))

    def _quiet(self, view: NodeView, row: Zero, groups: frozenset[int], output: int) -> frozenset[int]:
        """Those of an output's groups that are seen at once to be zero in it, and finite."""
        given = range(len(view.inputs))
        left = groups if row.terms or row.parts or row.factors else frozenset[int]()
        for slot in filter(view.has, (s for s in row.terms if s in given)):
            left = left & self.zeros(view, slot)
        if row.parts:
            parts = [s for s in row.parts if s in given]
            still = frozenset[int]().union(*(self.zeros(view, s) for s in parts))
            left = (left & still).difference(*(self.carried(view, s) - self.zeros(view, s) for s in parts))
        if row.factors:
            left = left & frozenset[int]().union(*(self._scaled(view, s, output) for s in row.factors if s in given))
        return left.difference(
            *(self.broken.get(name, ()) for name in view.inputs),
            *(self.zeros(view, s) for s in row.divisors if s in given),
        )

    def _scaled(self, view: NodeView, slot: int, output: int) -> frozenset[int]:
        """The groups that are zero in a factor, which has them on every axis of an output that has them."""
        found = self.zeros(view, slot)
        inputs, outputs = view.letters
        axes = self.tracing.axes[view.node.output[output]]
        if not found or not outputs or len(outputs[output]) != len(axes):
            return found
        own = dict(zip(inputs[slot] or (), self.axes(view, slot), strict=False))
        for letter, labels in zip(outputs[output], axes, strict=True):
            found -= self.groups(labels) - (self.groups(own[letter]) if letter in own else frozenset())
        return found

    def _judge(self, view: NodeView, masked_axis: MaskedAxis) -> None:
        slots = (masked_axis.slot,) if masked_axis.factors is None else masked_axis.factors
        groups = self.groups(view.labels(masked_axis.slot)[masked_axis.axis]) - self.reasons.keys()
        if not masked_axis.averaged and not any(self.broken.get(view.inputs[s]) for s in slots):
            groups = groups.difference(*(self.zeros(view, s) for s in slots))
        for group in groups:
            if masked_axis.averaged:
                self.reasons[group] = f"{_named(view)} depends on how many positions there are"
                continue
            factors = [s for s in slots if self.carries(view, s, group)]
            broken = [self.broken.get(view.node.input[s], {}).get(group) for s in factors]
            live = [self.origin(view, s, group) for s in factors]
            if any(broken):
                self.reasons[group] = f"{next(filter(None, broken))} divides by the zeros of removed weights"
            elif live and all(live):
                self.reasons[group] = f"{_named(view)} sums over positions that {live[0]} keeps from being zero"

    def _why_live(self, view: NodeView, row: Zero, group: int, output: int) -> str:
        """The node that makes removed positions of an output live; empty if they are zero."""
        here = _named(view)
        if not (row.factors or row.terms or row.parts):
            return "" if self.tracing.is_zero(view.node.output[output]) else here
        given = range(len(view.node.input))
        for slot in filter(view.has, (s for s in row.terms if s in given)):
            if self.carries(view, slot, group):
                if why := self.origin(view, slot, group):
                    return why
            elif not self.tracing.is_zero(view.node.input[slot]):
                return here
        parts = [s for s in row.parts if s in given and self.carries(view, s, group)]
        if row.parts and not parts and not row.factors and not self.tracing.is_zero(view.node.output[output]):
            return here
        for slot in parts:
            if why := self.origin(view, slot, group):
                return why
        return self._why_unscaled(view, row, group, output) if row.factors else ""

    def _why_unscaled(self, view: NodeView, row: Zero, group: int, output: int) -> str:
        """The node that keeps all factors from being zero on some axis of an output."""
        axes = self.tracing.axes[view.node.output[output]]
        inputs, outputs = view.letters
        slots = [s for s in row.factors if s < len(view.node.input)]
        for axis, labels in enumerate(axes):
            if group not in self.groups(labels):
                continue
            letter = outputs[output][axis] if outputs and len(outputs[output]) == len(axes) else None
            origins = [
                self.origin(view, slot, group)
                for slot in slots
                for own, x in enumerate(self.axes(view, slot))
                if group in self.groups(x) and (letter is None or (inputs[slot] or ())[own : own + 1] == [letter])
            ]
            if not origins or all(origins):
                return next(filter(None, origins), _named(view))
        return ""

    def _why_broken(self, view: NodeView, row: Zero, group: int) -> str:
        """The node that may make removed positions infinite; empty if they are finite."""
        for name in view.node.input:
            if why := self.broken.get(name, {}).get(group):
                return why
        for slot in row.divisors:
            if self.carries(view, slot, group) and not self.origin(view, slot, group):
                return _named(view)
        return ""


_UNMADE = "an input"


def _named(view: NodeView) -> str:
    return f"{view.node.op_type} {view.name!r}"


def _value_of(view: NodeView) -> Callable[[int], Array | None]:
    def value(slot: int) -> Array | None:
        if not view.has(slot):
            return None
        try:
            known = view.value(slot)
        except Unsupported:  # a default that a caller may override
            known = None
        return np.array(np.nan) if known is None else known

    return value


def _handed_on(view: NodeView) -> Sequence[Sequence[int]]:
    """The inputs that every output of a node with bodies comes from; none for other nodes."""
    node = view.node
    if control_flow.is_body_start(node):
        return [(slot,) for slot in range(len(node.output))]
    if not control_flow.is_flat(node):
        return ()
    if node.op_type == "If":
        return list(zip(*control_flow.branches(node).values(), strict=True))
    of = control_flow.steps(node)
    return [*zip(of.states, of.ends, strict=True), *((slot,) for slot in of.parts)]


def _rounds(view: NodeView) -> Iterator[tuple[str, str]]:
    """(what a body gets, what it returns for the next step) of a loop."""
    node = view.node
    if control_flow.is_flat(node) and node.op_type != "If":
        of = control_flow.steps(node)
        yield from ((node.input[s], node.input[e]) for s, e in zip(of.states, of.ends, strict=True))
