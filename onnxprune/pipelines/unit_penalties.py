"""Penalties that draw units to zero while the model trains, as strong as the budgets need.

Nobody is asked how strong. A controller raises the strength of a group while fewer of its units are zero than should be
by then, and lowers it otherwise; units that no budget takes are drawn, too, but never all the way. What reached zero is
held there, and is cut without a loss.

Sources: Wen et al., "Learning Structured Sparsity", 2016 (group lasso); Liu et al., "Network Slimming", 2017 (scales of
BatchNormalization); Wang et al., "Neural Pruning via Growing Regularization", 2021, section 3.1; proximal steps as in
Parikh and Boyd, "Proximal Algorithms", 2014, section 6.5.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.allocation import Options
from onnxprune.errors import UsageError
from onnxprune.layers import UnitAxis, norm_scales
from onnxprune.layers.unit_axes import unit_axes
from onnxprune.pipelines.iterative import UnitsToGo
from onnxprune.pipelines.unit_masks import FULL, UnitCourse
from onnxprune.recovery import Masks, TrainingOptions
from onnxprune.typing import Array

# Exponent by which a strength can change over the whole course: 0.3 of it are enough for five orders of magnitude.
REACH = 40.0
# Sizes that a whole course takes at least: from less, a strength could not be raised in time.
SLACK = 0.1
# Sizes that a whole course takes at most from units which are not to go yet, and what a step leaves of them at least.
GENTLE, MOST = 1.0, 0.5
# What is below this, relative to the mean of its group, is zero.
TINY = 1e-3


class _Penalty(UnitCourse):
    """A course that draws the norms of units to zero.

    Attributes:
        axes: the elements whose norm is drawn to zero.
        also: elements that are scaled by the same factors.
        is_zero: bool[classes]: what has reached zero, and stays there.
    """

    CHANGING = ("scores", "is_zero", "means", "strength")

    def __init__(self, going: UnitsToGo, scores: Array, options: Options, training: TrainingOptions) -> None:
        """Prepare a course; see `UnitCourse`."""
        super().__init__(going, scores, options, training)
        self.axes, self.also = self.elements()
        self.is_zero = np.zeros(len(scores), bool)
        self.means = np.zeros(0)
        self.strength = np.full(len(scores), 1.0 / self.until)

    def elements(self) -> tuple[Sequence[UnitAxis], Sequence[UnitAxis]]:
        """What `axes` and `also` are: all that units hold."""
        return unit_axes(self.groups, self.groups.model.initializers), ()

    def chosen(self, step: int, weights: Mapping[str, Array]) -> Masks | None:
        """No masks: what is zero is zero."""
        return {} if step == 0 else None

    def shrink(self, step: int, weights: Mapping[str, Array], rate: float) -> None:
        """Draw units to zero, in place."""
        norms = self.norms(weights)
        if not len(self.means):
            self.means = self._means(norms)
        size = norms / self.means
        self.scores = np.where(self.is_zero, 0.0, size)
        factors = np.where(self.is_zero, 0.0, self.factors(step, size))
        self.is_zero |= factors == 0
        for axis in (*self.axes, *self.also):
            if axis.name in weights:
                weights[axis.name] *= axis.laid_out(factors).astype(weights[axis.name].dtype)

    def factors(self, step: int, size: Array) -> Array:
        """What the units are multiplied with at a step.

        Args:
            step: steps made.
            size: float64[classes], norms relative to the first mean of their group.

        Returns:
            float64[classes], from 0 to 1.
        """
        wanted = self.gone(self.share(step))
        for group in self.groups.groups:
            enough = self.is_zero[group.classes].sum() >= wanted[group.classes].sum()
            self.strength[group.classes] *= math.exp((-REACH if enough else REACH) / self.until)
        np.clip(self.strength, SLACK / self.until, 1.0, out=self.strength)
        strength = np.where(wanted, self.strength, np.minimum(self.strength, GENTLE / self.until))
        drawn = np.maximum(1 - strength / np.maximum(size, 1e-30), 0)
        return np.where(wanted, np.where(drawn * size < TINY, 0.0, drawn), np.maximum(drawn, MOST))

    def norms(self, weights: Mapping[str, Array]) -> Array:
        """float64[classes]: the norms that are drawn to zero."""
        squares = np.zeros(len(self.scores))
        for axis in self.axes:
            if axis.name in weights:
                squares += axis.sums(np.square(weights[axis.name]), len(squares))
        return np.sqrt(squares)

    def _means(self, norms: Array) -> Array:
        means = np.ones(len(norms))
        for group in self.groups.groups:
            means[group.classes] = max(float(norms[group.classes].mean()), 1e-30)
        return means


class GroupLasso(_Penalty):
    """The sum of the norms of all that units hold, by proximal steps."""


class Slimming(_Penalty):
    """The sum of the absolute scales of BatchNormalization; shifts are scaled with them, so that zero is zero."""

    def elements(self) -> tuple[Sequence[UnitAxis], Sequence[UnitAxis]]:
        """Scales, and shifts.

        Raises:
            UsageError: units of a group that loses some have no scale.
        """
        pairs = norm_scales(self.groups, self.groups.model.initializers)
        scaled = np.zeros(len(self.scores), bool)
        for scale, _ in pairs:
            scaled[scale.classes[scale.classes >= 0]] = True
        for group in self.groups.groups:
            if self.going.counts.get(group.name) and not scaled[group.classes].all():
                raise UsageError(
                    f"slimming: the units of group {group.name!r} have no scale of a BatchNormalization",
                    hint="exporters fold them into the layers in front: take group-lasso",
                )
        return [scale for scale, _ in pairs], [shift for _, shift in pairs]


class GrowingPenalty(_Penalty):
    """A pull on the units that the first scores choose, which grows with the steps until they are at zero."""

    def __init__(self, going: UnitsToGo, scores: Array, options: Options, training: TrainingOptions) -> None:
        """Prepare a course; see `UnitCourse`."""
        super().__init__(going, scores, options, training)
        self._chosen = self.gone()

    def factors(self, step: int, size: Array) -> Array:
        """What the units are multiplied with: exp(-a step), so that the rest of the course makes them tiny.

        The logarithms of the factors from a step t to the last one T add up to a (T^2 - t^2) / 2; a is chosen at every
        step again, from the sizes that gradients leave.
        """
        last = max(1, round(FULL * self.until))
        if step >= last:
            return np.where(self._chosen, 0.0, 1.0)
        need = np.log(np.maximum(size / TINY, 1.0))
        pull = np.exp(-2 * need / (last**2 - (step - 1) ** 2) * step)
        return np.where(self._chosen, np.where(size < TINY, 0.0, pull), 1.0)
