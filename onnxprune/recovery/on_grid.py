"""Layers whose weights are whole numbers, fitted and rounded back onto their grid.

The fit is that of any layer, toward the outputs of the quantised original, on the inputs that the pruned and so far
rounded model gives. Its weights are rounded with error feedback, the bias takes what the rounding moved, and the fit is
judged as it is stored. Scales stay where the new weights fit, and grow where that is the smaller error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxprune.layers import Grid, Parameters, QuantizedBias, QuantizedWeight, quantized_bias, quantized_weight
from onnxprune.recovery import fits
from onnxprune.recovery.targets import LayerFit, LayerTarget, LinearFit
from onnxprune.rewriting import Removal
from onnxprune.runtime import PairMoments
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class QuantizedTarget(LayerTarget):
    """A layer whose weight is stored as whole numbers.

    Attributes:
        stored: where its weight is, in the pruned model.
    """

    stored: QuantizedWeight

    def present(self, parameters: Parameters) -> Array:
        """The weight in the pruned model, as the layer sees it."""
        return self.stored.value(parameters.value)

    def original(self, removal: Removal) -> Array:
        """The weight in the original."""
        tracing = removal.groups.tracing
        found = quantized_weight(self.old, tracing.producer, tracing.model.proto.opset_import)
        assert found is not None
        return found.value(tracing.known_value)

    def task(self, removal: Removal, parameters: Parameters, method: fits.Method) -> LayerFit:
        """Weight and bias."""
        sliced = self.new.as_matrix(self.present(parameters)) * self.new.scale
        outputs = sliced.shape[0] * sliced.shape[2]
        bias = quantized_bias(parameters, self.new, outputs)
        return _GridFit(
            **self.parts(removal, parameters, method),
            sliced=sliced,
            shifted=bias is not None or self.float_bias(parameters, outputs),
            stored=self.stored,
            bias=bias,
            grid=self.stored.grid(self.new, parameters.value),
        )

    def float_bias(self, parameters: Parameters, outputs: int) -> bool:
        """Whether there is a bias of floats; none is made, since kernels of whole numbers may not take it."""
        found = parameters.bias(self.new, outputs)
        if found is None or found[1] >= len(found[0].input) or not found[0].input[found[1]]:
            return False
        return parameters.value(found[0].input[found[1]]).dtype.kind == "f"


@dataclass(frozen=True, eq=False, kw_only=True)
class _GridFit(LinearFit):
    """The weight and bias of a layer on a grid.

    Attributes:
        stored: where its weight is.
        bias: its bias, where that is of whole numbers too.
        grid: the numbers that the weights may be.
    """

    stored: QuantizedWeight
    bias: QuantizedBias | None
    grid: Grid

    def on_grid(self, fitted: fits.Fitted, moments: PairMoments) -> fits.Fitted:
        """The rounded weights, and a shift that keeps the mean outputs."""
        _, weight, shift = self._rounded(fitted, moments)
        return weight * self.target.new.scale, shift

    def write(self, fitted: fits.Fitted, moments: PairMoments | None = None) -> None:
        """Store the numbers, the scales that grew, and the bias."""
        assert moments is not None, "what is quantised is fitted to data alone"
        grid, weight, shift = self._rounded(fitted, moments)
        new, parameters = self.target.new, self.parameters
        self.stored.write(parameters, new, grid, grid.steps(weight))
        if self.bias is not None:
            self.bias.write(parameters, new, (self.grid, grid), shift.reshape(-1))
        elif self.shifted:
            parameters.shift(new, shift.reshape(-1))

    def _rounded(self, fitted: fits.Fitted, moments: PairMoments) -> tuple[Grid, Array, Array]:
        """The grid, perhaps with larger scales, the numbers of it, and the shift."""
        scale = self.target.new.scale
        wanted, second = fitted[0] / scale, moments.xx
        grid = self.grid.fitting(wanted, np.diagonal(second, axis1=1, axis2=2)[:, :, None]) if self.grows else self.grid
        weight = grid.rounded(wanted, second)
        moved = np.einsum("gd,gdo->go", moments.x, wanted - weight) * scale
        return grid, weight, fitted[1] + moved * self.shifted

    @property
    def grows(self) -> bool:
        """Whether the scales may become larger."""
        own = self.parameters.is_own(self.stored.scale)
        return own and (self.bias is None or self.bias.follows(self.parameters, self.grid))


def quantized_target(target: LayerTarget, parameters: Parameters) -> QuantizedTarget | None:
    """View a layer behind a cut as one with a weight of whole numbers.

    Args:
        target: the layer.
        parameters: the pruned model.

    Returns:
        The layer; None where its weight is no such one, or others read it too.
    """
    stored = quantized_weight(target.new, parameters.producer, parameters.proto.opset_import)
    if stored is None or not stored.is_own(parameters, target.new):
        return None
    node = target.node
    new = target.new
    if new.bias is not None and (new.bias >= len(node.input) or not node.input[new.bias]):
        new = replace(new, bias=None)
    return QuantizedTarget(target.view, node, target.old, new, target.downstream, stored)
