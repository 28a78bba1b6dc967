"""Layers whose weights are whole numbers, fitted and rounded back onto their grid.

The fit is that of any layer, toward the outputs of the original, on the inputs that the pruned and so far rounded model
gives. Its weights are rounded with error feedback, the bias takes what the rounding moved, and the fit is judged as it
is stored. Scales stay where the new weights fit, and grow where that is the smaller error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.layers import Grid, Parameters, QuantizedParameters, layer_weight
from onnxprune.recovery import fits
from onnxprune.recovery.targets import LayerFit, LayerTarget, LinearFit
from onnxprune.rewriting import Removal
from onnxprune.runtime import PairMoments
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class QuantizedTarget(LayerTarget):
    """A layer whose weight is stored as whole numbers in the pruned model.

    Attributes:
        own: its parameters there.
    """

    own: QuantizedParameters

    def original(self, removal: Removal) -> Array:
        """The weight in the original."""
        return layer_weight(removal.groups.tracing, self.old)

    def task(self, removal: Removal, parameters: Parameters, method: fits.Method) -> LayerFit:
        """Weight and bias."""
        sliced = self.new.as_matrix(self.own.weight.value(parameters.value)) * self.new.scale
        parts = self.parts(removal, parameters, method)
        return _GridFit(**parts, sliced=sliced, shifted=self.own.shifted, own=self.own)


@dataclass(frozen=True, eq=False, kw_only=True)
class _GridFit(LinearFit):
    """The weight and bias of a layer on a grid.

    Attributes:
        own: these parameters, in the pruned model.
    """

    needs_second_moment = True

    own: QuantizedParameters

    def on_grid(self, fitted: fits.Fitted, moments: PairMoments) -> fits.Fitted:
        """The rounded weights, and a shift that keeps the mean outputs."""
        _, weight, shift = self._rounded(fitted, moments)
        return weight * self.own.layer.scale, shift

    def write(self, fitted: fits.Fitted, moments: PairMoments | None = None) -> None:
        """Store the numbers, the scales that grew, and the bias."""
        assert moments is not None, "what is quantised is fitted to data alone"
        grid, weight, shift = self._rounded(fitted, moments)
        self.own.write(weight, shift.reshape(-1), grid)

    def _rounded(self, fitted: fits.Fitted, moments: PairMoments) -> tuple[Grid, Array, Array]:
        """The grid, perhaps with larger scales, numbers of it, and the shift."""
        scale, grid = self.own.layer.scale, self.own.grid
        wanted = fitted[0] / scale
        if self.own.grows:
            grid = grid.fitting(wanted, np.diagonal(moments.xx, axis1=1, axis2=2)[:, :, None])
        weight = grid.rounded(wanted, moments.xx)
        moved = np.einsum("gd,gdo->go", moments.x, wanted - weight) * scale
        return grid, weight, fitted[1] + moved * self.shifted
