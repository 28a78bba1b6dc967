"""Quantisation with straight-through gradients.

Rounding is passed straight through; saturation stops the gradient. The integer tensor between QuantizeLinear and
DequantizeLinear carries the gradient of the real numbers that it stands for (Bengio et al. 2013, Jacob et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import helper

from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.registry import BackwardNode, NoGradient, register_vjp
from onnxprune.typing import Array

Gradients = Sequence[Value | None]


@register_vjp("DequantizeLinear")
def _dequantize(node: BackwardNode) -> Gradients:
    return node.only_first(node.dy)


@register_vjp("QuantizeLinear")
def _quantize(node: BackwardNode) -> Gradients:
    scale = _per_position(node, node.constant(1, "the scale of QuantizeLinear"))
    zero = np.zeros((), np.uint8)
    if node.has(2):
        zero = node.constant(2, "the zero point of QuantizeLinear")
    elif node.attributes.get("output_dtype"):
        zero = np.zeros((), helper.tensor_dtype_to_np_dtype(node.attributes["output_dtype"]))
    if zero.dtype.kind not in "iu":
        raise NoGradient(f"QuantizeLinear to {zero.dtype}")
    limits, offset = np.iinfo(zero.dtype), _per_position(node, zero.astype(np.float64))
    # Half a step more on both sides rounds to the last step and does not saturate.
    low = ((limits.min - 0.5 - offset) * scale).astype(node.x.dtype)
    high = ((limits.max + 0.5 - offset) * scale).astype(node.x.dtype)
    inside = node.x.mask("GreaterOrEqual", node.graph.constant(low))
    inside = inside * node.x.mask("LessOrEqual", node.graph.constant(high))
    return node.only_first(node.dy * inside)


def _per_position(node: BackwardNode, values: Array) -> Array:
    """Scales or zero points laid out so that they broadcast against the input."""
    if values.size == 1:
        return values.reshape(())
    axis, shape = node.attributes.get("axis", 1) % node.x.rank, node.x.shape
    if values.ndim == 1:
        return values.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    block = node.attributes["block_size"]
    return np.repeat(values, block, axis)[tuple(slice(n) for n in shape)]
