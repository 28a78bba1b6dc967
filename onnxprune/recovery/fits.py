"""Closed-form fits of a layer from moments of its inputs and of the outputs that it should give.

With x the rows that enter the pruned layer, y the rows that should leave it, S and m the centred second moment and mean
of x, C the centred cross moment of x and y, and W the sliced weights [D, O] (a batch of them for groups):

* `bias`: W stays, b' = m_y - W m. Exact where what was removed was constant.
* `affine`: every output is scaled to the deviation that it had, and shifted to its mean: what BatchNormalization
  re-estimation does, where that is folded.
* `merge`: each original channel is expressed by the channels that remain (ridge regression over all positions of the
  kernel), and so folded into the weights. Neuron merging: Kim et al., "Neuron Merging: Compensating for Pruned
  Neurons", 2020, with the data's covariance in place of the weights' cosine.
* `least-squares`: W' = (S + l I)^-1 (C + l W): ridge regression toward the sliced weights, l = damping * mean(diag S).
  Reconstruction as in He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017, eq. 1. Where an
  activation behind the layer is flat over a range, any output in it is as good as y: regression in rounds, each toward
  the nearest good output to what the one before gave (Zhang et al. 2015, section 3.2, has such a scheme for Relu).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self, TypeVar

import numpy as np

from onnxprune.layers import Cholesky, LowRankFactor, quick_factor
from onnxprune.runtime import PairMoments, WidePairMoments
from onnxprune.typing import Array

# Ridge weights, relative to the mean of the moment's diagonal, that are tried; held-out samples choose.
DAMPINGS = (1e-3, 1e-2, 1e-1)
# Most regressions after the first, before an activation that is flat somewhere.
ROUNDS = 4
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that a layer is fitted to.

    Attributes:
        x: inputs of the pruned layer, [groups, n, D].
        y: outputs that it should give, [groups, n, O].
        bounds: the least and the largest outputs that are as good as `y`, both [groups, n, O]; None where nothing but
            `y` is.
        whole: inputs of the original's layer, for `merge` alone.
    """

    x: Array
    y: Array
    bounds: tuple[Array, Array] | None = None
    whole: Array | None = None

    @classmethod
    def around(cls, x: Array, y: Array, dead_zone: tuple[Array, Array] | None, whole: Array | None = None) -> Self:
        """Rows whose outputs may lie so far below and above `y` and be as good, both [groups, n, O]."""
        return cls(x, y, None if dead_zone is None else (y + dead_zone[0], y + dead_zone[1]), whole)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Self:
        """The rows of all parts."""

        def put(values: Sequence[Array | None]) -> Array | None:
            return None if values[0] is None else np.concatenate([v for v in values if v is not None], axis=1)

        x, y, whole = (put([getattr(p, name) for p in parts]) for name in ("x", "y", "whole"))
        assert x is not None and y is not None
        ends = [p.bounds for p in parts if p.bounds is not None]
        low, high = (np.concatenate([e[side] for e in ends], 1) if ends else None for side in (0, 1))
        return cls(x, y, None if low is None or high is None else (low, high), whole)

    def parted(self, count: int) -> tuple[Rows, Rows]:
        """The first so many rows, and the others; they share memory with these."""

        def part(rows: slice) -> Rows:
            bounds = None if self.bounds is None else (self.bounds[0][:, rows], self.bounds[1][:, rows])
            return Rows(self.x[:, rows], self.y[:, rows], bounds, None if self.whole is None else self.whole[:, rows])

        return part(slice(count)), part(slice(count, None))

    def nearest(self, weight: Array, shift: Array) -> tuple[Array, Array]:
        """(what a layer gives for the rows, the good outputs that are nearest to it)."""
        found = self.x @ weight.astype(np.float32)
        found += shift[:, None].astype(np.float32)
        return found, self.y if self.bounds is None else np.clip(found, *self.bounds)

    def error(self, fitted: Fitted) -> float:
        """Squared error of the outputs, relative to the squared deviation of `y` from its mean."""
        found, wanted = self.nearest(*fitted)
        return float(np.square(wanted - found, dtype=np.float64).sum()) / self._spread

    @cached_property
    def _spread(self) -> float:
        """The squared deviation of `y` from its mean."""
        return max(float(np.square(self.y - self.y.mean(axis=1, keepdims=True), dtype=np.float64).sum()), 1e-30)


