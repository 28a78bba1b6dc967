"""Units of a group in another order: the same function, with other neighbours along the inputs of its readers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.model.traits import TRAITS
from onnxprune.rewriting.mixed_units import (
    OTHER_MODEL,
    Mix,
    group_of_step,
    unit_places,
    why_not_stored,
    with_mixed_units,
)
from onnxprune.rewriting.plan_json import REORDER, expect
from onnxprune.tracing import Group, Groups


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
    for name, axes in tracing.axes.items():
        for labels in axes:
            places = unit_places(groups, group, labels)
            if not (places >= 0).any():
                continue
            if labels.ndim > 1:
                return f"{name!r} holds it in another order in every row"
            if len(np.unique(own := places[places >= 0])) < len(own):  # which of them is which, nothing says
                return f"{name!r} holds several positions of a unit"
    for view, _ in tracing.views:
        traits = TRAITS.get((view.node.domain, view.node.op_type))
        lines = tracing.axes.get(view.node.input[0], ()) if traits is not None and traits.neighbours else ()
        if any((unit_places(groups, group, labels) >= 0).any() for labels in lines):
            return f"{view.name!r} looks at neighbours"
    return why_not_stored(groups, group)


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
    mixed: list[tuple[Group, list[Mix]]] = []
    for step in steps:
        group = group_of_step(groups, step.group, len(step.order))
        if why := why_fixed(groups, group):
            raise UsageError(f"the units of group {step.group!r} cannot change places: {why}", hint=OTHER_MODEL)
        mixed.append((group, [itemgetter(np.array(step.order))]))
    return with_mixed_units(groups, mixed)
