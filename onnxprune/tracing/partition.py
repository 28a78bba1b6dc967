"""Partition of label classes into the parts of groups: classes, their rows, and the weights they cut."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxprune.tracing.labels import Classes, Constraints, Reason, components, distinct
from onnxprune.tracing.trace_result import TraceResult
from onnxprune.typing import Array

UNBALANCED = Reason("its rows cannot all lose the same number of positions")


@dataclass(frozen=True)
class Part:
    """The substance of a group.

    Attributes:
        cells: class ids; classes of one cell lie in the same rows and cut the same weights.
        axes: (entry of the weight in the trace, axis, positions of the axis that belong to the part).
    """

    cells: tuple[Array, ...]
    axes: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class _Incidence:
    """Which class lies on which weight axis: one pair per (class, weight axis), with the number of positions."""

    keys: list[tuple[str, int]]
    classes: Array
    owners: Array
    positions: Array


def form(tracing: TraceResult, classes: Classes) -> tuple[list[Part], Classes]:
    """Partition the free classes.

    Classes that cut the same weight axes are one part. Classes that balance constraints link are one part too,
    made of several cells; where no proportion of the cells keeps all rows equal, the classes are fixed.

    Returns:
        The parts in the order in which the graph meets them, and the classes with the new fixes.
    """
    found = _incidence(tracing, classes)
    # Sets of weight axes are compared by the sum of a random number per axis: equal sets always have equal sums, and
    # different ones do with a probability of 2**-63.
    rng = np.random.default_rng(0)
    axis_hash = rng.integers(1, 1 << 63, (max(1, len(found.keys)),), dtype=np.uint64)
    signature = np.zeros(classes.count, np.uint64)
    np.add.at(signature, found.classes, axis_hash[found.owners])
    cell = signature.copy()
    link, linked, stuck = _balance(classes, cell, rng)
    stuck |= _without_proportion(classes.free & linked & ~stuck, cell, link)
    stuck &= classes.free
    if stuck.any():
        classes = with_fixes(classes, np.flatnonzero(stuck), tracing.ledger, UNBALANCED)
    weighted = np.zeros(classes.count, bool)
    weighted[found.classes] = True
    chunks = _chunks(np.flatnonzero(classes.free & weighted), signature, link, linked)
    axes = _axes(tracing, found, chunks, classes.count)
    return [Part(_cells(c, cell, linked), a) for c, a in zip(chunks, axes, strict=True)], classes


def _incidence(tracing: TraceResult, classes: Classes) -> _Incidence:
    keys = [(key, axis) for key, axes in tracing.weights_axes() for axis in range(len(axes))]
    flat = [tracing.axes[key][axis].reshape(-1) for key, axis in keys]
    labels = np.concatenate([np.empty(0, np.int32), *flat])
    owner = np.repeat(np.arange(len(flat)), [len(f) for f in flat])
    held = labels >= 0
    width = max(1, len(flat))
    pairs, positions = distinct(classes.of[labels[held]].astype(np.int64) * width + owner[held], classes.count * width)
    return _Incidence(keys, pairs // width, pairs % width, positions)


def _balance(classes: Classes, cell: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Link the classes that must be removed in proportion.

    Adds to `cell` a signature of the rows that each class lies in.

    Returns:
        int32[classes] the link of every class, bool[classes] whether it is linked, bool[classes] whether it is
        stuck since the rows that it lies in have unequal numbers of free positions.
    """
    free, stuck, linked = classes.free, np.zeros(classes.count, bool), np.zeros(classes.count, bool)
    left, right = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    uneven = []
    for rows in classes.balances:
        ids, counts = _lopsided(rows)
        loose = free[ids]
        ids, counts = ids[loose], counts[loose]
        if not len(ids):
            continue
        linked[ids] = True
        left.append(np.repeat(ids[:1], len(ids)))
        right.append(ids)
        totals = counts.sum(axis=0)
        if (totals != totals[0]).any():
            uneven.append(ids[0])
        row_hash = rng.integers(1, 1 << 63, (counts.shape[1],), dtype=np.uint64)
        cell[ids] += (counts.astype(np.uint64) * row_hash).sum(axis=1, dtype=np.uint64)
    link = components(classes.count, np.concatenate(left), np.concatenate(right))
    for first in uneven:
        stuck |= linked & (link == link[first])
    return link, linked, stuck