@dataclass(frozen=True, eq=False)
class FitProblem:
    """What a fit may look at.

    Attributes:
        moments: of the pruned layer's rows and the outputs that it should give.
        channels: for `merge` only, of the pruned rows' channels and the original's, over all kernel positions.
        full: the original's weights of the outputs that remain, [groups, D of the original, O].
        sliced: the pruned layer's weights, [groups, D, O].
        shifted: whether the layer has a bias.
        damping: ridge weight relative to the mean of the moment's diagonal.
    """

    moments: PairMoments
    channels: PairMoments | None
    full: Array
    sliced: Array
    shifted: bool
    damping: float = 0.0

    @cached_property
    def _ridge(self) -> tuple[Cholesky | LowRankFactor, Array]:
        if isinstance(self.moments, WidePairMoments):
            added = self.damping * np.maximum(self.moments.size, 1e-12)
            return LowRankFactor(self.moments.half, added), added
        return _damped(self.moments.xx, self.damping)

    def regressed(self, cross: Array) -> Array:
        """The weights whose outputs have these cross moments with the inputs, [groups, D, O], by ridge regression."""
        factor, added = self._ridge
        return np.asarray(factor.solve(cross + added * self.sliced), np.float64)


# (weights [groups, D, O], what is added to the outputs [groups, O]) of a layer.
Fitted = tuple[Array, Array]
ClosedForm = Callable[[FitProblem], Fitted]


@dataclass(frozen=True)
class Method:
    """A recovery method.

    Attributes:
        name: the word that users choose it by.
        closed_form: parameters from moments.
        needs_data: only calibration data tell the moments; other methods fall back on the weights
            (`recovery/data_free.py`).
        ridge: a ridge weight enters the closed form; several are tried.
        dead_zone: regress in rounds where an activation behind the layer is flat.
        merges: express removed channels by those that remain, which takes the moments of the original's channels.
        sequential: fit each layer on the values that the pruned model gives it, layers in front of it fitted already;
            otherwise on the remaining part of the original's input, for which one run of the original is enough.
        of_norms: fit scale and bias of norms in place of weights of layers.
        joint: fit all weights of a branch together, too (`recovery/joint.py`).
    """

    name: str
    closed_form: ClosedForm
    needs_data: bool = True
    ridge: bool = False
    dead_zone: bool = False
    merges: bool = False
    sequential: bool = True
    of_norms: bool = False
    joint: bool = False


# Name -> recovery method.
METHODS: dict[str, Method] = {}


def method(name: str, **traits: bool) -> Callable[[ClosedForm], ClosedForm]:
    """Register a closed form as a recovery method.

    Args:
        name: the word that users choose it by.
        traits: fields of `Method`.

    Returns:
        The decorator, which leaves the function as it is.
    """

    def register(closed_form: ClosedForm) -> ClosedForm:
        METHODS[name] = Method(name, closed_form, **traits)
        return closed_form

    return register


@method("bias", needs_data=False)
def bias(problem: FitProblem) -> Fitted:
    """Shift every output to the mean that it had."""
    return problem.sliced, _shift(problem, problem.sliced)


@method("batchnorm", of_norms=True)
@method("affine")
def affine(problem: FitProblem) -> Fitted:
    """Scale every output to the deviation that it had, and shift it to its mean."""
    spread = problem.moments.yy
    found = (problem.sliced * problem.moments.times(problem.sliced)).sum(axis=1)
    floor = 1e-6 * spread.mean() + 1e-30
    weight = problem.sliced * np.sqrt((spread + floor) / (np.maximum(found, 0) + floor))[:, None, :]
    return weight, _shift(problem, weight)


@method("merge", needs_data=False, ridge=True, merges=True)
def merge(problem: FitProblem) -> Fitted:
    """Express the original's channels by those that remain."""
    if problem.channels is None:
        raise ValueError("merging needs the moments of the channels")
    groups, remaining, channels = problem.channels.xy.shape
    size = problem.full.shape[1] // channels
    mixing = _damped(problem.channels.xx, problem.damping)[0].solve(problem.channels.xy).astype(np.float64)
    weight = (mixing @ problem.full.reshape(groups, channels, -1)).reshape(groups, remaining * size, -1)
    return weight, _shift(problem, weight)


