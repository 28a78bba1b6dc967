"""Biases that are stored as whole numbers: in steps of the layer's products, or of a scale of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.layers.grid import Grid
from onnxprune.layers.linear import LinearLayer
from onnxprune.layers.operands import operands_of
from onnxprune.layers.parameters import Parameters
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class QuantizedBias:
    """The bias of a layer, as whole numbers.

    Attributes:
        name: of the numbers.
        scale: name of their scale; empty where it is the product of the scales of the input and of the weight.
    """

    name: str
    scale: str = ""

    def follows(self, parameters: Parameters, grid: Grid) -> bool:
        """Whether its scale can follow other scales of the weight."""
        if not self.scale:
            return True
        return parameters.is_own(self.scale) and parameters.value(self.scale).size >= len(grid.scales)

    def write(self, parameters: Parameters, layer: LinearLayer, grids: tuple[Grid, Grid], amount: Array) -> None:
        """Add an amount, in the scale that other scales of the weight ask for.

        Args:
            parameters: the model.
            layer: the layer.
            grids: of its weight, before and after; every output has one scale.
            amount: what is added to the outputs, [O].
        """
        old, new = (grid.scales[grid.entry[:, 0]].reshape(-1) for grid in grids)
        if self.scale:
            stored = parameters.value(self.scale)
            unit = np.broadcast_to(stored.astype(np.float64).reshape(-1), old.shape)
            if not np.array_equal(old, new):
                scale = unit * new / old
                parameters.store(self.scale, scale[: stored.size].reshape(stored.shape))
        else:
            assert layer.step is not None
            unit = layer.step[0] * old
        numbers = parameters.value(self.name)
        made = np.round((numbers.reshape(-1) * unit + amount) / (unit * new / old))
        limits = np.iinfo(numbers.dtype)
        parameters.store(self.name, np.clip(made, limits.min, limits.max).reshape(numbers.shape))


def quantized_bias(parameters: Parameters, layer: LinearLayer, outputs: int) -> QuantizedBias | None:
    """Find the bias of a layer where it is stored as whole numbers.

    Args:
        parameters: the model.
        layer: one of its layers.
        outputs: how many outputs the layer has.

    Returns:
        The bias; None where there is none of its own, or it is a float.
    """
    node = layer.node
    name = node.input[layer.bias] if layer.bias is not None and layer.bias < len(node.input) else ""
    maker, scale = parameters.producer(name), ""
    if maker is not None and maker.op_type == "DequantizeLinear" and parameters.only_consumer(name) is not None:
        name, scale = maker.input[0], maker.input[1]
    elif operands_of(node) is None or layer.step is None:
        return None
    whole = parameters.is_own(name) and parameters.value(name).dtype.kind == "i"
    return QuantizedBias(name, scale) if whole and parameters.value(name).size == outputs else None
