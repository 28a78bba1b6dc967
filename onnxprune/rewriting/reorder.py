"""Units of a group in another order: the same function, with other neighbours along the inputs of its readers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.model.traits import TRAITS
from onnxprune.rewriting.plan_json import REORDER, expect
from onnxprune.rewriting.zero_elements import with_dense, written_back
from onnxprune.tracing import Group, Groups
from onnxprune.typing import Array

_OTHER = "the plan was made for another model"


@dataclass(frozen=True)
class ReorderStep:
    """The order in which the units of a group stand.

    Attributes:
        group: its name.
        order: the unit that comes to stand at every place.
    """

    group: str
    order: tuple[int, ...] = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": REORDER, "group": self.group, "order": list(self.order)}

    @staticmethod
    def from_json(raw: Mapping[str, Any], where: str) -> ReorderStep:
        """Read a step.

        Raises:
            UsageError: it is none; the first offence is named by its place.
        """
        order = raw.get("order")
        expect(isinstance(raw.get("group"), str), "must be a text", f"{where}.group")
        is_order = isinstance(order, list) and all(type(n) is int for n in order)
        places = sorted(order or ()) if is_order else [-1]
        expect(places == list(range(len(places))), "must hold every number from 0 up once", f"{where}.order")
        return ReorderStep(raw["group"], tuple(order))  # type: ignore[arg-type]


def why_fixed(groups: Groups, group: Group) -> str:
    """Tell why the units of a group must stay in order.

    Args:
        groups: the traced model.
        group: one of its groups.

    Returns:
        The reason; empty where they need not.
    """
    tracing = groups.tracing
    if len(group.cells) > 1:
        return "its units lie in several rows, of which each keeps its own"
    if group.io:
        return "it reaches an input or output of the model"
    unit_of = _unit_of(groups, group)
    for name, axes in tracing.axes.items():
        for labels in axes:
            places = _at(unit_of, groups, labels)
            if not (places >= 0).any():
                continue
            if labels.ndim > 1:
                return f"{name!r} holds it in another order in every row"
            if len(np.unique(own := places[places >= 0])) < len(own):  # which of them is which, nothing says
                return f"{name!r} holds several positions of a unit"
    for view, _ in tracing.views:
        traits = TRAITS.get((view.node.domain, view.node.op_type))
        lines = tracing.axes.get(view.node.input[0], ()) if traits is not None and traits.neighbours else ()
        if any((_at(unit_of, groups, labels) >= 0).any() for labels in lines):
            return f"{view.name!r} looks at neighbours"
    for member in group.members:
        if member.tensor not in tracing.given or member.tensor in tracing.duplicated_per_use:
            return f"weight {member.tensor!r} is computed, or cut in several ways"
    return ""


def with_order(groups: Groups, steps: Collection[ReorderStep]) -> Model:
    """Put the units of some groups into another order.

    Args:
        groups: the traced model.
        steps: the orders.

    Returns:
        A model that computes the same, to rounding.

    Raises:
        UsageError: a group is not there, has another number of units, or must stay in order.
    """
    known = {group.name: group for group in groups.groups}
    for step in steps:
        if step.group not in known:
            raise UsageError(f"the plan does not fit: the model has no group {step.group!r}", hint=_OTHER)
        if len(known[step.group].classes) != len(step.order):
            found = f"{len(known[step.group].classes)} units in the model, {len(step.order)} in the plan"
            raise UsageError(f"the plan does not fit: group {step.group!r} has {found}", hint=_OTHER)
        if why := why_fixed(groups, known[step.group]):
            raise UsageError(f"the units of group {step.group!r} cannot change places: {why}", hint=_OTHER)
    moved = [(known[step.group], np.array(step.order)) for step in steps]
    tracing = groups.tracing
    names = {m.tensor for group, _ in moved for m in group.members}
    flat = with_dense(groups, sorted(names))
    values: dict[str, Callable[[], Array]] = {}
    for key, axes in tracing.weights_axes():
        name = tracing.weights[key]
        if name in names:
            sizes = groups.static.shapes[name]
            index = [_index(groups, moved, labels, size) for labels, size in zip(axes, sizes, strict=True)]
            values[name] = partial(_taken, flat, name, index)
    return written_back(groups, flat, values)


def _taken(flat: Model, name: str, index: Collection[Array | None]) -> Array:
    value = flat.array(name)
    for axis, places in enumerate(index):
        value = value if places is None else np.take(value, places, axis)
    return np.ascontiguousarray(value)


def unit_places(groups: Groups, group: Group, labels: Array) -> Array:
    """Find the units of a group along an axis.

    Args:
        groups: the traced model.
        group: one of its groups.
        labels: of the axis.

    Returns:
        int, in the shape of `labels`: the unit at every position; -1 for none.
    """
    return _at(_unit_of(groups, group), groups, labels)


def _unit_of(groups: Groups, group: Group) -> Array:
    """int[classes]: the unit of the group that every class is; -1 for none."""
    found = np.full(groups.classes.count, -1)
    found[group.classes] = np.arange(len(group.classes))
    return found


def _at(unit_of: Array, groups: Groups, labels: Array) -> Array:
    return np.where(labels >= 0, unit_of[groups.classes.of[np.maximum(labels, 0)]], -1)


def _index(groups: Groups, moved: Collection[tuple[Group, Array]], labels: Array, size: int) -> Array | None:
    """The old position of what stands at every position of an axis; None where nothing moves."""
    index = np.arange(size)
    for group, order in moved:
        places = unit_places(groups, group, labels)
        own = np.flatnonzero(places >= 0)
        if own.size:
            by_unit = own[np.argsort(places[own], kind="stable")].reshape(len(order), -1)
            index[by_unit] = by_unit[order]
    return None if (index == np.arange(size)).all() else index