@method("joint", ridge=True, dead_zone=True, joint=True)
@method("one-pass", ridge=True, dead_zone=True, sequential=False)
@method("least-squares", ridge=True, dead_zone=True)
def least_squares(problem: FitProblem) -> Fitted:
    """Ridge regression toward the sliced weights."""
    weight = problem.regressed(problem.moments.xy)
    return weight, _shift(problem, weight)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The fit that did best.

    Attributes:
        fitted: made of all rows.
        moments: of these.
        error: of the same fit of some rows, on others.
    """

    fitted: Fitted
    moments: PairMoments
    error: float


def best(
    how: Method,
    problem: FitProblem,
    rows: Rows,
    count: int,
    *,
    dampings: Sequence[float],
    stored: Callable[[Fitted, PairMoments], Fitted] = lambda fitted, moments: fitted,
) -> Chosen:
    """The fit with the ridge weight, and after the number of rounds, that do best on rows which it has not seen.

    Ridge weights are tried in their order, and rounds are made, until one does no better than the one before. All rows
    together then get the same ridge weight, and, where rounds were made, one more that goes on from the last.

    Args:
        how: the recovery method.
        problem: all but the moments of the rows that judge.
        rows: those that `problem` is of, and behind them those that judge.
        count: of the former.
        dampings: ridge weights to try, in ascending order.
        stored: a fit as it can be stored, which is judged, from the moments of its rows.
    """
    fitting, judging = rows.parted(count)

    def error(fitted: Fitted) -> float:
        return judging.error(stored(fitted, problem.moments))

    tried = (replace(problem, damping=d) for d in (dampings if how.ridge else (0.0,)))
    found = list(falling(((one, how.closed_form(one)) for one in tried), lambda one: error(one[1])))
    (chosen, fitted), least = found[-1]
    better: list[tuple[Fitted, float]] = []
    if how.dead_zone and rows.bounds is not None:
        better = list(falling(_rounds(chosen, fitting, fitted, ROUNDS), error, least))
    moments = problem.moments + type(problem.moments).of(judging.x, judging.y, shifted=problem.shifted)
    final = replace(chosen, moments=moments)
    if not better:
        return Chosen(how.closed_form(final), moments, least)
    fitted, least = better[-1]
    return Chosen(next(_rounds(final, rows, fitted, 1)), moments, least)


def falling(values: Iterable[T], error: Callable[[T], float], least: float = np.inf) -> Iterator[tuple[T, float]]:
    """Take values with their errors, as long as these fall.

    Args:
        values: what is tried, in its order.
        error: of a value.
        least: the error to fall below.

    Yields:
        Values and their errors; the first in any case where nothing was known before.
    """
    for number, value in enumerate(values):
        found = error(value)
        if not found < least and (number or least < np.inf):
            return
        yield value, found
        least = found


def _rounds(problem: FitProblem, rows: Rows, fitted: Fitted, count: int) -> Iterator[Fitted]:
    """Regressions toward the good outputs that are nearest to what the one before gave."""
    for _ in range(count):
        _, wanted = rows.nearest(*fitted)
        mean = wanted.mean(axis=1, dtype=np.float64) * problem.shifted
        centred = wanted - mean[:, None].astype(wanted.dtype)
        weight = problem.regressed((rows.x.transpose(0, 2, 1) @ centred).astype(np.float64) / rows.x.shape[1])
        fitted = weight, mean - _times(problem.moments.x, weight)
        yield fitted


def _shift(problem: FitProblem, weight: Array) -> Array:
    return np.asarray(problem.moments.y - _times(problem.moments.x, weight))


def _times(rows: Array, weight: Array) -> Array:
    return np.einsum("gd,gdo->go", rows, weight)


def _damped(second: Array, damping: float) -> tuple[Cholesky, Array]:
    """The factor of S + l I, and l, per group; in single precision where that is as good.

    Where rounding of the rows made S indefinite, as much is added to its diagonal as that may have taken away.
    """
    size = second.shape[-1]
    trace = np.trace(second, axis1=1, axis2=2)[:, None, None]
    added = damping * np.maximum(trace / size, 1e-12)
    try:
        return quick_factor(second, added), added
    except np.linalg.LinAlgError:
        return quick_factor(second, added + np.finfo(np.float32).eps * trace), added
