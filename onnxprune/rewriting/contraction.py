"""Contractions with a stored weight of their own: what constants beside them and other contractions make of the weight.

A contraction is y = x W + b; the matrices are in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.layers import Affine, Convolution, LinearLayer, Product
from onnxprune.tracing import NodeView
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class ContractionBias:
    """What is added to the products of a contraction.

    Attributes:
        node: the node that adds it: the contraction, or an Add behind it.
        slot: its input.
        values: float64[outputs]; zeros where there is none yet.
        is_stored: whether there is one.
    """

    node: onnx.NodeProto
    slot: int
    values: Array
    is_stored: bool


@dataclass(frozen=True, eq=False)
class Contraction:
    """A contraction with a stored weight of its own.

    Attributes:
        view: the traced node.
        layer: the node that is changed, as a layer.
        weight: float64[groups, D, O].
        shape: of the stored weight.
        bias: None where nothing may be added.
    """

    view: NodeView
    layer: LinearLayer
    weight: Array
    shape: tuple[int, ...]
    bias: ContractionBias | None

    @property
    def outputs(self) -> int:
        """Outputs of all groups."""
        return self.weight.shape[0] * self.weight.shape[2]

    @property
    def end(self) -> onnx.NodeProto:
        """The node that makes what the contraction gives, its bias included."""
        return self.layer.node if self.bias is None else self.bias.node

    @property
    def is_pointwise(self) -> bool:
        """Whether one position of the input makes one position of the output, with the channels where they were."""
        layer = self.layer
        if isinstance(layer, Product):
            return layer.weight == 1 and layer.is_last
        assert isinstance(layer, Convolution)
        plain = layer.positions == 1 and layer.group == 1 and not layer.transposed
        return plain and layer.sees_whole_windows and set(layer.strides) <= {1}

    @property
    def sees_whole_windows(self) -> bool:
        """Whether no output is made of padding, whatever the size of the input."""
        follows = any(a.name == "auto_pad" and a.s.startswith(b"SAME") for a in self.layer.node.attribute)
        return self.layer.sees_whole_windows and (self.layer.positions == 1 or not follows)

    def line(self, value: Array) -> Array | None:
        """A constant that is broadcast to the output, as float64[outputs]; None where it differs along other axes."""
        return _line(value, self.layer.laid_out(np.arange(self.outputs), self.shape))

    def line_in(self, value: Array) -> Array | None:
        """A constant that is broadcast to the input, as a value per row of the weight: float64[groups, D, 1]."""
        groups, rows, _ = self.weight.shape
        channels = rows // self.layer.positions
        found = _line(value, self.layer.laid_in(np.arange(groups * channels), self.shape))
        if found is None:
            return None
        return np.repeat(found.reshape(groups, channels), self.layer.positions, axis=1)[:, :, None]


def _line(value: Array, places: Array) -> Array | None:
    try:
        spread = np.broadcast_to(value, places.shape)
    except ValueError:
        return None
    found = np.empty(places.size)
    found[places.reshape(-1)] = spread.reshape(-1)
    return found


def stored_bias(of: Contraction) -> int:
    """How many numbers a contraction's bias has."""
    return of.outputs if of.bias is not None and of.bias.is_stored else 0


def taken_in(of: Contraction, made: str, affine: Affine) -> tuple[Array, Array] | None:
    """Weight and bias of a contraction that reads the input of a node in the place of what that makes of it."""
    scale, shift = of.line_in(affine.scale), of.line_in(affine.shift)
    if of.layer.input != made or scale is None or shift is None:
        return None
    values = np.zeros(of.outputs) if of.bias is None else of.bias.values
    if shift.any():
        if of.bias is None or not of.sees_whole_windows:
            return None
        values = values + (shift * of.weight).sum(axis=1).reshape(-1) * of.layer.scale
    return of.weight * scale, values


def merged_product(first: Contraction, second: Contraction) -> tuple[Contraction, tuple[int, ...], Array, Array] | None:
    """Two contractions as one: (the one that stays, the shape of its weight, that as a matrix, its bias)."""
    own = np.zeros(first.outputs) if first.bias is None else first.bias.values
    last = np.zeros(second.outputs) if second.bias is None else second.bias.values
    if len(first.weight) != 1 or len(second.weight) != 1 or (second.bias is None and own.any()):
        return None
    one, other = first.weight[0] * first.layer.scale, second.weight[0]
    if first.is_pointwise and (isinstance(second.layer, Convolution) or second.is_pointwise):
        if getattr(second.layer, "transposed", False) or (own.any() and not second.sees_whole_windows):
            return None
        positions = second.layer.positions
        spread = other.reshape(len(other) // positions, positions, -1)
        weight = np.tensordot(one, spread, 1).reshape(1, -1, spread.shape[2])
        values = last + own @ spread.sum(axis=1) * second.layer.scale
        shape = list(second.shape)
        shape[second.layer.inner_axis] = len(one)
        return second, tuple(shape), weight, values
    if second.is_pointwise and isinstance(first.layer, Convolution) and not first.layer.transposed:
        values = own @ other + last
        return first, (other.shape[1], *first.shape[1:]), (one @ other)[None], values
    return None
