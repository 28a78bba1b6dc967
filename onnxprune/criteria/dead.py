"""Units that can be removed without loss: their readers get nothing, a constant, or a multiple of another unit.

A unit is judged at every place where a node sums over it. What it gives to that sum is

* nothing, where it is zero there whatever the inputs are, or what it is multiplied with is;
* a constant, where it is one number whatever the inputs are: the bias of the reading layer takes it over, if every
  output of that layer sees the same of it (no padding in between);
* a multiple of what another unit gives, whose weights in the reading layer take it over.

A unit may go if one of these holds at every place. Whatever else looks along its axis (a norm, a maximum) says why it
stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.criteria.bound_rules import Bounds
from onnxprune.criteria.bounds import bounds_of
from onnxprune.criteria.multiples import Multiples, covering_places, multiples_of, rows
from onnxprune.criteria.places import Summation, classes_in_groups, places_of
from onnxprune.tracing import Group, Groups, as_field
from onnxprune.typing import Array, Ranges

ZERO, CONSTANT, UNREAD, MULTIPLE, RANGE = "zero", "constant", "unread", "multiple", "range"
CAUSES: Mapping[str, str] = {
    ZERO: "zero whatever the inputs are",
    CONSTANT: "constant whatever the inputs are",
    UNREAD: "read by nothing",
    MULTIPLE: "a multiple of another unit",
    RANGE: "zero or constant inside the input range",
}
# Largest difference of two numbers that count as equal, relative to the largest: some roundings of single precision.
ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Fold:
    """What the row of a layer loses, and what takes it over; an entry for every input of the layer.

    Attributes:
        constant: float64[groups, D], the number that a removed entry is; 0 where another entry stands for it.
        partner: int64[groups, D], the entry that stands for a removed one.
        factor: float64[groups, D], how many times it does; 0 for not at all.
    """

    constant: Array
    partner: Array
    factor: Array


@dataclass(frozen=True, eq=False)
class Dead:
    """What can go, and what can not.

    Attributes:
        removed: group -> indices of its classes that go.
        causes: class -> why its removal is exact, one of `CAUSES`.
        stays: class -> why a unit that looked dead stays.
        folds: first output of a layer -> what it takes over.
    """

    removed: Mapping[str, Array]
    causes: Mapping[int, str]
    stays: Mapping[int, str]
    folds: Mapping[str, Fold] = field(default_factory=dict)


def judge(
    groups: Groups,
    *,
    ranges: Ranges | None = None,
    tolerance: float = 0.0,
    closed: Collection[str] = (),
) -> Judged:
    """Find the units whose removal is exact.

    Args:
        groups: the traced model.
        ranges: graph input -> the least and the largest number that it is ever given; nothing is assumed of others.
        tolerance: weights of at most this size count as zero, and differences of it as none.
        closed: first outputs of layers that cannot take anything over.

    Returns:
        What is known of every unit; `Judged.dead` chooses among them.
    """
    places = list(places_of(groups, closed))
    names = {name for place in places for name in place.tensors}
    judged = Judged(groups, places, bounds_of(groups, {}, names, tolerance), tolerance)
    if ranges:
        judged.take(Judged(groups, places, bounds_of(groups, ranges, names, tolerance), tolerance))
    _add_multiples(judged, multiples_of(groups, max(tolerance, ROUNDING)))
    return judged


# --- what a unit gives to a sum --------------------------------------------------------------------------


class Judged:
    """What every class of units gives at every place.

    Attributes:
        causes: class -> why it may go.
        stays: class -> why it stays though it is constant somewhere.
        open: class -> places where it gives neither nothing nor a constant.
        constants: number of a place -> float64[groups, D], the constants that the layer reads; NaN where there is none.
        entries: number of a place -> int64[groups, D], see `entries_at`.
        partners: class -> the class that it is a multiple of, at the places where it is open.
        rows: number of a place -> the ids and scales of what the layer reads, [groups, D] each.
    """

    def __init__(
        self, groups: Groups, places: Sequence[Summation], bounds: Mapping[str, Bounds], tolerance: float
    ) -> None:
        self.groups, self.places, self.bounds, self.tolerance = groups, places, bounds, tolerance
        self.causes: dict[int, str] = {}
        self.stays: dict[int, str] = {}
        self.open: dict[int, list[int]] = {}
        self.constants: dict[int, Array] = {}
        self.entries: dict[int, Array] = {}
        self.partners: dict[int, int] = {}
        self.rows: dict[int, tuple[Array, Array]] = {}
        self._judge()

    def _judge(self) -> None:
        met: dict[int, set[str]] = {}
        for number, place in enumerate(self.places):
            by_cause = self._at(number, place)
            for class_id in place.classes.tolist():
                cause = next((cause for cause, ids in by_cause.items() if class_id in ids), "")
                met.setdefault(class_id, set()).add(cause)
                if not cause:
                    self.open.setdefault(class_id, []).append(number)
        for group in self.groups.groups:  # what no sum reaches: a part of a tensor that nothing looks at
            met.update((c, {UNREAD}) for c in group.classes.tolist() if c not in met)
        for class_id, found in met.items():
            if "" not in found:
                self.causes[class_id] = next(c for c in (CONSTANT, ZERO, UNREAD) if c in found)

    def _at(self, number: int, place: Summation) -> Mapping[str, set[int]]:
        """Cause -> the classes that it holds of at a place."""
        own = self.bounds.get(place.tensor)
        shape = place.view.shape(place.masked_axis.slot)
        if place.masked_axis.averaged:
            known = set() if own is None else self._where(place.ids, shape, own.known)
            self._stay(known, f"constant, but {place.name} depends on how many positions there are")
            return {}
        silent: set[int] = set()
        known = set()
        if own is not None:
            silent = self._where(place.ids, shape, self._is_silent(own, place))
            known = self._where(place.ids, shape, own.known) - silent
        unread = self._unread(number, place)
        for name, _, ids in place.others:
            other = self.bounds.get(name)
            if other is not None:
                is_zero = other.known & (np.abs(other.low) <= self.tolerance)
                unread |= self._where(ids, self.groups.static.shapes[name], is_zero)
        constant = self._constant(number, place, known - unread) if own is not None and known - unread else set()
        return {ZERO: silent, UNREAD: unread, CONSTANT: constant}

    def _unread(self, number: int, place: Summation) -> set[int]:
        """The classes that a layer multiplies with zeros."""
        if place.layer is None:
            return set()
        value = self.groups.tracing.stored_value(place.view.node.input[place.layer.weight])
        if value is None:
            return set()
        matrix, entries = np.abs(place.layer.as_matrix(value)) > self.tolerance, self.entries_at(number)
        # What a unit gives to itself goes with it: the kernel of a depthwise convolution.
        is_read = (matrix & (entries[:, :, None] != self._outputs(place, matrix.shape[2])[:, None, :])).any(axis=2)
        return set(np.setdiff1d(entries[entries >= 0], entries[is_read]).tolist())

    def _outputs(self, place: Summation, count: int) -> Array:
        """int64[groups, O]: the class of every output of a layer; -1 for none."""
        assert place.layer is not None
        name = place.view.node.output[0]
        axes, shape = self.groups.tracing.axes[name], self.groups.static.shapes[name]
        input_shape = place.view.shape(place.masked_axis.slot)
        spot = place.layer.sample_positions(np.broadcast_to(0.0, input_shape), 1, np.random.default_rng(0))
        found = np.full((), -1, np.int64)
        for axis, labels in enumerate(axes):
            found = np.maximum(found, as_field(classes_in_groups(self.groups, labels), axis, len(shape)))
        return place.layer.output_rows(np.broadcast_to(found, shape), spot, count)[:, 0]

    def _is_silent(self, own: Bounds, place: Summation) -> Array:
        """bool: the elements that add nothing to the sum."""
        zero = place.masked_axis.zero
        at: Array = np.zeros(())
        if zero is not None and place.view.has(zero):
            bounds = self.bounds.get(place.view.node.input[zero])
            if bounds is None or not bounds.is_constant or bounds.low.size != 1:
                return np.zeros_like(own.known)
            at = bounds.low.reshape(())
        return np.asarray((np.abs(own.low - at) <= self.tolerance) & (np.abs(own.high - at) <= self.tolerance))

    def _where(self, ids: Array, shape: Sequence[int], holds: Array) -> set[int]:
        """The classes all of whose elements satisfy `holds`, which is laid along the tensor."""
        wide = np.broadcast_shapes(ids.shape, holds.shape)
        failed = np.unique(np.broadcast_to(ids, wide)[~np.broadcast_to(holds, wide)])
        return set(np.setdiff1d(ids[ids >= 0], failed).tolist())

    def _constant(self, number: int, place: Summation, ids: set[int]) -> set[int]:
        """The classes whose constants the bias of the reading layer can take over; says why of the others."""
        layer, own = place.layer, self.bounds[place.tensor]
        if layer is None or not place.folds:
            self._stay(ids, f"constant, and {place.name} has no bias of its own that could take that over")
            return set()
        drawn = tuple(layer.drawn)
        same = own.low.min(axis=drawn, keepdims=True) == own.low.max(axis=drawn, keepdims=True)
        known = own.known.all(axis=drawn, keepdims=True) & same
        shape = place.view.shape(place.masked_axis.slot)
        uniform = ids & self._where(place.ids, shape, known)
        self._stay(ids - uniform, f"constant, but not the same at all positions that {place.name} reads")
        if not uniform:
            return set()
        if not layer.sees_whole_windows:
            self._stay(uniform, f"constant, but {place.name} sees zeros at the border")
            return set()
        first = own.low.min(axis=drawn, keepdims=True)
        value = np.broadcast_to(np.where(known, first, np.nan), shape).astype(np.float64)
        spot = layer.sample_positions(value, 1, np.random.default_rng(0))
        self.constants[number] = layer.input_rows(value, spot)[:, 0].astype(np.float64)
        return uniform

    def _stay(self, ids: Collection[int], why: str) -> None:
        for class_id in ids:
            self.stays.setdefault(class_id, why)

    def dead(self, leave: Collection[str] = ()) -> Dead:
        """The units to remove, balanced over the rows of their groups; every group keeps one.

        Args:
            leave: names of groups that stay whole.
        """
        removed, causes = {}, dict[int, str]()
        for group in self.groups.groups:
            chosen = _balanced(group, self) if group.name not in leave else np.empty(0, np.int64)
            if len(chosen):
                removed[group.name] = chosen
                causes.update({int(c): self.causes[int(c)] for c in group.classes[chosen]})
        stays = {class_id: why for class_id, why in self.stays.items() if class_id not in causes}
        return Dead(removed, causes, stays, self.folds(causes.keys()))

    def take(self, other: Judged) -> None:
        """Take over what was found out inside of the input range."""
        self.causes.update({class_id: RANGE for class_id in other.causes if class_id not in self.causes})
        self.constants.update(other.constants)
        self.open = other.open
        self.stays = {**other.stays, **{c: why for c, why in self.stays.items() if c not in other.causes}}

    # --- what takes it over ------------------------------------------------------------------------------

    def entries_at(self, number: int) -> Array:
        """int64[groups, D]: the class of every entry of a layer's row; -1 for none."""
        if number not in self.entries:
            place = self.places[number]
            assert place.layer is not None
            shape = place.view.shape(place.masked_axis.slot)
            spread = np.broadcast_to(place.ids, shape)
            names, numbers = np.unique(spread, return_inverse=True)
            layer = place.layer
            full = numbers.reshape(spread.shape) + 1.0
            best = layer.input_rows(full, covering_places(layer, shape)).max(axis=1).astype(np.int64)
            self.entries[number] = np.where(best > 0, names[np.maximum(best - 1, 0)], -1)
        return self.entries[number]

    def folds(self, removed: Collection[int]) -> Mapping[str, Fold]:
        """What every layer takes over if the classes `removed` go."""
        found = {}
        removed_ids = np.array(sorted(removed), np.int64)
        for number, place in enumerate(self.places):
            if place.layer is None or not place.folds:
                continue
            entries = self.entries_at(number)
            constant = np.zeros(entries.shape)
            partner, factor = np.zeros(entries.shape, np.int64), np.zeros(entries.shape)
            if number in self.constants:
                constant = np.where(np.isin(entries, removed_ids), np.nan_to_num(self.constants[number]), 0.0)
            for class_id in np.intersect1d(np.unique(entries), removed_ids).tolist():
                if class_id in self.partners and number in self.open.get(class_id, ()):
                    mine, its = entries == class_id, entries == self.partners[class_id]
                    for group in range(len(entries)):
                        one, two = np.flatnonzero(mine[group]), np.flatnonzero(its[group])
                        if len(one):
                            scale = self.rows[number][1][group]
                            partner[group, one], factor[group, one] = two, scale[one] / scale[two]
            if constant.any() or factor.any():
                found[place.layer.node.output[0]] = Fold(constant, partner, factor)
        return found


