"""Tables from widths to the time of one operator: what is measured, and what lies between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np
import onnx

from onnxprune.cost.latency import profiler, store
from onnxprune.cost.latency.operators import Letter, Operator
from onnxprune.runtime import Setting
from onnxprune.typing import Array

# Kernels work in blocks of at most this: lengths that are multiples of it are on the smooth line.
BLOCK = 16
# A letter that has no more lengths than this is measured at all of them.
ALL = 24
# Most multiples of BLOCK on the line of a letter.
LINE = 24
# Where the two letters of an operator are measured together: fractions of their lengths.
LEVELS = (1.0, 0.6, 0.3, 0.1)

Lengths = tuple[int, ...]


def reachable(letter: Letter) -> Array:
    """int[n]: the lengths that a letter can have, rising."""
    return np.arange(letter.base % letter.step or letter.step, letter.base + 1, letter.step)


def smooth(letter: Letter) -> Array:
    """int[n]: lengths between which time is a straight line, but for the blocks of the kernel; all below a block."""
    lengths = reachable(letter)
    if len(lengths) <= ALL:
        return lengths
    aligned = lengths[lengths % BLOCK == 0]
    if len(aligned) < 4:
        return np.unique(lengths[np.linspace(0, len(lengths) - 1, LINE).round().astype(int)])
    most = LINE // 3 if letter.is_large else LINE
    chosen = aligned[np.linspace(0, len(aligned) - 1, min(most, len(aligned))).round().astype(int)]
    return np.unique(np.concatenate([lengths[lengths < BLOCK], chosen]))


def windows(letter: Letter) -> list[Array]:
    """Two stretches of a block each, at full and at half length, where every length is measured.

    One, at full length, where the operator is large: blocks that are not full hardly count then.
    """
    lengths = reachable(letter)
    if len(lengths) <= ALL or (lengths % BLOCK == 0).sum() < 4:
        return []
    top = int(lengths[-1])
    half = max(2 * BLOCK, top // 2 // BLOCK * BLOCK)
    ends = sorted({half, top} if top - half >= BLOCK and not letter.is_large else {top})
    return [lengths[(lengths > end - BLOCK) & (lengths <= end) & (lengths % BLOCK != 0)] for end in ends]


def plan(operator: Operator) -> list[Lengths]:
    """The lengths at which an operator is measured."""
    base = operator.base
    found: dict[Lengths, None] = {base: None}
    for j, letter in enumerate(operator.letters):
        for length in np.concatenate([smooth(letter), *windows(letter)]):
            found[*base[:j], int(length), *base[j + 1 :]] = None
    for lengths in product(*(levels(letter) for letter in operator.letters)) if len(base) > 1 else ():
        found[tuple(map(int, lengths))] = None
    return list(found)


def levels(letter: Letter) -> Array:
    """int[n]: a few of the smooth lengths, for measuring letters together."""
    lengths = smooth(letter)
    return np.unique([lengths[np.abs(lengths - share * letter.base).argmin()] for share in LEVELS])


@dataclass(frozen=True, eq=False)
class Table:
    """The times of an operator.

    Attributes:
        letters: what can shrink.
        seconds: lengths of the letters -> time.
    """

    letters: tuple[Letter, ...]
    seconds: dict[Lengths, float] = field(repr=False)

    def __call__(self, lengths: Array) -> Array:
        """float64[...]: seconds at int[..., letters].

        Every letter has a line, measured with the others at full length: straight between smooth lengths, times what
        the blocks of the kernel cost. How letters work together is measured on a coarse grid.
        """
        return self._product(np.asarray(lengths, float)) * self._unit

    def _product(self, lengths: Array) -> Array:
        found = self._together(lengths)
        for j, (line, coarse) in enumerate(self._lines):
            found = found * line(lengths[..., j]) / coarse(lengths[..., j])
        return np.asarray(found)

    @cached_property
    def _grid(self) -> tuple[list[Array], Array]:
        """The coarse grid, and the times on it."""
        grid = [levels(letter) for letter in self.letters]
        values = np.array([self.seconds[tuple(map(int, n))] for n in product(*grid)])
        return grid, values.reshape([len(points) for points in grid])

    @cached_property
    def _unit(self) -> float:
        """Makes the time at full length what was measured."""
        return self.seconds[self.base] / float(self._product(np.array(self.base, float)))

    @cached_property
    def base(self) -> Lengths:
        """The lengths where nothing is removed."""
        return tuple(letter.base for letter in self.letters)

    def _at(self, j: int, length: int) -> float:
        return self.seconds[*self.base[:j], int(length), *self.base[j + 1 :]]

    @cached_property
    def _lines(self) -> list[tuple[Callable[[Array], Array], Callable[[Array], Array]]]:
        return [(self._line(j), self._coarse(j)) for j in range(len(self.letters))]

    def _coarse(self, j: int) -> Callable[[Array], Array]:
        points = levels(self.letters[j]) if len(self.letters) > 1 else np.array([self.base[j]])
        return _straight(points, [self._at(j, n) for n in points])

    def _line(self, j: int) -> Callable[[Array], Array]:
        letter = self.letters[j]
        points = smooth(letter)
        line = _straight(points, [self._at(j, n) for n in points])
        stretches = [(w, np.array([self._at(j, n) for n in w]) / line(w)) for w in windows(letter) if len(w)]
        if not stretches:
            return line
        shares = np.ones((len(stretches), BLOCK))
        for row, (where, excess) in zip(shares, stretches, strict=True):
            row[where % BLOCK] = excess
        inverse = np.array([1 / where.mean() for where, _ in stretches])[::-1]  # rising

        def stepped(lengths: Array) -> Array:
            residue = np.round(lengths).astype(int) % BLOCK
            # What filling up a block costs falls with the length; what a slower kernel costs stays.
            share = np.clip((1 / np.maximum(lengths, 1) - inverse[0]) / max(np.ptp(inverse), 1e-12), 0, 1)
            excess = shares[-1][residue] * (1 - share) + shares[0][residue] * share
            return np.asarray(line(lengths) * np.where(lengths < BLOCK, 1.0, excess))

        return stepped

    def _together(self, lengths: Array) -> Array:
        """Multilinear between the points of the coarse grid, and on beyond them."""
        if len(self.letters) == 1:
            return np.full(lengths.shape[:-1], self.seconds[self.base])
        grid, values = self._grid
        places = [_place(points, lengths[..., j]) for j, points in enumerate(grid)]
        found = np.zeros(lengths.shape[:-1])
        for corner in product((0, 1), repeat=len(grid)):
            share = np.ones(lengths.shape[:-1])
            for (_, fraction), side in zip(places, corner, strict=True):
                share = share * (fraction if side else 1 - fraction)
            index = tuple(
                np.minimum(low + side, len(g) - 1) for (low, _), side, g in zip(places, corner, grid, strict=True)
            )
            found += share * values[index]
        return np.maximum(found, values.min() * 0.1)


def _straight(points: Array, values: Sequence[float]) -> Callable[[Array], Array]:
    """Straight between points, and on beyond them."""
    known = np.array(values, float)
    if len(known) == 1:
        return lambda lengths: np.full(np.shape(lengths), known[0])
    slopes = np.diff(known) / np.diff(points)

    def line(lengths: Array) -> Array:
        low = np.clip(np.searchsorted(points, lengths, "right") - 1, 0, len(slopes) - 1)
        return np.maximum(known[low] + slopes[low] * (lengths - points[low]), known.min() * 0.1)

    return line


def _place(points: Array, lengths: Array) -> tuple[Array, Array]:
    """The point below each length, and how far it is to the next; beyond 0 to 1 beyond the points."""
    low = np.clip(np.searchsorted(points, lengths, "right") - 1, 0, max(0, len(points) - 2))
    gap = points[np.minimum(low + 1, len(points) - 1)] - points[low]
    return low, (lengths - points[low]) / np.maximum(gap, 1)


def proportional(operator: Operator) -> Table:
    """A table for what cannot be measured alone: time in proportion to all lengths."""
    base = operator.base
    return Table(operator.letters, {n: math.prod(n) / math.prod(base) for n in plan(operator)})


def tables(
    operators: Iterable[Operator],
    setting: Setting,
    like: onnx.ModelProto,
    progress: Callable[[str], object] = lambda stage: None,
) -> list[Table]:
    """The tables of operators, from the cache where it has them; operators of one signature share one.

    Args:
        operators: the operators.
        setting: what they run on.
        like: a model of the same operator sets.
        progress: is told what is measured.
    """
    operators = list(operators)
    keys = [store.key(operator.signature, setting) for operator in operators]
    known: dict[str, Table] = {}
    missing: dict[str, Operator] = {}
    for key, operator in zip(keys, operators, strict=True):
        if key not in known and key not in missing:
            stored = store.read_table(key, [*plan(operator)])
            if stored is None:
                missing[key] = operator
            else:
                known[key] = Table(operator.letters, stored)
    points = [(operator, lengths) for operator in missing.values() for lengths in plan(operator)]
    if points:
        progress(f"timing {len(missing)} operators at {len(points)} widths")
    seconds = iter(profiler.measure_operators(points, setting, like))
    for key, operator in missing.items():
        measured = {lengths: float(next(seconds)) for lengths in plan(operator)}
        if all(map(math.isfinite, measured.values())):
            store.write(key, operator.signature, setting, measured)
            known[key] = Table(operator.letters, measured)
        else:
            known[key] = proportional(operator)
    return [known[key] for key in keys]
