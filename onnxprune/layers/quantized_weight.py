"""Weights that are stored as whole numbers: what layers see of them, and how they are written back.

A weight lies in front of a DequantizeLinear, perhaps with nodes behind it that only move its elements, or is an input
of an operator that multiplies whole numbers. In either case every element that the layer sees has a place among the
stored numbers, and an entry among the scales.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.layers.grid import Grid
from onnxprune.layers.linear import LinearLayer
from onnxprune.layers.operands import Neighbours, Operands, operands_of, scale_behind
from onnxprune.layers.parameters import Parameters
from onnxprune.model.traits import traits_of
from onnxprune.tracing import places_behind
from onnxprune.tracing.rules.blockwise import packed, unpacked
from onnxprune.typing import Array, Shape

# The value of a stored tensor by its name.
Read = Callable[[str], Array]


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where the elements of a weight, as its layer sees it, are stored.

    Attributes:
        places: the place of every element among the stored numbers.
        entry: the entry of every element among the scales.
        zeros: float64[entries], the zero points.
    """

    places: Array
    entry: Array
    zeros: Array


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight that is stored as whole numbers.

    Attributes:
        steps: name of the stored numbers.
        scale: name of the scales.
        zero: name of the zero points; empty where there are none.
        axis: the axis of the stored numbers that scales lie along, where there are several.
        block: how many positions of it share a scale; 0 where every one has its own.
        bits: of a number, where several share a byte; 0 where none do.
        width: inputs of a packed weight.
        chain: the nodes between its decoded numbers and the layer.
        opsets: what these belong to.
    """

    steps: str
    scale: str
    zero: str
    axis: int
    block: int = 0
    bits: int = 0
    width: int = 0
    chain: Sequence[onnx.NodeProto] = ()
    opsets: Sequence[onnx.OperatorSetIdProto] = ()

    def value(self, read: Read) -> Array:
        """The real weight as its layer sees it, float64."""
        layout, numbers = self._layout(read), self._numbers(read)
        scales = read(self.scale).astype(np.float64).reshape(-1)
        offset = numbers.reshape(-1)[layout.places] - layout.zeros[layout.entry]
        return np.asarray(offset * scales[layout.entry])

    def grid(self, layer: LinearLayer, read: Read) -> Grid:
        """The numbers that the weight may be, in the layout of `LinearLayer.as_matrix`.

        No number is farther from its zero point than those that are stored: what the model was quantised for stays.
        """
        grid = self.decoded_grid(read)
        return replace(grid, entry=layer.as_matrix(grid.entry))

    def decoded_grid(self, read: Read) -> Grid:
        """The same in the layout of `value`."""
        layout, numbers = self._layout(read), self._numbers(read)
        offset = np.abs(numbers.reshape(-1)[layout.places] - layout.zeros[layout.entry])
        scales = np.maximum(read(self.scale).astype(np.float64).reshape(-1), np.finfo(np.float32).tiny)
        return Grid(scales, layout.zeros, layout.entry, self._limits(read), float(offset.max(initial=1)))

    def write(self, parameters: Parameters, layer: LinearLayer, grid: Grid, steps: Array) -> None:
        """Replace the numbers, and the scales where these are others.

        Args:
            parameters: the model.
            layer: the layer that the weight belongs to.
            grid: that of `grid`, perhaps with other scales.
            steps: the new numbers, [groups, D, O].
        """
        shape = self._layout(parameters.value).places.shape
        parameters.store(self.steps, self.stored(parameters.value, layer.tensor(steps, shape)))
        old = parameters.value(self.scale)
        if not np.array_equal(old.reshape(-1), grid.scales.astype(old.dtype)):
            parameters.store(self.scale, grid.scales.reshape(old.shape))

    def stored(self, read: Read, steps: Array) -> Array:
        """What is stored in place of the numbers, in the layout and the shape that it has.

        Args:
            read: gives what is stored now.
            steps: the new numbers, in the layout of `value`.
        """
        numbers = self._numbers(read)
        numbers.reshape(-1)[self._layout(read).places] = steps
        if not self.bits:
            return numbers
        return packed(numbers.astype(np.uint8), self.bits).reshape(read(self.steps).shape)

    def is_own(self, parameters: Parameters, layer: LinearLayer) -> bool:
        """Whether one layer alone reads the weight."""
        between = [] if operands_of(layer.node) else [layer.node.input[layer.weight], *(n.input[0] for n in self.chain)]
        return parameters.is_own(self.steps) and all(parameters.only_consumer(n) is not None for n in between)

    def _limits(self, read: Read) -> tuple[float, float]:
        kind = read(self.steps).dtype
        if self.bits:
            return 0.0, 2.0**self.bits - 1
        name = kind.name
        bits = int(name.removeprefix("u").removeprefix("int"))
        return (0.0, 2.0**bits - 1) if name.startswith("u") else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)

    def _numbers(self, read: Read) -> Array:
        """The stored numbers, one by one, float64; of a packed weight [rows, positions in all blocks]."""
        value = read(self.steps)
        if self.bits:
            value = unpacked(value, self.bits).reshape(len(value), -1)
        return value.astype(np.float64)

    def _layout(self, read: Read) -> _Layout:
        stored = self._numbers(read).shape
        scale, axis = read(self.scale), self.axis % max(len(stored), 1)
        ids = np.arange(scale.size)
        if self.bits:
            ids = np.repeat(ids.reshape(stored[0], -1), self.block, axis=1)
        elif scale.size == 1:
            ids = np.zeros(stored, int)
        elif self.block:
            ids = np.repeat(ids.reshape(scale.shape), self.block, axis)
            ids = ids[(slice(None),) * axis + (slice(stored[axis]),)]
        else:
            ids = np.broadcast_to(ids.reshape([-1 if a == axis else 1 for a in range(len(stored))]), stored)
        places = self._seen(stored)
        return _Layout(places, ids.reshape(-1)[places], self._zeros(read, scale.size))

    def _seen(self, stored: Shape) -> Array:
        """The places of the stored numbers in the order in which the layer sees them."""
        if self.bits:
            return np.arange(np.prod(stored)).reshape(stored)[:, : self.width].T
        if not self.chain:
            return np.arange(np.prod(stored)).reshape(stored)
        found = places_behind(self.chain, stored, {}, self.opsets)
        assert found is not None, "only moves that run alone are followed"
        return found

    def _zeros(self, read: Read, count: int) -> Array:
        if not self.zero:
            return np.full(count, 2.0 ** (self.bits - 1) if self.bits else 0.0)
        value = read(self.zero)
        if self.bits and value.dtype == np.uint8:
            rows = len(read(self.steps))
            value = unpacked(value.reshape(rows, -1), self.bits)[:, : count // rows]
        return np.broadcast_to(value.astype(np.float64).reshape(-1), (count,))


def quantized_weight(
    layer: LinearLayer, graph: Neighbours, opsets: Sequence[onnx.OperatorSetIdProto]
) -> QuantizedWeight | None:
    """Find where the weight of a layer is stored as whole numbers.

    Args:
        layer: the layer.
        graph: where it is.
        opsets: the operator sets of the model.

    Returns:
        What is stored; None where the weight is no such one.
    """
    node, operands = layer.node, operands_of(layer.node)
    if operands is not None:
        return _of_operands(graph, node, operands)
    chain: list[onnx.NodeProto] = []
    maker = graph.producer(node.input[layer.weight])
    while maker is not None and traits_of(maker).moves and len(maker.input) == 1:
        chain.insert(0, maker)
        maker = graph.producer(maker.input[0])
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    return replace(_of_decoder(maker), chain=chain, opsets=opsets)


def weight_at(node: onnx.NodeProto) -> QuantizedWeight | None:
    """Find the weight that a node decodes by itself: a DequantizeLinear, or a product of packed numbers.

    Args:
        node: a node.

    Returns:
        What is stored, with no nodes behind it; None where the node decodes none.
    """
    if node.op_type == "DequantizeLinear" and node.domain in ("", "ai.onnx"):
        return _of_decoder(node)
    operands = operands_of(node)
    return _of_packed(node, operands) if operands is not None and operands.is_packed else None


def _of_decoder(node: onnx.NodeProto) -> QuantizedWeight:
    given, attrs = [*node.input, ""], _attributes(node)
    axis, block = int(attrs.get("axis", 1)), int(attrs.get("block_size", 0))
    return QuantizedWeight(given[0], given[1], given[2], axis, block=block)


def _of_operands(graph: Neighbours, node: onnx.NodeProto, operands: Operands) -> QuantizedWeight | None:
    if operands.is_packed:
        return _of_packed(node, operands)
    weight, scale, zero = _operand_names(node, operands)
    if operands.scale is None:
        scale = scale_behind(graph, node)
    axis = 0 if operands.is_convolution or _attributes(node).get("transB") else -1
    return QuantizedWeight(weight, scale, zero, axis)


def _of_packed(node: onnx.NodeProto, operands: Operands) -> QuantizedWeight | None:
    if len(node.input) > 4 and node.input[4]:  # columns that belong to groups by an index
        return None
    attrs = _attributes(node)
    bits, block, width = int(attrs.get("bits", 4)), int(attrs.get("block_size", 0)), int(attrs.get("K", 0))
    return QuantizedWeight(*_operand_names(node, operands), 1, block=block, bits=bits, width=width)


def _operand_names(node: onnx.NodeProto, operands: Operands) -> tuple[str, str, str]:
    weight, scale, zero = (
        node.input[s] if s is not None and s < len(node.input) else ""
        for s in (operands.weight, operands.scale, operands.zero)
    )
    return weight, scale, zero


def _attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