def _add_multiples(judged: Judged, known: Mapping[str, Multiples]) -> None:
    """Let classes go that are multiples of another class wherever they are open; the first of each stays."""
    keys: dict[int, list[bytes]] = {}
    places = {number for class_id, open_at in judged.open.items() for number in open_at}
    bad: set[int] = set()
    for number in sorted(places):
        place = judged.places[number]
        classes = [c for c in place.classes.tolist() if number in judged.open.get(c, ())]
        found = None
        if place.layer is not None and place.folds and place.tensor in known:
            found = rows(place.layer, known[place.tensor], place.view.shape(place.masked_axis.slot))
        if found is None:
            bad.update(classes)
            continue
        judged.rows[number] = found
        entries = judged.entries_at(number)
        for class_id, key in _keys(entries, found[0]).items():
            if number in judged.open.get(class_id, ()):
                keys.setdefault(class_id, []).append(number.to_bytes(4, "little") + key)
    firsts: dict[tuple[bytes, ...], int] = {}
    for class_id in sorted(keys):
        if class_id in bad or len(keys[class_id]) != len(judged.open[class_id]):
            continue
        first = firsts.setdefault(tuple(keys[class_id]), class_id)
        if first != class_id:
            judged.causes[class_id] = MULTIPLE
            judged.partners[class_id] = first


