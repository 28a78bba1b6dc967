"""Lengths of all axes as functions of how many units every group loses, without tracing or rewriting again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxprune.tracing import Group, Groups
from onnxprune.typing import Array

# The axis of length 1, for products with fewer factors than others.
ONE = 0


@dataclass(eq=False)
class AxisLengths:
    """Lengths of the axes of all tensors, for every number of units that the groups lose.

    Axes are numbered in the order in which they are first asked for.

    Attributes:
        groups: the traced model.
        order: group name -> int[units, share]: its units in the order in which they go, as indices into its classes
            (see `units_in_order`); groups that are not named stay whole.
        parts: names of the tensors and weights of parts of the graph that can go as a whole: each counts as a group of
            one unit, behind the groups.
    """

    groups: Groups
    order: Mapping[str, Array]
    parts: Sequence[Collection[str]] = ()
    _there: dict[str, tuple[int, ...]] = field(default_factory=dict, init=False, repr=False)
    _known: dict[tuple[int, int], int] = field(default_factory=lambda: {(-1, 1): ONE}, init=False, repr=False)
    _held: list[Array] = field(default_factory=list, init=False, repr=False)
    _full: list[int] = field(default_factory=lambda: [1], init=False, repr=False)
    _lost: list[dict[int, Array]] = field(init=False, repr=False)
    _last: tuple[tuple[bytes, int], Array] = field(default=((b"", 0), np.ones(1, np.int64)), init=False, repr=False)

    def __post_init__(self) -> None:
        self._lost = [{} for _ in range(self.count)]
        for names, lost in zip(self.parts, self._lost[len(self.groups.groups) :], strict=True):
            number = self._new(1)
            lost[number] = np.array([0, 1])
            self._there.update((name, (number,)) for name in names)

    @property
    def count(self) -> int:
        """How many groups and parts there are."""
        return len(self.groups.groups) + len(self.parts)

    def units(self, group: int) -> int:
        """How many units a group can lose; a part can lose one."""
        if group >= len(self.groups.groups):
            return 1
        units = self.order.get(self.groups.groups[group].name)
        return 0 if units is None else len(units)

    def axes(self, tensor: str) -> tuple[int, ...]:
        """The numbers of all axes of a tensor, or of an entry of the trace's `axes`."""
        tracing = self.groups.tracing
        shape = tracing.static.shapes[tracing.weights.get(tensor, tensor)]
        axes = tracing.axes.get(tensor)
        if axes is None:
            return tuple(self.fixed(n) for n in shape)
        return tuple(self.axis(labels, a, n) for a, (labels, n) in enumerate(zip(axes, shape, strict=True)))

    def there(self, name: str) -> tuple[int, ...]:
        """The number of the axis that is of length 1 while a tensor or weight is there; none for what always is."""
        return self._there.get(name, ())

    def axis(self, labels: Array, axis: int, size: int) -> int:
        """The number of one axis, given its labels, its place in the tensor, and its length."""
        key = (id(labels), size)
        if key not in self._known:
            self._held.append(labels)  # its identity is the key: it may not be freed
            self._known[key] = self._added(labels, axis, size)
        return self._known[key]

    def fixed(self, size: int) -> int:
        """The number of an axis that keeps its length."""
        if (-1, size) not in self._known:
            self._known[-1, size] = self._new(size)
        return self._known[-1, size]

    def lengths(self, counts: Array) -> Array:
        """int64[axes]: the lengths that remain if every group loses `counts` units, int[groups]; not to be changed."""
        key = (counts.tobytes(), len(self._full))
        if key != self._last[0]:  # searches ask for the same counts over and over
            axis, group, start, removed = self._flat
            lost = np.bincount(axis, removed[start + counts[group]], minlength=len(self._full))
            self._last = key, np.array(self._full, np.int64) - lost.astype(np.int64)
        return self._last[1]

    def along(self, group: int) -> tuple[Array, Array]:
        """(int[k] the axes that shrink with a group, int64[units + 1, k] how many positions of each go)."""
        changes = self._lost[group]
        if not changes:
            return np.empty(0, np.int64), np.zeros((self.units(group) + 1, 0), np.int64)
        return np.array(list(changes)), np.stack(list(changes.values()), axis=1)

    def _new(self, size: int) -> int:
        self._full.append(size)
        self.__dict__.pop("_flat", None)
        return len(self._full) - 1

    def _added(self, labels: Array, axis: int, size: int) -> int:
        # The rows of a field all lose the same number: the first stands for them.
        line = labels if labels.ndim == 1 else np.moveaxis(labels, axis, -1).reshape(-1, labels.shape[axis])[0]
        classes = self.groups.classes.of[line[line >= 0]]
        steps = self._steps[classes]
        if not (steps >= 0).any():
            return self.fixed(size)
        number, owners = self._new(size), self.groups.group_of[classes]
        for group in np.unique(owners[steps >= 0]):
            removed = np.bincount(steps[(owners == group) & (steps >= 0)], minlength=self.units(group)).cumsum()
            self._lost[group][number] = np.concatenate([[0], removed])
        return number

    @cached_property
    def _steps(self) -> Array:
        """int64[classes]: with which unit of its group a class goes, in the order of removal; -1 for none."""
        steps = np.full(self.groups.classes.count, -1, np.int64)
        for group in self.groups.groups:
            units = self.order.get(group.name)
            if units is not None:
                steps[group.classes[units]] = np.arange(len(units))[:, None]
        return steps

    @cached_property
    def _flat(self) -> tuple[Array, Array, Array, Array]:
        """All pairs of an axis and a group that shortens it: axis, group, and where its numbers start in the last."""
        pairs = [
            (axis, group, removed) for group, changes in enumerate(self._lost) for axis, removed in changes.items()
        ]
        starts = np.cumsum([0, *(len(lost) for _, _, lost in pairs)])[:-1]
        axes, groups = (np.array([p[i] for p in pairs], np.int64) for i in (0, 1))
        return axes, groups, starts, np.concatenate([np.empty(0, np.int64), *(lost for _, _, lost in pairs)])


def units_in_order(group: Group, scores: Array) -> Array:
    """Order the units of a group, least important first.

    Of several cells a unit takes the next share of every cell, so that all rows stay equal.

    Args:
        group: the group.
        scores: float64[classes].

    Returns:
        int[units, share]: indices into `group.classes`.
    """
    columns, first = [], 0
    for cell in group.cells:
        order = np.argsort(scores[cell], kind="stable") + first
        columns.append(order.reshape(group.units, -1))
        first += len(cell)
    return np.concatenate(columns, axis=1)
