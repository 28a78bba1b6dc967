"""Labels: integers that stand for removable positions, and the constraints between them.

Every axis of a tensor carries one array of labels: a *line* (1-D, one label per position; length 1 where
all positions carry the same label), or a *field* (as many axes as the tensor, size 1 where it does not vary)
when the positions that go differ from row to row. An element of the tensor is removed if and only if a label
that it carries on some axis is removed.

Labels >= 0 can be removed. Negative labels are *barriers*: a position that must stay, and why. A tie of a
label to a barrier fixes the label with that reason, so padding, concatenation and broadcasting with
unremovable positions need no case of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.typing import Array

Axes = tuple[Array, ...]


# Positions; a file of some bytes may declare, or compute, any number.
LONGEST_AXIS = 1 << 24


@dataclass(frozen=True)
class Owner:
    """The tensor axis that labels were made for: positions 0 .. size-1 carry labels first .. first+size-1."""

    tensor: str
    axis: int
    size: int
    first: int


@dataclass(frozen=True)
class Reason:
    """Why positions cannot be removed.

    Attributes:
        text: the reason, for people.
        node: name of the node that says so, or of the graph input or output; may be empty.
        op: its operator type; empty for graph inputs and outputs.
        inherent: true of the operator as such (the spatial axes of a kernel), so not worth a report.
    """

    text: str
    node: str = ""
    op: str = ""
    inherent: bool = False


@dataclass(frozen=True)
class Split:
    """A split of one labelled axis into several: which of the new axes shrinks.

    Attributes:
        key: identifies the split between traces of the same graph: the first output of its node, and an axis.
        labels: the labels over the new axes.
        candidate_axes: the axes of `labels` that may shrink, outermost first.
        shrinking: index in `candidate_axes` of the one that does; outer ones are rows of equal length, inner ones
            go whole.
    """

    key: tuple[str, int]
    labels: Array
    candidate_axes: tuple[int, ...]
    shrinking: int


@dataclass
class Constraints:
    """Everything that one trace of a graph says about its labels.

    Attributes:
        policy: which axis of a split shrinks, by the split's key; the innermost where nothing is said.
        owners: the tensor axes that labels were made for.
        reasons: barrier -1-i has reason i.
        choices: the splits that were met.
        longest: most positions that get labels, of an axis and the rows around it; more than any weight has would take
            memory by what a file declares, not by what it holds.
        heads: splits one of whose axes is the batch axis of a product of activations: attention heads.
    """

    policy: Mapping[tuple[str, int], int] = field(default_factory=dict)
    owners: list[Owner] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    choices: list[Split] = field(default_factory=list)
    heads: dict[tuple[str, int], int] = field(default_factory=dict)
    longest: int = LONGEST_AXIS
    _count: int = 0
    _reason_ids: dict[Reason, Array] = field(default_factory=dict)
    _ties: list[tuple[Array, Array]] = field(default_factory=list)
    _balances: dict[tuple[tuple[int, ...], bytes], Array] = field(default_factory=dict)
    _rows: dict[int, tuple[tuple[str, int], int]] = field(default_factory=dict)

    def fresh(self, tensor: str, axis: int, size: int) -> Array:
        """A line of `size` new labels for `axis` of `tensor`.

        Raises:
            ValueError: it is too long, or has fewer positions than none: sizes that a graph computes may be anything.
        """
        if size < 0:
            raise ValueError(f"an axis has the size {size}")
        if size > self.longest:
            raise ValueError(f"an axis of {size} positions is too long to follow")
        self.owners.append(Owner(tensor, axis, size, self._count))
        line = np.arange(self._count, self._count + size, dtype=np.int32)
        self._count += size
        return line

    def barrier(self, reason: Reason) -> Array:
        """A line of length 1 whose label can never be removed."""
        known = self._reason_ids.get(reason)
        if known is None:
            self.reasons.append(reason)
            known = self._reason_ids[reason] = np.array([-len(self.reasons)], np.int32)
        return known

    def row(self, key: tuple[str, int], cut: int, reason: Reason) -> Array:
        """The barrier of an axis whose positions are rows: axis `cut` of the split `key`, which may go instead."""
        # Not looked up by its reason: nodes of one name would share it.
        self.reasons.append(reason)
        line = np.array([-len(self.reasons)], np.int32)
        self._rows[-len(self.reasons)] = (key, cut)
        return line

    def row_of(self, labels: Array) -> tuple[tuple[str, int], int] | None:
        """(split, cut) if `labels` is the barrier of a row axis."""
        return self._rows.get(int(labels[0])) if is_barrier(labels) else None

    def tie(self, a: Array, b: Array) -> None:
        """Removed together: `a` and `b`, broadcast against each other.

        Where each varies along an axis that the other is broadcast along, all positions of both along these are one:
        each is tied to its own first, and the firsts to each other. There are as many ties as labels, not as pairs.

        Raises:
            ValueError: they cannot be.
        """
        if a is b or (is_barrier(a) and is_barrier(b)):
            return
        if a.shape != b.shape:
            np.broadcast_shapes(a.shape, b.shape)
            longer = [x > y for x, y in zip(a.shape, b.shape, strict=False) if x != y]
            if a.ndim == b.ndim and any(longer) and not all(longer):
                firsts = _first_along(a, b.shape), _first_along(b, a.shape)
                self._ties += [pair for pair in zip((a, b), firsts, strict=True) if pair[0].size > pair[1].size]
                a, b = firsts
        self._ties.append((a, b))

    def fix(self, labels: Array, reason: Reason) -> None:
        """None of `labels` can be removed."""
        if not is_barrier(labels):
            self._ties.append((labels, self.barrier(reason)))

    def balance(self, labels: Array, axis: int) -> None:
        """Every row of `labels` along `axis` must lose the same number of positions."""
        rows = np.ascontiguousarray(np.moveaxis(labels, axis, -1)).reshape(-1, labels.shape[axis])
        self._balances.setdefault((rows.shape, rows.tobytes()), rows)

    def choose(self, key: tuple[str, int], labels: Array, candidate_axes: Sequence[int]) -> int:
        """Index in `candidate_axes` of the axis of `labels` that shrinks under the policy, -1 for none."""
        shrinking = self.policy.get(key, len(candidate_axes) - 1)
        self.choices.append(Split(key, labels, tuple(candidate_axes), shrinking))
        return shrinking

    def solve(self) -> Classes:
        """The classes of tied labels."""
        return _solve(self._count, self._ties, list(self._balances.values()))


def is_barrier(labels: Array) -> bool:
    """Whether `labels` is the constant line of a barrier."""
    return labels.size == 1 and labels.item() < 0


@dataclass(frozen=True)
class Classes:
    """Labels that are removed together.

    Attributes:
        of: int32[labels], the class of every label.
        count: number of classes.
        fixes: int32[n, 2], unique pairs (class, index of a reason) of the classes that are fixed.
        balances: class arrays [rows, width]; every row must lose the same number of positions.
    """

    of: Array
    count: int
    fixes: Array
    balances: tuple[Array, ...]

    @property
    def free(self) -> Array:
        """bool[classes]: the classes without a barrier."""
        free = np.ones(self.count, bool)
        free[self.fixes[:, 0]] = False
        return free


def _solve(count: int, ties: list[tuple[Array, Array]], balances: list[Array]) -> Classes:
    pairs = [np.broadcast_arrays(a, b) if a.shape != b.shape else (a, b) for a, b in ties]
    left = np.concatenate([np.empty(0, np.int32), *(a.ravel() for a, _ in pairs)])
    right = np.concatenate([np.empty(0, np.int32), *(b.ravel() for _, b in pairs)])
    inner = (left >= 0) & (right >= 0)
    root = components(count, left[inner], right[inner])
    is_root = root == np.arange(count)
    of = (np.cumsum(is_root, dtype=np.int32) - 1)[root] if count else root
    classes = int(is_root.sum())
    outer = ~inner & ((left >= 0) | (right >= 0))
    label = np.maximum(left[outer], right[outer])
    reason = -1 - np.minimum(left[outer], right[outer])
    width = max(1, int(reason.max()) + 1 if reason.size else 1)
    keys, _ = distinct(of[label].astype(np.int64) * width + reason, classes * width)
    fixes = np.stack([keys // width, keys % width], axis=1)
    # A barrier in a row is a position that stays: its own class, marked -1.
    of_each = np.append(of, np.int32(-1))
    return Classes(of, classes, fixes, tuple(of_each[np.maximum(rows, -1)] for rows in balances))


def distinct(numbers: Array, end: int) -> tuple[Array, Array]:
    """The numbers that occur, in order, and how often each does; all are at least 0 and below `end`."""
    if end > 8 * numbers.size + 1024:
        return np.unique(numbers, return_counts=True)
    counts = np.bincount(numbers, minlength=end)
    found = np.flatnonzero(counts)
    return found, counts[found]


def components(count: int, a: Array, b: Array) -> Array:
    """Connected components of `count` nodes with edges a[i] - b[i]: the smallest member of each, int32[count].

    Hooking with pointer jumping (Shiloach and Vishkin, 1982), vectorised: O(log n) rounds on chains.
    """
    root = np.arange(count, dtype=np.int32)
    while a.size:
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low != high
        if not apart.any():
            break
        a, b, low, high = a[apart], b[apart], low[apart], high[apart]
        np.minimum.at(root, high, low)
        while True:
            above = root[root]
            if np.array_equal(above, root):
                break
            root = above
    return root


def _first_along(labels: Array, other: Sequence[int]) -> Array:
    """The first of `labels` along every axis on which something of the shape `other` is broadcast."""
    return labels[tuple(slice(0, 1) if n == 1 else slice(None) for n in other)]


def as_field(labels: Array, axis: int, rank: int) -> Array:
    """Give labels as many axes as their tensor has: a line is laid along its axis.

    Args:
        labels: the labels of an axis.
        axis: the axis.
        rank: how many axes the tensor has.

    Returns:
        int[..., size, ...], with 1 on all other axes if `labels` is a line.
    """
    if labels.ndim == rank and rank != 1:
        return labels
    shape = [1] * rank
    shape[axis] = labels.size
    return labels.reshape(shape)


def as_line(labels: Array, axis: int) -> Array:
    """`labels` of `axis` as a line where they vary on no other axis, else unchanged."""
    if labels.ndim > 1 and labels.size == labels.shape[axis]:
        return labels.reshape(-1)
    return labels


def varying_axes(labels: Array) -> list[int]:
    """The axes along which `labels` is not constant."""
    found = []
    for axis in range(labels.ndim):
        if labels.shape[axis] > 1:
            first = labels[(slice(None),) * axis + (slice(0, 1),)]
            if (labels != first).any():
                found.append(axis)
            else:
                labels = first
    return found