def _keys(entries: Array, ids: Array) -> dict[int, bytes]:
    """Class -> the ids at its entries in their order, group by group; equal for classes that are multiples."""
    group = np.repeat(np.arange(len(entries)), entries.shape[1])
    flat, names = entries.reshape(-1), ids.reshape(-1)
    order = np.argsort(flat, kind="stable")
    order = order[flat[order] >= 0]
    starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
    return {
        int(flat[part[0]]): group[part].tobytes() + names[part].tobytes()
        for part in np.split(order, starts[1:])
        if len(part)
    }


# --- what goes -------------------------------------------------------------------------------------------


def _balanced(group: Group, judged: Judged) -> Array:
    """The indices of a group's classes that go: the same share of every cell, and never all."""
    starts = np.cumsum([0, *map(len, group.cells)])
    able = [[i for i, c in enumerate(cell.tolist()) if c in judged.causes] for cell in group.cells]
    units = min(len(found) * group.units // len(cell) for found, cell in zip(able, group.cells, strict=True))
    units = min(units, group.units - 1)
    if any(able) and not units:
        why = "its group must lose the same number of units in every row" if len(able) > 1 else "a group keeps one unit"
        for found, cell in zip(able, group.cells, strict=True):
            for index in found:
                judged.stays.setdefault(int(cell[index]), why)
    chosen = [
        np.array(found[: units * len(cell) // group.units], np.int64) + start
        for found, cell, start in zip(able, group.cells, starts, strict=False)
    ]
    return np.concatenate(chosen)
