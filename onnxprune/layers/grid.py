"""Grids of the numbers that quantised weights may be, and the rounding onto them.

A stored number n stands for (n - zero) * scale, with a scale and a zero point for all, for every channel or for every
block of inputs. Rounding settles the weights input by input (`layers/error_feedback.py`), the inputs that matter most
first, so that the others make up for them.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022,
algorithm 1; the order of the inputs is that of the option `act-order` of its code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.layers.error_feedback import settled, sweep_factor
from onnxprune.typing import Array

# Inputs between two updates of all later weights.
BATCH = 128
# Ridge added to the second moment, relative to the mean of its diagonal.
DAMPING = 1e-2
# Scales that are tried where numbers do not fit, between the present one and the one at which all do.
TRIED = 9


@dataclass(frozen=True, eq=False)
class Grid:
    """The numbers that the weights of a layer may be.

    Attributes:
        scales: float64[entries], above zero.
        zeros: float64[entries], what stands for zero.
        entry: the entry of every weight, int[groups, D, O].
        limits: the least and the largest number that is stored.
        reach: how far from the zero point any number lies.
    """

    scales: Array
    zeros: Array
    entry: Array
    limits: tuple[float, float]
    reach: float

    @cached_property
    def _low(self) -> Array:
        return np.maximum(self.limits[0] - self.zeros, -self.reach)

    @cached_property
    def _high(self) -> Array:
        return np.minimum(self.limits[1] - self.zeros, self.reach)

    def steps(self, weight: Array, entry: Array | None = None) -> Array:
        """The nearest stored numbers.

        Args:
            weight: the weights, or those of one input.
            entry: their entries; those of all weights where None.
        """
        entry = self.entry if entry is None else entry
        offset = np.round(weight / self.scales[entry])
        return np.asarray(np.clip(offset, self._low[entry], self._high[entry]) + self.zeros[entry])

    def nearest(self, weight: Array, entry: Array | None = None) -> Array:
        """The nearest numbers of the grid; the arguments are those of `steps`."""
        entry = self.entry if entry is None else entry
        return np.asarray((self.steps(weight, entry) - self.zeros[entry]) * self.scales[entry])

    def straight_through(self, weight: Array, gradient: Array) -> tuple[Array, Array]:
        """The gradient by the nearest numbers, taken back to the weights and to the scales.

        Weights pass it on as if nothing were rounded, but where they lie beyond the numbers that there are; a scale
        has that of learned step sizes (Esser et al., "Learned Step Size Quantization", 2020, eq. 3).

        Args:
            weight: the weights, in the layout of `entry`.
            gradient: the gradient by `nearest(weight)`.

        Returns:
            The gradient by the weights, and by the scales [entries].
        """
        ratio = weight / self.scales[self.entry]
        # Half a step more on both sides rounds to the last number.
        inside = (ratio >= self._low[self.entry] - 0.5) & (ratio <= self._high[self.entry] + 0.5)
        slope = gradient * (self.steps(weight) - self.zeros[self.entry] - ratio * inside)
        by_scale = np.bincount(self.entry.reshape(-1), weights=slope.reshape(-1), minlength=len(self.scales))
        return gradient * inside, by_scale

    def fitting(self, weight: Array, importance: Array) -> Grid:
        """The grid with larger scales where numbers do not fit and that is the smaller error.

        Args:
            weight: float64[groups, D, O].
            importance: mean squares of the inputs, [groups, D, 1].
        """
        side = np.where(weight < 0, -self._low[self.entry], self._high[self.entry])
        ratio = np.divide(np.abs(weight) / self.scales[self.entry], side, out=np.zeros_like(weight), where=side > 0)
        needed = np.ones(len(self.scales))
        np.maximum.at(needed, self.entry.reshape(-1), ratio.reshape(-1))
        if (needed == 1).all():
            return self
        tried = [replace(self, scales=self.scales * (1 + share * (needed - 1))) for share in np.linspace(0, 1, TRIED)]
        errors = [grid._errors(weight, importance) for grid in tried]
        best = np.argmin(errors, axis=0)
        return replace(self, scales=np.choose(best, [grid.scales for grid in tried]))

    def _errors(self, weight: Array, importance: Array) -> Array:
        """What rounding costs the outputs, by entry, if inputs count as uncorrelated."""
        squares = importance * np.square(weight - self.nearest(weight))
        return np.bincount(self.entry.reshape(-1), weights=squares.reshape(-1), minlength=len(self.scales))

    def rounded(self, weight: Array, second: Array, keep: Array | None = None) -> Array:
        """Round weights so that the outputs of the layer change least.

        Args:
            weight: float64[groups, D, O].
            second: second moment of the inputs, float64[groups, D, D].
            keep: bool[groups, D, O], false for weights that become zero: what they would have given is made up for in
                the same sweep. None where all may be any number.

        Returns:
            Numbers of the grid, float64[groups, D, O].
        """
        size = second.shape[-1]
        mean = np.trace(second, axis1=1, axis2=2)[:, None, None] / size
        hessian = second + DAMPING * np.maximum(mean, 1e-30) * np.eye(size)
        order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")
        each = np.arange(len(order))[:, None]
        entry = self.entry[each, order]
        factor = sweep_factor(hessian[each[:, :, None], order[:, :, None], order[:, None, :]])
        bounds = [*range(0, size, BATCH), size]
        kept = np.ones((), bool) if keep is None else keep[each, order]

        def settle(now: Array, i: int) -> Array:
            made = self.nearest(now[:, i], entry[:, i])
            return made if keep is None else made * kept[:, i]

        found = settled(weight[each, order], factor, bounds, settle)
        made = np.empty_like(found)
        made[each, order] = found
        return made
