"""Units of a group that change places or are mixed with each other: every weight that holds them is changed alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.rewriting.zero_elements import with_dense, written_back
from onnxprune.tracing import Group, Groups
from onnxprune.typing import Array

OTHER_MODEL = "the plan was made for another model"
# From what stands at the places of the units of a cell, [units, copies, ...], to what comes to stand there.
Mix = Callable[[Array], Array]


def unit_places(groups: Groups, group: Group, labels: Array) -> Array:
    """Find the units of a group along an axis.

    Args:
        groups: the traced model.
        group: one of its groups.
        labels: of the axis.

    Returns:
        int, in the shape of `labels`: the unit at every position; -1 for none.
    """
    unit_of = np.full(groups.classes.count, -1)
    unit_of[group.classes] = np.arange(len(group.classes))
    return np.where(labels >= 0, unit_of[groups.classes.of[np.maximum(labels, 0)]], -1)


def cell_places(units: Array, group: Group) -> list[Array]:
    """Find where the units of every cell of a group stand along an axis.

    Args:
        units: int[size], the unit at every position; -1 for none.
        group: the group.

    Returns:
        For every cell int[units, copies], the positions of each of its units, in ascending order; copies is 0 where the
        axis has none of them.

    Raises:
        ValueError: some units of a cell stand at more positions than others.
    """
    units = units.reshape(-1)  # of rows that each have an order of their own, none holds a unit that may move
    found, first = [], 0
    for cell in group.cells:
        own = np.flatnonzero((units >= first) & (units < first + len(cell)))
        counts = np.bincount(units[own] - first, minlength=len(cell))
        if (counts != counts[0]).any():
            raise ValueError("some units stand at more positions than others")
        found.append(own[np.argsort(units[own], kind="stable")].reshape(len(cell), -1))
        first += len(cell)
    return found


def why_not_stored(groups: Groups, group: Group) -> str:
    """Tell why the weights of a group cannot be written with their units elsewhere.

    Args:
        groups: the traced model.
        group: one of its groups.

    Returns:
        The reason; empty where they can.
    """
    tracing = groups.tracing
    if group.io:
        return "it reaches an input or output of the model"
    for member in group.members:
        if member.tensor not in tracing.given or member.tensor in tracing.duplicated_per_use:
            return f"weight {member.tensor!r} is computed, or cut in several ways"
    return ""


def group_of_step(groups: Groups, name: str, units: int) -> Group:
    """Find the group that a step of a plan is of.

    Args:
        groups: the traced model.
        name: of the group.
        units: how many the plan says that it has.

    Returns:
        The group.

    Raises:
        UsageError: the model has no such group.
    """
    group = next((group for group in groups.groups if group.name == name), None)
    if group is None:
        raise UsageError(f"the plan does not fit: the model has no group {name!r}", hint=OTHER_MODEL)
    if len(group.classes) != units:
        found = f"{len(group.classes)} units in the model, {units} in the plan"
        raise UsageError(f"the plan does not fit: group {name!r} has {found}", hint=OTHER_MODEL)
    return group


def with_mixed_units(
    groups: Groups,
    mixed: Sequence[tuple[Group, Sequence[Mix]]],
    scaled: Mapping[str, tuple[int, Array]] | None = None,
    plain: Collection[str] = (),
) -> Model:
    """Change every weight of some groups along the axes that hold their units.

    Args:
        groups: the traced model.
        mixed: each group, and what becomes of the units of each of its cells.
        scaled: weight -> an axis of it and a factor for every position there, before anything is mixed.
        plain: weights that become ones instead.

    Returns:
        The model with other weights; nothing else in it is changed.
    """
    tracing = groups.tracing
    names = {m.tensor for group, _ in mixed for m in group.members}
    flat = with_dense(groups, sorted(names))
    values: dict[str, Callable[[], Array]] = {}
    for key, axes in tracing.weights_axes():
        name = tracing.weights[key]
        if name in plain:
            values[name] = partial(_ones, flat, name)
        elif name in names:
            axis, factors = (scaled or {}).get(name, (0, None))
            first = [] if factors is None else [(axis, np.arange(len(factors))[:, None], partial(_multiplied, factors))]
            changes = first + [
                (axis, places, mix)
                for axis, labels in enumerate(axes)
                for group, mixes in mixed
                for places, mix in zip(cell_places(unit_places(groups, group, labels), group), mixes, strict=True)
                if places.size
            ]
            values[name] = partial(_changed, flat, name, changes)
    return written_back(groups, flat, values)


def _ones(flat: Model, name: str) -> Array:
    return np.ones_like(flat.array(name))


def _multiplied(factors: Array, rows: Array) -> Array:
    return rows * factors.reshape(-1, *[1] * (rows.ndim - 1))


def _changed(flat: Model, name: str, changes: Sequence[tuple[int, Array, Mix]]) -> Array:
    value = flat.array(name)
    result = np.array(value, np.float64 if value.dtype.kind == "f" else value.dtype)
    for axis, places, mix in changes:
        rows = np.moveaxis(result, axis, 0)
        rows[places] = mix(rows[places])
    return np.ascontiguousarray(result.astype(value.dtype))
