"""Closed-form fits of a layer from moments of its inputs and of the outputs that it should give.

With x the rows that enter the pruned layer, y the rows that left the original one, S and m the centred second moment
and mean of x, C the centred cross moment of x and y, and W the sliced weights [D, O] (a batch of them for groups):

* `bias`: W stays, b' = m_y - W m. Exact where what was removed was constant.
* `affine`: every output is scaled to the deviation that it had, and shifted to its mean: what BatchNormalization
  re-estimation does, where that is folded.
* `merge`: each original channel is expressed by the channels that remain (ridge regression over all positions of the
  kernel), and so folded into the weights. Neuron merging: Kim et al., "Neuron Merging: Compensating for Pruned
  Neurons", 2020, with the data's covariance in place of the weights' cosine.
* `least-squares`: W' = (S + l I)^-1 (C + l W): ridge regression toward the sliced weights, l = damping * mean(diag S).
  Reconstruction as in He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017, eq. 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from onnxprune.labels import Array

# Ridge weights, relative to the mean of the moment's diagonal, that are tried; held-out samples choose.
DAMPINGS = (1e-3, 1e-2, 1e-1)


@dataclass
class Moments:
    """Sums over rows, per group.

    Attributes:
        count: number of rows.
        x: sums of the inputs, [groups, D].
        y: sums of the outputs, [groups, O].
        xx: sums of products of two inputs, [groups, D, D].
        xy: sums of products of an input and an output, [groups, D, O].
        yy: sums of squares of the outputs, [groups, O].
    """

    count: int
    x: Array
    y: Array
    xx: Array
    xy: Array
    yy: Array

    @classmethod
    def zero(cls, groups: int, inputs: int, outputs: int) -> Self:
        """No rows."""
        return cls(
            0,
            np.zeros((groups, inputs)),
            np.zeros((groups, outputs)),
            np.zeros((groups, inputs, inputs)),
            np.zeros((groups, inputs, outputs)),
            np.zeros((groups, outputs)),
        )

    def add(self, x: Array, y: Array) -> None:
        """Add rows [groups, n, D] and [groups, n, O].

        Products are in the rows' own precision, sums over batches in double.
        """
        turned = x.transpose(0, 2, 1)
        self.count += x.shape[1]
        self.x += x.sum(axis=1, dtype=np.float64)
        self.y += y.sum(axis=1, dtype=np.float64)
        self.xx += turned @ x
        self.xy += turned @ y
        self.yy += np.square(y).sum(axis=1, dtype=np.float64)

    def centred(self, *, shifted: bool) -> tuple[Array, Array, Array, Array, Array]:
        """(S, C, variance of y, m, m_y); about zero where nothing can be shifted."""
        n = max(self.count, 1)
        mean, target = self.x / n, self.y / n
        if not shifted:
            mean, target = np.zeros_like(mean), np.zeros_like(target)
        second = self.xx / n - mean[:, :, None] * mean[:, None, :]
        cross = self.xy / n - mean[:, :, None] * target[:, None, :]
        return second, cross, self.yy / n - np.square(target), mean, target


@dataclass(frozen=True)
class Evidence:
    """What a fit may look at.

    Attributes:
        moments: of the pruned layer's rows and the original's outputs.
        channels: for `merge` only, of the pruned rows' channels and the original's, over all kernel positions.
        full: the original's weights of the outputs that remain, [groups, D of the original, O].
        sliced: the pruned layer's weights, [groups, D, O].
        shifted: whether the layer has a bias.
        damping: ridge weight relative to the mean of the moment's diagonal.
    """

    moments: Moments
    channels: Moments | None
    full: Array
    sliced: Array
    shifted: bool
    damping: float


# (weights [groups, D, O], what is added to the outputs [groups, O]) of a layer.
Fitted = tuple[Array, Array]
Fit = Callable[[Evidence], Fitted]


def bias(evidence: Evidence) -> Fitted:
    """Shift every output to the mean that it had."""
    _, _, _, mean, target = evidence.moments.centred(shifted=evidence.shifted)
    return evidence.sliced, target - _times(mean, evidence.sliced)


def affine(evidence: Evidence) -> Fitted:
    """Scale every output to the deviation that it had, and shift it to its mean."""
    second, _, spread, mean, target = evidence.moments.centred(shifted=evidence.shifted)
    found = (evidence.sliced * (second @ evidence.sliced)).sum(axis=1)
    floor = 1e-6 * spread.mean() + 1e-30
    weight = evidence.sliced * np.sqrt((spread + floor) / (np.maximum(found, 0) + floor))[:, None, :]
    return weight, target - _times(mean, weight)


def merge(evidence: Evidence) -> Fitted:
    """Express the original's channels by those that remain."""
    if evidence.channels is None:
        raise ValueError("merging needs the moments of the channels")
    second, cross, _, _, _ = evidence.channels.centred(shifted=evidence.shifted)
    groups, remaining, channels = cross.shape
    size = evidence.full.shape[1] // channels
    mixing = _solve(second, cross, np.zeros_like(cross), evidence.damping)
    full = evidence.full.reshape(groups, channels, -1)
    weight = (mixing @ full).reshape(groups, remaining * size, -1)
    _, _, _, mean, target = evidence.moments.centred(shifted=evidence.shifted)
    return weight, target - _times(mean, weight)


def least_squares(evidence: Evidence) -> Fitted:
    """Ridge regression toward the sliced weights."""
    second, cross, _, mean, target = evidence.moments.centred(shifted=evidence.shifted)
    weight = _solve(second, cross, evidence.sliced, evidence.damping)
    return weight, target - _times(mean, weight)


FITS: Mapping[str, Fit] = {"bias": bias, "affine": affine, "merge": merge, "least-squares": least_squares}
# The fits that a ridge weight enters.
RIDGE = frozenset({"merge", "least-squares"})


def _times(rows: Array, weight: Array) -> Array:
    return np.einsum("gd,gdo->go", rows, weight)


def _solve(second: Array, cross: Array, toward: Array, damping: float) -> Array:
    """(S + l I)^-1 (C + l W) per group, by Cholesky; least squares where S is not positive in floating point."""
    size = second.shape[-1]
    ridge = damping * np.maximum(np.trace(second, axis1=1, axis2=2) / size, 1e-12)[:, None, None]
    left, right = second + ridge * np.eye(size), cross + ridge * toward
    try:
        factor = np.linalg.cholesky(left)
        return np.linalg.solve(factor.transpose(0, 2, 1), np.linalg.solve(factor, right))
    except np.linalg.LinAlgError:
        return np.stack([np.linalg.lstsq(a, b, rcond=None)[0] for a, b in zip(left, right, strict=True)])