def _lopsided(rows: Array) -> tuple[Array, Array]:
    """The classes with unequal shares of the rows, and how many positions each has in every row."""
    ids, inverse = np.unique(rows, return_inverse=True)
    places = inverse.reshape(rows.shape) + np.arange(len(rows))[:, None] * len(ids)
    counts = np.bincount(places.ravel(), minlength=len(rows) * len(ids)).reshape(len(rows), len(ids)).T
    uneven = (counts != counts[:, :1]).any(axis=1) & (ids >= 0)
    return ids[uneven], counts[uneven]


def _without_proportion(members: Array, cell: Array, link: Array) -> Array:
    """bool[classes]: linked classes whose cell sizes have no common divisor, so that only all of them could go."""
    bad = np.zeros(len(members), bool)
    ids = np.flatnonzero(members)
    for root in np.unique(link[ids]):
        together = ids[link[ids] == root]
        _, sizes = np.unique(cell[together], return_counts=True)
        if math.gcd(*sizes.tolist()) == 1:
            bad[together] = True
    return bad


def with_fixes(classes: Classes, ids: Array, ledger: Constraints, reason: Reason) -> Classes:
    """The classes, of which some more cannot be removed, for a reason."""
    index = -1 - int(ledger.barrier(reason)[0])
    fixes = np.concatenate([classes.fixes, np.stack([ids, np.full_like(ids, index)], axis=1)])
    return Classes(classes.of, classes.count, fixes, classes.balances)


def _chunks(usable: Array, signature: Array, link: Array, linked: Array) -> list[Array]:
    """The classes of every part, each ascending, parts by their first class."""
    if not len(usable):
        return []
    key = np.where(linked[usable], link[usable].astype(np.uint64), signature[usable])
    order = np.lexsort((usable, key, linked[usable]))
    usable, key = usable[order], key[order]
    breaks = (key[1:] != key[:-1]) | (linked[usable[1:]] != linked[usable[:-1]])
    return sorted(np.split(usable, np.flatnonzero(breaks) + 1), key=lambda chunk: int(chunk[0]))


def _cells(chunk: Array, cell: Array, linked: Array) -> tuple[Array, ...]:
    if not linked[chunk[0]]:
        return (chunk,)
    _, inverse = np.unique(cell[chunk], return_inverse=True)
    cells = [chunk[inverse == i] for i in range(int(inverse.max()) + 1)]
    return tuple(sorted(cells, key=lambda c: int(c[0])))


def _axes(
    tracing: TraceResult, found: _Incidence, chunks: list[Array], count: int
) -> list[tuple[tuple[str, int, int], ...]]:
    part_of = np.full(count, -1, np.int64)
    for index, chunk in enumerate(chunks):
        part_of[chunk] = index
    width = max(1, len(found.keys))
    part = part_of[found.classes]
    held = part >= 0
    pairs, inverse = np.unique(part[held] * width + found.owners[held], return_inverse=True)
    totals = np.bincount(inverse, weights=found.positions[held], minlength=len(pairs))
    result: list[list[tuple[str, int, int]]] = [[] for _ in chunks]
    for pair, total in zip(pairs.tolist(), totals.tolist(), strict=True):
        key, axis = found.keys[pair % width]
        labels = tracing.axes[key][axis]
        rows = labels.size // labels.shape[axis] if labels.ndim > 1 else 1
        result[pair // width].append((key, axis, round(total / rows)))
    return [tuple(axes) for axes in result]
