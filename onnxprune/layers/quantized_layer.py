"""Weight and bias of a layer whose weight is stored as whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxprune.layers.grid import Grid
from onnxprune.layers.linear import LinearLayer
from onnxprune.layers.parameters import Parameters
from onnxprune.layers.quantized_bias import QuantizedBias, quantized_bias
from onnxprune.layers.quantized_weight import QuantizedWeight, quantized_weight
from onnxprune.tracing import TraceResult
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class QuantizedParameters:
    """What can be changed of a layer whose weight is stored as whole numbers.

    Attributes:
        parameters: the model.
        layer: the layer; without a slot for a bias where it has none, since kernels of whole numbers may take none.
        weight: where its weight is.
        bias: its bias, where that is of whole numbers too.
        grid: the numbers that the weights may be.
        shifted: whether it has a bias, of whole numbers or of floats.
    """

    parameters: Parameters
    layer: LinearLayer
    weight: QuantizedWeight
    bias: QuantizedBias | None
    grid: Grid
    shifted: bool

    @property
    def grows(self) -> bool:
        """Whether the scales may become larger."""
        own = self.parameters.is_own(self.weight.scale)
        return own and (self.bias is None or self.bias.follows(self.parameters, self.grid))

    @property
    def names(self) -> Sequence[str]:
        """The stored tensors that `write` replaces, if the scales stay."""
        if self.bias is not None:
            return (self.weight.steps, self.bias.name)
        found = self.parameters.bias(self.layer, self._outputs) if self.shifted else None
        return (self.weight.steps, *([found[0].input[found[1]]] if found else []))

    @property
    def _outputs(self) -> int:
        groups, _, outputs = self.grid.entry.shape
        return groups * outputs

    def write(self, weight: Array, shift: Array, grid: Grid | None = None) -> None:
        """Store numbers of the grid.

        Args:
            weight: [groups, D, O], not yet multiplied by the layer's `scale`; rounded to the nearest numbers.
            shift: what is added to the outputs, [O]; nothing where there is no bias.
            grid: `grid`, perhaps with other scales, which are stored too.
        """
        grid = grid or self.grid
        self.weight.write(self.parameters, self.layer, grid, grid.steps(weight))
        if self.bias is not None:
            self.bias.write(self.parameters, self.layer, (self.grid, grid), shift)
        elif self.shifted:
            self.parameters.shift(self.layer, shift)


def quantized_parameters(parameters: Parameters, layer: LinearLayer) -> QuantizedParameters | None:
    """Find what can be changed of a layer.

    Args:
        parameters: the model.
        layer: one of its layers.

    Returns:
        Its weight and bias; None where the weight is no such one, or others read it too.
    """
    weight = quantized_weight(layer, parameters, parameters.proto.opset_import)
    if weight is None or not weight.is_own(parameters, layer):
        return None
    node = layer.node
    if layer.bias is not None and (layer.bias >= len(node.input) or not node.input[layer.bias]):
        layer = replace(layer, bias=None)
    grid = weight.grid(layer, parameters.value)
    outputs = grid.entry.shape[0] * grid.entry.shape[2]
    bias = quantized_bias(parameters, layer, outputs)
    shifted = bias is not None or _has_float_bias(parameters, layer, outputs)
    return QuantizedParameters(parameters, layer, weight, bias, grid, shifted=shifted)


def _has_float_bias(parameters: Parameters, layer: LinearLayer, outputs: int) -> bool:
    found = parameters.bias(layer, outputs)
    return found is not None and parameters.value(found[0].input[found[1]]).dtype.kind == "f"


def layer_weight(tracing: TraceResult, layer: LinearLayer) -> Array:
    """Read the weight of a traced layer, however it is stored.

    Args:
        tracing: the trace.
        layer: one of its layers.

    Returns:
        Its real value, as the layer sees it.

    Raises:
        RunError: it is computed from others, and that fails.
    """
    weight = quantized_weight(layer, tracing, tracing.model.proto.opset_import)
    return tracing.known_value(layer.node.input[layer.weight]) if weight is None else weight.value(tracing.known_value)
