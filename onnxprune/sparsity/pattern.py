"""Patterns of zeros: which elements of a matrix of weights may stay, given a score for each.

Scores are [groups, D, O]: D inputs of a product, those of all channels at one position of a kernel side by side, and O
outputs. Along D, N:M and blocks start again at every position of the kernel.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.names import COMPARISONS
from onnxprune.typing import Array

EXAMPLES = "unstructured, 2:4 (or any N:M), or block RxC, as in 'block 4x4'"
# Widest M, and longest side of a block.
LONGEST = 1024
# Inputs of a part of a choice that is made in parts, as in the published SparseGPT.
PART = 128


@dataclass(frozen=True)
class Pattern(ABC):
    """Where zeros may lie."""

    @property
    def share(self) -> float | None:
        """The share of zeros that the pattern itself demands; None where it takes any."""
        return None

    def bounds(self, size: int, channels: int) -> Sequence[int]:
        """The inputs, of `size`, at which a choice may be cut in parts: the first of each part."""
        return range(0, size, PART)

    @abstractmethod
    def keep(self, scores: Array, share: float, *, channels: int) -> Array:
        """Choose the elements that stay.

        Args:
            scores: [groups, D, O]; the lowest go first. What scores zero goes before all others.
            share: of the elements that go.
            channels: inputs of D that lie side by side.

        Returns:
            bool[groups, D, O], true where an element stays.
        """


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Zeros anywhere.

    Attributes:
        per: what elements are compared with: those of one "output", or of the whole "layer".
    """

    per: str = "output"

    def keep(self, scores: Array, share: float, *, channels: int) -> Array:
        """The highest scores of every output, or of the layer."""
        if self.per == "output":
            return _highest(scores, share, axis=1)
        return _highest(scores.reshape(1, -1), share, axis=1).reshape(scores.shape)

    def __str__(self) -> str:
        return "unstructured"


@dataclass(frozen=True)
class NofM(Pattern):
    """At most N of M neighbouring inputs of an output differ from zero; the inputs that fill up the last M are zeros.

    Attributes:
        n: how many of them stay.
        m: how many neighbours are looked at.
    """

    n: int
    m: int

    @property
    def share(self) -> float:
        """The share of zeros where M divides the channels."""
        return 1 - self.n / self.m

    def keep(self, scores: Array, share: float, *, channels: int) -> Array:
        """The N highest of every M."""
        parts = _segments(scores, channels, self.m)  # [groups, positions, segments, m, O]
        order = np.argsort(np.argsort(-parts, axis=3, kind="stable"), axis=3, kind="stable")
        return _joined(order < self.n, scores.shape, channels)

    def bounds(self, size: int, channels: int) -> Sequence[int]:
        """Every M."""
        return [first + i for first in range(0, size, channels) for i in range(0, channels, self.m)]

    def holds(self, value: Array, *, channels: int) -> bool:
        """Whether a matrix has the pattern."""
        parts = _segments(value != 0, channels, self.m)
        return bool((parts.sum(axis=3) <= self.n).all())

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class Block(Pattern):
    """Zeros in whole blocks of outputs x inputs; blocks at the edges are smaller.

    Attributes:
        rows: outputs of a block.
        columns: inputs of a block.
        per: as of `Unstructured`; an "output" here is a row of blocks.
    """

    rows: int
    columns: int
    per: str = "output"

    def keep(self, scores: Array, share: float, *, channels: int) -> Array:
        """The blocks with the highest root mean square of the scores."""
        squares = _segments(np.square(scores), channels, self.columns).sum(axis=3)
        counts = _segments(np.ones_like(scores), channels, self.columns).sum(axis=3)
        groups, positions, segments, outputs = squares.shape
        blocks, sizes = (self._by_rows(x.reshape(groups, -1, outputs)) for x in (squares, counts))
        kept = Unstructured(self.per).keep(np.sqrt(blocks / sizes), share, channels=segments)
        wide = np.repeat(kept, self.rows, axis=2)[:, :, :outputs].reshape(groups, positions, segments, 1, outputs)
        return _joined(
            np.broadcast_to(wide, (groups, positions, segments, self.columns, outputs)), scores.shape, channels
        )

    def bounds(self, size: int, channels: int) -> Sequence[int]:
        """Every position of a kernel."""
        return range(0, size, channels)

    def _by_rows(self, x: Array) -> Array:
        """[groups, D, O] summed over the outputs of every block."""
        return np.add.reduceat(x, np.arange(0, x.shape[2], self.rows), axis=2)

    def __str__(self) -> str:
        return f"block {self.rows}x{self.columns}"


def pattern_of(text: str, per: str = "output") -> Pattern:
    """Read a pattern as people write it.

    Args:
        text: "unstructured", "2:4" or another N:M, "block 4x4".
        per: what scores are compared with, "output" or "layer".

    Returns:
        The pattern.

    Raises:
        UsageError: it is none.
    """
    if per not in COMPARISONS:
        raise UsageError(f"--per: {per!r} is none of {', '.join(COMPARISONS)}")
    within = "layer" if per == "layer" else "output"
    if text == "unstructured":
        return Unstructured(within)
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found and 0 < int(found[1]) < int(found[2]) <= LONGEST:
        return NofM(int(found[1]), int(found[2]))
    found = re.fullmatch(r"block[ :]?(\d+)x(\d+)", text)
    if found and all(0 < int(n) <= LONGEST for n in found.groups()):
        return Block(int(found[1]), int(found[2]), within)
    raise UsageError(f"--pattern: {text!r} is no pattern", hint=f"write {EXAMPLES}")


def _highest(scores: Array, share: float, *, axis: int) -> Array:
    """Keep all but the `share` lowest along an axis: at least one, and the first of equals."""
    size = scores.shape[axis]
    away = min(size - 1, math.floor(share * size + 0.5 - 1e-9))
    order = np.argsort(scores, axis=axis, kind="stable")
    keep = np.ones(scores.shape, bool)
    np.put_along_axis(keep, np.take(order, np.arange(away), axis=axis), False, axis=axis)
    return keep


def _segments(x: Array, channels: int, length: int) -> Array:
    """[groups, D, O] as [groups, positions, segments, length, O], filled up with zeros."""
    groups, size, outputs = x.shape
    split = x.reshape(groups, size // channels, channels, outputs)
    extra = -channels % length
    split = np.pad(split, ((0, 0), (0, 0), (0, extra), (0, 0))) if extra else split
    return split.reshape(groups, size // channels, (channels + extra) // length, length, outputs)


def _joined(parts: Array, shape: tuple[int, ...], channels: int) -> Array:
    """The inverse of `_segments`."""
    groups, size, outputs = shape
    split = parts.reshape(groups, size // channels, -1, outputs)[:, :, :channels]
    return np.ascontiguousarray(split).reshape(shape)
