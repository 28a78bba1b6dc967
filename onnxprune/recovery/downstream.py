"""The nodes behind a layer, as far as a fit should know them: sums, and activations that are flat somewhere.

* A sum: a layer whose output meets another one, as at the end of a residual branch, is fitted so that the *sum* is that
  of the original. Its target is y + (s - s'), with s the other operand in the original and s' that in the pruned model,
  as it was fitted by then. So errors of a residual stream do not add up from block to block. Source: He et al.,
  "Channel Pruning for Accelerating Very Deep Neural Networks", 2017, section 3.3 (the last layer of a residual branch).
* An activation that is flat over a range, as Relu is below zero: whatever lies in the range where the original did is
  right. Source: Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection", 2015,
  section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.layers import LinearLayer, Parameters
from onnxprune.model.traits import TRAITS, operators_where
from onnxprune.rewriting import Removal
from onnxprune.tracing import Axes
from onnxprune.typing import Array

# Sums of their first two inputs; some of them give the sum to a norm.
SUMS = operators_where(lambda traits: traits.adds)
NORMED = operators_where(lambda traits: traits.adds and traits.norm)
# Activations that are flat below and above: the bounds.
FLAT = {
    op: (traits.flat_below, traits.flat_above)
    for (_, op), traits in TRAITS.items()
    if (traits.flat_below, traits.flat_above) != (-math.inf, math.inf)
}
# Channels that are scaled by less, relative to the largest scale, say nothing about what lies behind.
SMALLEST = 1e-3
# What leaves the elements as they are, or lays them out again in the same order.
SAME = operators_where(lambda traits: traits.same, "")
LAID_OUT = operators_where(lambda traits: traits.lays_out, "")
# What says the same numbers in steps, and back.
CODED = frozenset(("QuantizeLinear", "DequantizeLinear"))


@dataclass(frozen=True, eq=False)
class Downstream:
    """What becomes of a layer's output.

    Attributes:
        residual: the other operand of the sum that it goes to, of the same name in both models; empty for none.
        activation_input: what enters the activation behind it; empty if that is nowhere flat.
        axes: the labels of `residual` and of `activation_input`.
        factor: what the layer's output is multiplied with on the way, broadcastable to them.
        low: at and below this the activation is flat.
        high: at and above this too.
    """

    residual: str
    activation_input: str
    axes: Axes
    factor: Array
    low: float = -math.inf
    high: float = math.inf

    @property
    def inverse(self) -> Array:
        """One over the factor; zero where that is next to nothing."""
        small = np.abs(self.factor) <= SMALLEST * np.abs(self.factor).max()
        return np.where(small, 0, 1 / np.where(small, 1, self.factor)).astype(np.float32)

    def lost(self, removal: Removal, whole: Array, left: Array, taken: Callable[[Array], Array]) -> Array:
        """What the other operand lost, in the scale of the layer's output, from its values in either model.

        Args:
            removal: what was removed.
            whole: its values in the original.
            left: those in the pruned model.
            taken: takes the wanted positions of anything like the layer's output.
        """
        lost = taken(removal.sliced(whole, self.axes)) - taken(left)
        return np.asarray(lost * taken(np.broadcast_to(self.inverse, left.shape)), np.float32)

    def dead_zone(
        self, removal: Removal, activation_input: Array, taken: Callable[[Array], Array]
    ) -> tuple[Array, Array]:
        """How far the layer's output may lie below and above its target, from what enters the activation.

        Args:
            removal: what was removed.
            activation_input: what enters the activation in the original.
            taken: takes the wanted positions of anything like the layer's output.
        """
        sliced = removal.sliced(activation_input, self.axes)
        value, inverse = taken(sliced).astype(np.float32), taken(np.broadcast_to(self.inverse, sliced.shape))
        below, above = value <= self.low, value >= self.high
        # Up to the bound from one side, any distance to the other.
        least = np.where(below, -np.inf, np.where(above, self.high - value, 0))
        most = np.where(above, np.inf, np.where(below, self.low - value, 0))
        ends = [np.where(inverse == 0, 0, end * np.where(inverse == 0, 1, inverse)) for end in (least, most)]
        return np.minimum(*ends).astype(np.float32), np.maximum(*ends).astype(np.float32)


def downstream_of(removal: Removal, parameters: Parameters, layer: LinearLayer) -> Downstream | None:
    """What becomes of the output of `layer`, of the pruned graph; None if that is neither a sum nor flat anywhere."""
    static, axes = removal.groups.static, removal.groups.tracing.axes
    tensor, residual, factor = layer.node.output[0], "", np.ones((), np.float32)
    while (consumer := parameters.only_consumer(tensor)) is not None:
        bounds, lines = flat_bounds(parameters, consumer), axes.get(tensor, ())
        if bounds is not None:
            return Downstream(residual, tensor, lines, factor, *bounds) if _plain(lines) else None
        made, operand = consumer.output[0], _operand(parameters, consumer, tensor)
        step = None if operand else factor_of(parameters, consumer, tensor, len(static.shapes.get(made, ())))
        if operand and not residual and static.shapes.get(operand) == static.shapes.get(made):
            residual = operand
            if consumer.op_type in NORMED:
                break
        elif (
            step is None
            or (consumer.op_type in LAID_OUT and (factor.ndim or not layer.in_order))
            or (residual and (step != 1).any())
        ):
            break
        else:
            factor = factor * step
        tensor = made
    lines = axes.get(residual, ())
    return Downstream(residual, "", lines, factor) if residual and _plain(lines) else None


def _plain(axes: Axes) -> bool:
    return bool(axes) and all(line.ndim == 1 for line in axes)


def _operand(parameters: Parameters, consumer: onnx.NodeProto, tensor: str) -> str:
    """The other operand of a sum of two; empty if the node is none."""
    others = [n for n in consumer.input if n and n != tensor and not parameters.is_constant(n)]
    is_sum = consumer.op_type in SUMS and len(others) == 1 and {tensor, *others} == set(consumer.input[:2])
    return _uncoded(parameters, others[0]) if is_sum else ""


def _uncoded(parameters: Parameters, tensor: str) -> str:
    """What a tensor was before it was said in steps, which is known by this name in a float model, too."""
    decoder = parameters.producer(tensor)
    coder = parameters.producer(decoder.input[0]) if decoder is not None and decoder.op_type in CODED else None
    return coder.input[0] if coder is not None and coder.op_type == "QuantizeLinear" else tensor


def flat_bounds(parameters: Parameters, consumer: onnx.NodeProto) -> tuple[float, float] | None:
    """Find the bounds of an activation that is flat somewhere.

    Args:
        parameters: the model.
        consumer: a node.

    Returns:
        At and below the first the node gives one number, and at and above the second; None for other nodes.
    """
    if consumer.op_type == "QuantizeLinear":
        return _saturated(parameters, consumer)
    if consumer.op_type != "Clip":
        return FLAT.get(consumer.op_type)
    given = {a.name: a.f for a in consumer.attribute}
    for name, bound in zip(("min", "max"), consumer.input[1:], strict=False):
        if bound and not parameters.is_stored(bound):
            return None
        if bound:
            given[name] = float(parameters.value(bound).reshape(-1)[0])
    return given.get("min", -math.inf), given.get("max", math.inf)


def _saturated(parameters: Parameters, node: onnx.NodeProto) -> tuple[float, float] | None:
    """The bounds of what a QuantizeLinear tells apart, where one of them is zero, as behind a Relu that it replaces."""
    scale, *zero = node.input[1:]
    if not all(map(parameters.is_stored, (scale, *zero))) or parameters.value(scale).size != 1:
        return None
    point = parameters.value(zero[0]) if zero else np.zeros((), np.uint8)
    if point.dtype.kind not in "iu":
        return None
    limits, step = np.iinfo(point.dtype), float(parameters.value(scale).item())
    low, high = ((end - float(point.item())) * step for end in (limits.min, limits.max))
    return (low, high) if low == 0 or high == 0 else None


def factor_of(parameters: Parameters, consumer: onnx.NodeProto, tensor: str, rank: int) -> Array | None:
    """Find what a node multiplies `tensor` with, beside adding a constant.

    Args:
        parameters: the model.
        consumer: the node.
        tensor: one of its inputs.
        rank: that of its output.

    Returns:
        The factor, broadcastable to the output; None if the node does anything else.
    """
    of, rest = consumer.op_type, [n for n in consumer.input if n != tensor]
    if (consumer.input[0] == tensor and (of in SAME or of in LAID_OUT or of in CODED)) or (
        of == "Add" and parameters.is_constant(rest[0])
    ):
        return np.ones((), np.float32)
    if of == "Mul" and len(rest) == 1 and parameters.is_stored(rest[0]):
        return parameters.value(rest[0]).astype(np.float32)
    if of == "BatchNormalization" and consumer.input[0] == tensor and all(map(parameters.is_stored, rest)):
        scale, _, _, variance = (parameters.value(n).astype(np.float32) for n in rest)
        epsilon = next((a.f for a in consumer.attribute if a.name == "epsilon"), 1e-5)
        return (scale / np.sqrt(variance + np.float32(epsilon))).reshape(-1, *[1] * (rank - 2))
    return None
