"""Layers whose weights are whole numbers, fitted and rounded back onto their grid.

The fit is that of any layer, toward the outputs of the original, on the inputs that the pruned and so far rounded model
gives. Its weights are rounded with error feedback, the bias takes what the rounding moved, and the fit is judged as it
is stored. Scales stay where the new weights fit, and grow where that is the smaller error.

Where zeros of the original stay zeros, the fit is moved onto its support, and the sweep that rounds also makes up for
what the zeros take (SparseGPT and GPTQ in one: Frantar and Alistarh, "SparseGPT", 2023, section 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.layers import Grid, Parameters, QuantizedParameters, layer_weight
from onnxprune.recovery import fits
from onnxprune.recovery.targets import KeptMask, LayerTarget, LinearFit
from onnxprune.rewriting import Removal
from onnxprune.runtime import PairMoments
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class QuantizedTarget(LayerTarget):
    """A layer whose weight is stored as whole numbers in the pruned model.

    Attributes:
        own: its parameters there.
        sparse: whether what is zero in the original stays zero.
    """

    own: QuantizedParameters
    sparse: bool = False

    def original(self, removal: Removal) -> Array:
        """The weight in the original."""
        return layer_weight(removal.groups.tracing, self.old)

    def task(self, removal: Removal, parameters: Parameters, method: fits.Method) -> LinearFit:
        """Weight and bias."""
        sliced = self.new.as_matrix(self.own.weight.value(parameters.value)) * self.new.scale
        parts = self.parts(removal, parameters, method)
        keep = _support(parts["factor"], parts["kept"]) if self.sparse else None
        return _GridFit(**parts, sliced=sliced, shifted=self.own.shifted, own=self.own, keep=keep)


def _support(original: Array, kept: KeptMask) -> Array | None:
    """What is not zero of the weight of an original, [groups, D, O] of what remains; None where nothing is zero."""
    if original.all():
        return None
    inputs = kept.inputs[kept.groups]
    return np.stack([part[taken] != 0 for part, taken in zip(original, inputs, strict=True)])


@dataclass(frozen=True, eq=False, kw_only=True)
class _GridFit(LinearFit):
    """The weight and bias of a layer on a grid.

    Attributes:
        own: these parameters, in the pruned model.
        keep: bool[groups, D, O], false for weights that stay zero; None where there are none.
    """

    needs_second_moment = True

    own: QuantizedParameters
    keep: Array | None = None

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
        if self.keep is not None:
            wanted = self._on_support(wanted, moments.xx)
        if self.own.grows:
            grid = grid.fitting(wanted, np.diagonal(moments.xx, axis1=1, axis2=2)[:, :, None])
        weight = grid.rounded(wanted, moments.xx, self.keep)
        moved = np.einsum("gd,gdo->go", moments.x, fitted[0] / scale - weight) * scale
        return grid, weight, fitted[1] + moved * self.shifted

    def _on_support(self, wanted: Array, second: Array) -> Array:
        """The weights that give most nearly what `wanted` gives, with the zeros."""
        # Only models that are sparse and quantised need what chooses and fits single weights.
        from onnxprune.sparsity import LayerEvidence, pattern_of, refitted

        assert self.keep is not None
        rng, pattern = np.random.default_rng(0), pattern_of("unstructured")
        evidence = LayerEvidence(wanted, pattern, 0.0, 1, rng, second=second, cross=second @ wanted)
        return refitted(evidence, wanted, self.keep)
