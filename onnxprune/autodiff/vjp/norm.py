"""Normalisation: gradients by the input, the scale and the shift."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.registry import BackwardNode, NoGradient, register_vjp

Gradients = Sequence[Value | None]


def _through(q: Value, normal: Value, inverse: Value, axes: Sequence[int]) -> Value:
    """Gradient by the input of a norm that subtracts the mean and divides by the deviation.

    Args:
        q: gradient of the normalised values.
        normal: normalised values.
        inverse: one over the deviation.
        axes: axes that mean and deviation are taken along.
    """
    centred = q - q.mean(axes, keepdims=True)
    return inverse * (centred - normal * (q * normal).mean(axes, keepdims=True))


def _inverse_deviation(variance: Value, epsilon: float) -> Value:
    return (variance + epsilon).map("Sqrt").map("Reciprocal")


@register_vjp("BatchNormalization")
def _batch_norm(node: BackwardNode) -> Gradients:
    """With frozen statistics the node is affine along channels; the training copy has no others."""
    x, scale, dy = node.x, node.input(1), node.dy
    along, axes = [1, x.shape[1], *[1] * (x.rank - 2)], [0, *range(2, x.rank)]
    mean, variance = node.input(3).reshape(along), node.input(4).reshape(along)
    inverse = _inverse_deviation(variance, node.attributes.get("epsilon", 1e-5))
    gradients: list[Value | None] = [None] * len(node.inputs)
    if node.needed(0):
        gradients[0] = dy * (scale.reshape(along) * inverse)
    if not any(node.needed(slot) for slot in range(1, 5)):
        return gradients
    # sum(dy (x - mean)) without a tensor of the size of x for (x - mean).
    shift = dy.sum(axes)
    product = (dy * x).sum(axes) - mean.reshape(scale.shape) * shift
    flat = inverse.reshape(scale.shape)
    gradients[1:3] = [flat * product, shift]
    if node.needed(3):
        gradients[3] = -(shift * scale * flat)
    if node.needed(4):
        gradients[4] = product * scale * flat * flat * flat * -0.5
    return gradients


@register_vjp("LayerNormalization")
def _layer_norm(node: BackwardNode) -> Gradients:
    x, scale, dy = node.x, node.input(1), node.dy
    first = node.attributes.get("axis", -1) % x.rank
    axes = list(range(first, x.rank))
    mean, inverse = _statistics(node, axes)
    normal = (x - mean) * inverse
    gradients: list[Value | None] = [None] * len(node.inputs)
    if node.needed(0):
        by_input = _through(dy * scale, normal, inverse, axes)
        share = 1 / math.prod(x.shape[first:])
        by_mean, by_inverse = [*node.gradients, None, None][1:3]
        if by_mean is not None:
            by_input = by_input + by_mean * share
        if by_inverse is not None:  # d(1 / s) / dx = -(x - mean) / (n s^3)
            by_input = by_input - normal * inverse * inverse * by_inverse * share
        gradients[0] = by_input
    if node.needed(1):
        gradients[1] = (dy * normal).sum_to(scale.shape)
    if node.needed(2):
        gradients[2] = dy.sum_to(node.input(2).shape)
    return gradients


def _statistics(node: BackwardNode, axes: Sequence[int]) -> tuple[Value, Value]:
    """Mean and inverse deviation; the operator gives them in single precision alone."""
    x = node.x
    if x.dtype == np.float32:
        kept = x.reduced_shape(axes, keepdims=True)
        return node.extra_output(1, kept, x.dtype), node.extra_output(2, kept, x.dtype)
    mean = x.mean(axes, keepdims=True)
    variance = ((x - mean) * (x - mean)).mean(axes, keepdims=True)
    return mean, _inverse_deviation(variance, node.attributes.get("epsilon", 1e-5))


@register_vjp("RMSNormalization")
def _rms_norm(node: BackwardNode) -> Gradients:
    x, scale, dy = node.x, node.input(1), node.dy
    axes = list(range(node.attributes.get("axis", -1) % x.rank, x.rank))
    inverse = _inverse_deviation((x * x).mean(axes, keepdims=True), node.attributes.get("epsilon", 1e-5))
    normal = x * inverse
    gradients: list[Value | None] = [None] * len(node.inputs)
    if node.needed(0):
        q = dy * scale
        gradients[0] = inverse * (q - normal * (q * normal).mean(axes, keepdims=True))
    if node.needed(1):
        gradients[1] = (dy * normal).sum_to(scale.shape)
    return gradients


@register_vjp("InstanceNormalization")
def _instance_norm(node: BackwardNode) -> Gradients:
    x, scale, dy = node.x, node.input(1), node.dy
    axes = list(range(2, x.rank))
    along = [1, x.shape[1], *[1] * len(axes)]
    centred = x - x.mean(axes, keepdims=True)
    inverse = _inverse_deviation((centred * centred).mean(axes, keepdims=True), node.attributes.get("epsilon", 1e-5))
    normal = centred * inverse
    return [
        _through(dy * scale.reshape(along), normal, inverse, axes) if node.needed(0) else None,
        (dy * normal).sum([0, *axes]) if node.needed(1) else None,
        dy.sum([0, *axes]) if node.needed(2) else None,
    ]


@register_vjp("GroupNormalization")
def _group_norm(node: BackwardNode) -> Gradients:
    """Scale and shift have an entry per channel from opset 21 on, and one per group before."""
    x, scale, dy = node.x, node.input(1), node.dy
    groups = node.attributes["num_groups"]
    inner = math.prod(x.shape[1:]) // groups
    rows = [x.shape[0], groups, inner]
    per_row = x.shape[1] // groups
    affine = [1, scale.shape[0], *[1] * (x.rank - 2)]

    def spread(value: Value) -> Value:
        if scale.shape[0] == x.shape[1]:
            return value.reshape(affine)
        return value.reshape([groups, 1]).expand([groups, per_row]).reshape([1, x.shape[1], *affine[2:]])

    def collect(value: Value) -> Value:
        summed = value.sum([0, *range(2, x.rank)])
        return summed if scale.shape[0] == x.shape[1] else summed.reshape([groups, per_row]).sum([1])

    flat = x.reshape(rows)
    centred = flat - flat.mean([2], keepdims=True)
    inverse = _inverse_deviation((centred * centred).mean([2], keepdims=True), node.attributes.get("epsilon", 1e-5))
    normal = centred * inverse
    by_input = None
    if node.needed(0):
        by_input = _through((dy * spread(scale)).reshape(rows), normal, inverse, [2]).reshape(x.shape)
    return [
        by_input,
        collect(dy * normal.reshape(x.shape)) if node.needed(1) else None,
        collect(dy) if node.needed(2) else None,
    ]


@register_vjp("MeanVarianceNormalization")
def _mean_variance_norm(node: BackwardNode) -> Gradients:
    x = node.x
    axes = [a % x.rank for a in node.attributes.get("axes", [0, 2, 3])]
    centred = x - x.mean(axes, keepdims=True)
    inverse = _inverse_deviation((centred * centred).mean(axes, keepdims=True), 1e-9)
    return [_through(node.dy, centred * inverse, inverse, axes)]


@register_vjp("LpNormalization")
def _lp_norm(node: BackwardNode) -> Gradients:
    x, axis, power = node.x, node.attributes.get("axis", -1), node.attributes.get("p", 2)
    size = x.map("Abs").sum([axis], keepdims=True) if power == 1 else (x * x).sum([axis], keepdims=True).map("Sqrt")
    size = size.compare("Greater", 0.0).where(size, size.like(1.0))
    along = (node.dy * node.y).sum([axis], keepdims=True)
    slope = x.map("Sign") if power == 1 else node.y
    return [(node.dy - slope * along) / size]


@register_vjp("LRN")
def _lrn(node: BackwardNode) -> Gradients:
    """Y = x s^-beta with s = bias + alpha / size * (sum of squares over neighbouring channels)."""
    x, given = node.x, node.attributes
    size, alpha, beta = given["size"], given.get("alpha", 1e-4), given.get("beta", 0.75)
    if size > 2 * x.shape[1]:
        raise NoGradient("LRN over more channels than there are")
    before, after = (size - 1) // 2, size // 2

    def neighbours(value: Value, front: int, back: int) -> Value:
        places = [value.shape[0], 1, value.shape[1], math.prod(value.shape[2:])]
        pads = [front, 0, back, 0]
        mean = value.graph.op(
            "AveragePool",
            value.reshape(places),
            shape=places,
            kernel_shape=[size, 1],
            pads=pads,
            count_include_pad=1,
        )
        return (mean * float(size)).reshape(value.shape)

    base = neighbours(x * x, before, after) * (alpha / size) + given.get("bias", 1.0)
    spread = neighbours(node.dy * node.y / base, after, before)
    return [node.dy * base ** (-beta) - x * spread * (2 * alpha * beta / size)]
