"""Means and centred second moments of arrays, added up part by part: nothing is kept but the sums.

The moments of two sets of samples, a share s of which lies in the second, are merged as in Chan, Golub and LeVeque,
"Algorithms for Computing the Sample Variance", 1983:

    mean = (1 - s) m1 + s m2        second = (1 - s) S1 + s S2 + s (1 - s) (m2 - m1)(m2 - m1)'

A mean that is large against the deviation costs no digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from onnxprune.typing import Array

# Elements that are looked at in one go: what is computed on the way stays in the cache.
SLAB = 1 << 18


def _merged(one: Array, other: Array, share: float, between: Array | float = 0.0) -> Array:
    """A mean, or a second moment, over two sets of samples.

    Args:
        one: that of the first set.
        other: that of the second.
        share: how much of all samples the second set has.
        between: for a second moment, the product of the differences of both sets' means.
    """
    made = np.asarray(other - one)
    made *= share
    made += one
    if np.any(between):
        made += share * (1 - share) * between
    return made


def _outer(x: Array, y: Array) -> Array | float:
    """The products of two vectors' entries, for every group; nothing where one of them is zero, as means often are."""
    return x[:, :, None] * y[:, None, :] if x.any() and y.any() else 0.0


class Moments:
    """Mean and variance of every entry of a field, over everything that was added; float64.

    Attributes:
        count: samples of every entry.
        mean: float64[shape].
        variance: float64[shape], mean squared deviation from the mean.
    """

    def __init__(self, shape: Sequence[int], precision: type[np.floating] | None = None) -> None:
        """Start without samples.

        Args:
            shape: of the field: that of the arrays that are added, with 1 on every axis to be averaged over.
            precision: in which the moments of a part are computed; that of the part where None, at least float32.
        """
        self.shape = tuple(shape)
        self.count = 0
        self.axes = tuple(a for a, n in enumerate(shape) if n == 1)
        self.mean, self.variance = np.zeros(self.shape), np.zeros(self.shape)
        self._precision = precision

    def add(self, x: Array) -> bool:
        """Take in an array; returns whether it has the sizes of the field."""
        if x.ndim != len(self.shape) or any(n not in (1, m) for n, m in zip(self.shape, x.shape, strict=True)):
            return False
        rows = max(1, SLAB // max(1, x.size // max(1, len(x)))) if x.ndim and self.shape[0] == 1 else len(x)
        for start in range(0, len(x), max(1, rows)):
            part = x[start : start + rows]
            plain = part.dtype.kind == "f" and part.dtype.itemsize >= 4
            self._add(part.astype(self._precision or (part.dtype if plain else np.float32), copy=False))
        return True

    def _add(self, x: Array) -> None:
        """Take in a part of an array, in the precision that its moments are computed in."""
        count = x.size // math.prod(self.shape)
        mean = x.mean(axis=self.axes, keepdims=True)
        variance = np.square(x - mean).sum(axis=self.axes, keepdims=True) / count
        self.count += count
        share, step = count / self.count, mean.astype(np.float64) - self.mean
        self.mean = self.mean + share * step
        self.variance = _merged(self.variance, variance, share, np.square(step))

    @property
    def norm(self) -> Array:
        """Root of the mean square: the norm, for any number of samples."""
        return np.sqrt(self.variance + np.square(self.mean))


@dataclass(frozen=True, eq=False)
class PairMoments:
    """Means, and centred moments, of inputs x [groups, n, D] and outputs y [groups, n, O].

    Attributes:
        count: number of rows.
        x: means of the inputs, [groups, D].
        y: means of the outputs, [groups, O].
        xx: products of two inputs, [groups, D, D].
        xy: products of an input and an output, [groups, D, O].
        yy: squares of the outputs, [groups, O].
    """

    count: int
    x: Array
    y: Array
    xx: Array
    xy: Array
    yy: Array

    @classmethod
    def of(cls, x: Array, y: Array, *, shifted: bool) -> Self:
        """Moments of rows, about zero where nothing can be shifted; products are in the rows' own precision."""
        means = [v.mean(axis=1, dtype=np.float64) * shifted for v in (x, y)]
        x, y = (v - m[:, None].astype(v.dtype) for v, m in zip((x, y), means, strict=True))
        count, turned = x.shape[1], x.transpose(0, 2, 1)
        second, cross = (np.divide(turned @ v, count, dtype=np.float64) for v in (x, y))
        return cls(
            count=count, x=means[0], y=means[1], xx=second, xy=cross, yy=np.square(y, dtype=np.float64).mean(axis=1)
        )

    def __add__(self, other: PairMoments) -> PairMoments:
        """The moments of both sets of rows."""
        count = self.count + other.count
        share, x, y = other.count / count, other.x - self.x, other.y - self.y
        return PairMoments(
            count=count,
            x=self.x + share * x,
            y=self.y + share * y,
            xx=_merged(self.xx, other.xx, share, _outer(x, x) if self.xx.size else 0.0),
            xy=_merged(self.xy, other.xy, share, _outer(x, y)),
            yy=_merged(self.yy, other.yy, share, np.square(y)),
        )

    def times(self, weight: Array) -> Array:
        """The product of `xx` with weights [groups, D, n]."""
        return np.asarray(self.xx @ weight)

    @property
    def size(self) -> Array:
        """The mean of the diagonal of `xx`, [groups, 1, 1]."""
        return np.asarray(np.trace(self.xx, axis1=1, axis2=2)[:, None, None] / self.xx.shape[-1])


@dataclass(frozen=True, eq=False)
class WidePairMoments(PairMoments):
    """Moments of inputs that are wider than there are rows of them: the rows stand for their products.

    Attributes:
        half: centred inputs over the root of their number, [groups, n, D]: xx = half' half, which is left empty.
    """

    half: Array

    @classmethod
    def of(cls, x: Array, y: Array, *, shifted: bool) -> Self:
        """Moments of rows, about zero where nothing can be shifted."""
        means = [v.mean(axis=1, dtype=np.float64) * shifted for v in (x, y)]
        x, y = (v - m[:, None].astype(v.dtype) for v, m in zip((x, y), means, strict=True))
        count = x.shape[1]
        return cls(
            count=count,
            x=means[0],
            y=means[1],
            xx=np.zeros((len(x), 0, 0)),
            xy=(x.transpose(0, 2, 1) @ y).astype(np.float64) / count,
            yy=np.square(y, dtype=np.float64).mean(axis=1),
            half=x.astype(np.float64) / math.sqrt(count),
        )

    def __add__(self, other: PairMoments) -> PairMoments:
        """The moments of both sets of rows."""
        assert isinstance(other, WidePairMoments)
        added = super().__add__(other)
        share = other.count / added.count
        between = math.sqrt(share * (1 - share)) * (other.x - self.x)[:, None]
        half = [math.sqrt(1 - share) * self.half, math.sqrt(share) * other.half, between]
        return WidePairMoments(**{**vars(added), "half": np.concatenate(half, axis=1)})

    def times(self, weight: Array) -> Array:
        """The product of the second moment with weights [groups, D, n]."""
        return np.asarray(self.half.transpose(0, 2, 1) @ (self.half @ weight))

    @property
    def size(self) -> Array:
        """The mean of the second moment's diagonal, [groups, 1, 1]."""
        return np.asarray(np.square(self.half).sum(axis=(1, 2), keepdims=True) / self.half.shape[-1])
