"""Quantisation with straight-through gradients.

Rounding is passed straight through; saturation stops the gradient (Bengio et al. 2013, Jacob et al. 2018). An integer
tensor carries the gradient by its own numbers, as if they had not been rounded, so scales may differ between the two
ends, and integers may be multiplied, moved and pooled in between. The gradient by a scale is that of learned step
sizes (Esser et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import helper

from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.registry import ZERO, BackwardNode, NoGradient, register_vjp
from onnxprune.autodiff.vjp.convolution import spread_back, window

Gradients = Sequence[Value | None]
_FLOAT = np.dtype(np.float32)


@register_vjp("DequantizeLinear")
def _dequantize(node: BackwardNode) -> Gradients:
    scale = node.input(1)
    by_scale = None
    if node.needed(1):
        steps = node.x.cast(scale.dtype)
        if node.has(2):
            steps = steps - _spread(node, node.input(2).cast(scale.dtype))
        by_scale = _collected(node, node.dy * steps, scale)
    return [node.dy * _spread(node, scale), by_scale]


@register_vjp("QuantizeLinear")
def _quantize(node: BackwardNode) -> Gradients:
    scale, zero = node.input(1), node.input(2) if node.has(2) else None
    kind = np.dtype(np.uint8)
    if zero is not None:
        kind = zero.dtype
    elif node.attributes.get("output_dtype"):
        kind = helper.tensor_dtype_to_np_dtype(node.attributes["output_dtype"])
    low, high = _limits(kind)
    steps = node.x / _spread(node, scale)
    places = steps if zero is None else steps + _spread(node, zero.cast(steps.dtype))
    # Half a step more on both sides rounds to the last step and does not saturate.
    inside = places.mask("GreaterOrEqual", low - 0.5) * places.mask("LessOrEqual", high + 0.5)
    by_steps = node.dy * inside
    by_x = by_steps / _spread(node, scale)
    return [by_x, _collected(node, -(by_x * steps), scale) if node.needed(1) else None]


def _limits(kind: np.dtype) -> tuple[float, float]:
    """The smallest and the largest number of an integer type, those of two and four bits included."""
    if "int" not in kind.name:
        raise NoGradient(f"QuantizeLinear to {kind}")
    bits = int(kind.name.partition("int")[2])
    return (0.0, 2.0**bits - 1) if kind.name.startswith("u") else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)


def _spread(node: BackwardNode, values: Value) -> Value:
    """Scales or zero points, laid out so that they broadcast against the input."""
    if values.size == 1:
        return values.reshape(())
    axis, shape = node.attributes.get("axis", 1) % node.x.rank, node.x.shape
    if values.rank == 1:
        return values.reshape([n if a == axis else 1 for a, n in enumerate(shape)])
    block = node.attributes["block_size"]
    apart = values.reshape([*values.shape[: axis + 1], 1, *values.shape[axis + 1 :]])
    repeated = apart.expand([*values.shape[: axis + 1], block, *values.shape[axis + 1 :]])
    whole = repeated.reshape([n * block if a == axis else n for a, n in enumerate(values.shape)])
    return whole.slice(axis, 0, shape[axis])


def _collected(node: BackwardNode, gradient: Value, values: Value) -> Value:
    """The adjoint of `_spread`: what every scale gathers from the positions that it scales."""
    if values.size == 1:
        return gradient.sum(range(gradient.rank)).reshape(values.shape)
    axis = node.attributes.get("axis", 1) % node.x.rank
    if values.rank == 1:
        return gradient.sum([a for a in range(gradient.rank) if a != axis])
    block, count = node.attributes["block_size"], values.shape[axis]
    missing = [count * block - n if a == axis else 0 for a, n in enumerate(gradient.shape)]
    whole = gradient.pad([0] * gradient.rank, missing)
    return whole.reshape([*whole.shape[:axis], count, block, *whole.shape[axis + 1 :]]).sum([axis + 1])


@register_vjp("DynamicQuantizeLinear")
def _dynamic_quantize(node: BackwardNode) -> Gradients:
    """Scale and zero point follow the input, so nothing saturates, and what is dequantised is the input again."""
    by_steps, scale = node.gradients[0], node.outputs[1]
    assert scale is not None
    return [ZERO if by_steps is None else by_steps / scale]


@register_vjp("MatMulInteger")
def _matmul_integer(node: BackwardNode) -> Gradients:
    a, b = _centred(node, 0, axis=-2), _centred(node, 1, axis=-1)
    return [
        (node.dy @ b.mT).sum_to(a.shape) if node.needed(0) else None,
        (a.mT @ node.dy).sum_to(b.shape) if node.needed(1) else None,
    ]


def _centred(node: BackwardNode, slot: int, axis: int) -> Value:
    """An integer operand less its zero point, which is one number or one for each position of `axis`."""
    value = node.input(slot).cast(_FLOAT)
    if not node.has(slot + 2):
        return value
    zero = node.input(slot + 2).cast(_FLOAT)
    if zero.rank == 1 and zero.size > 1:
        zero = zero.reshape([zero.size, 1] if axis == -2 else [1, zero.size])
    return value - zero


@register_vjp("ConvInteger")
def _conv_integer(node: BackwardNode) -> Gradients:
    weight = node.input(1).cast(_FLOAT)
    if node.has(3):
        zero = node.input(3).cast(_FLOAT)
        weight = weight - (zero.reshape([zero.size, *[1] * (weight.rank - 1)]) if zero.size > 1 else zero.reshape(()))
    at = window(node, node.x.shape[2:], node.dy.shape[2:], weight.shape[2:])
    return node.only_first(spread_back(node.dy, weight, node.x.shape, at))
