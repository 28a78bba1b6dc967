"""Pooling over windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.registry import BackwardNode, NoGradient, register_vjp
from onnxprune.autodiff.vjp.convolution import Window, spread_back, window

Gradients = Sequence[Value | None]
_INT64 = np.dtype(np.int64)


@register_vjp("MaxPool")
def _max_pool(node: BackwardNode) -> Gradients:
    """Every window gives its gradient to the position that it took; windows that overlap add up."""
    if node.attributes.get("storage_order"):
        options = {k: v for k, v in node.attributes.items() if k != "storage_order"}
        shapes = [node.y.shape, node.y.shape]
        _, places = node.graph.ops("MaxPool", [node.x], shapes, [None, _INT64], **options)
    else:
        places = node.extra_output(1, node.y.shape, _INT64)
    zeros = node.graph.zeros((node.x.size,), node.dy.dtype)
    flat = places.reshape([node.y.size]), node.dy.reshape([node.y.size])
    added = node.graph.op("ScatterElements", zeros, *flat, shape=zeros.shape, axis=0, reduction="add")
    return [added.reshape(node.x.shape)]


@register_vjp("GlobalMaxPool")
def _global_max_pool(node: BackwardNode) -> Gradients:
    mask = node.x.mask("Equal", node.y)
    return [node.dy / mask.sum(range(2, node.x.rank), keepdims=True) * mask]


@register_vjp("GlobalAveragePool")
def _global_average_pool(node: BackwardNode) -> Gradients:
    return [(node.dy * (1 / math.prod(node.x.shape[2:]))).expand(node.x.shape)]


@register_vjp("AveragePool")
def _average_pool(node: BackwardNode) -> Gradients:
    at = window(node, node.x.shape[2:], node.y.shape[2:], node.attributes["kernel_shape"])
    counts = _counts(at, node.x.shape[2:], node.y.shape[2:], bool(node.attributes.get("count_include_pad")))
    share = node.dy * node.graph.constant((1 / counts).astype(node.dy.dtype))
    return [_spread_evenly(share, node.x, at)]


def _spread_evenly(share: Value, x: Value, at: Window) -> Value:
    """Add the value of every window to all positions of the window, channel by channel."""
    planes = math.prod(x.shape[:2])
    ones = share.graph.constant(np.ones((1, 1, *at.kernel), share.dtype))
    flat = share.reshape([planes, 1, *share.shape[2:]])
    return spread_back(flat, ones, (planes, 1, *x.shape[2:]), at).reshape(x.shape)


def _counts(at: Window, inner: Sequence[int], outer: Sequence[int], with_padding: bool) -> np.ndarray:
    """How many positions every window averages over, float64[outer sizes]."""
    counts = np.ones(())
    for axis, (size, windows) in enumerate(zip(inner, outer, strict=True)):
        starts = np.arange(windows) * at.strides[axis] - at.before[axis]
        taps = starts[:, None] + np.arange(at.kernel[axis]) * at.dilations[axis]
        low, high = (-at.before[axis], size + at.after[axis]) if with_padding else (0, size)
        counts = np.multiply.outer(counts, ((taps >= low) & (taps < high)).sum(1))
    return counts


@register_vjp("LpPool")
def _lp_pool(node: BackwardNode) -> Gradients:
    """d|x|_p / dx = sign(x) |x|^(p-1) / |x|_p^(p-1); windows of zeros give nothing."""
    power = node.attributes.get("p", 2)
    if node.attributes.get("ceil_mode") or "kernel_shape" not in node.attributes:
        raise NoGradient("LpPool that rounds sizes up")
    at = window(node, node.x.shape[2:], node.y.shape[2:], node.attributes["kernel_shape"])
    positive = node.y.compare("Greater", 0.0)
    norm = positive.where(node.y, node.y.like(1.0))
    share = positive.where(node.dy / norm ** float(power - 1), node.dy.like(0.0))
    spread = _spread_evenly(share, node.x, at)
    return [spread * node.x.map("Sign") * node.x.map("Abs") ** float(power - 1)]


@register_vjp("GlobalLpPool")
def _global_lp_pool(node: BackwardNode) -> Gradients:
    power = node.attributes.get("p", 2)
    norm = node.y.compare("Greater", 0.0).where(node.y, node.y.like(1.0))
    slope = node.x.map("Sign") * node.x.map("Abs") ** float(power - 1)
    return [node.dy / norm ** float(power - 1) * slope]
