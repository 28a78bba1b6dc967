"""Reductions along axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.registry import BackwardNode, register_vjp

Gradients = Sequence[Value | None]


def _axes(node: BackwardNode) -> list[int]:
    """Axes that the node reduces; none at all where the node passes its input on."""
    given = node.integers("axes", 1)
    if given:
        return [a % node.x.rank for a in given]
    return [] if node.attributes.get("noop_with_empty_axes") else list(range(node.x.rank))


def _kept(node: BackwardNode, value: Value) -> Value:
    """An output (or its gradient) with the reduced axes as axes of one position."""
    return value.reshape(node.x.reduced_shape(_axes(node), keepdims=True))


@register_vjp("ReduceSum")
def _sum(node: BackwardNode) -> Gradients:
    return node.only_first(_kept(node, node.dy).expand(node.x.shape))


@register_vjp("ReduceMean")
def _mean(node: BackwardNode) -> Gradients:
    count = math.prod(node.x.shape[a] for a in _axes(node))
    return node.only_first((_kept(node, node.dy) * (1 / max(count, 1))).expand(node.x.shape))


@register_vjp("ReduceMax", "ReduceMin")
def _extreme(node: BackwardNode) -> Gradients:
    """Positions that tie share the gradient equally."""
    mask = node.x.mask("Equal", _kept(node, node.y))
    return node.only_first(_kept(node, node.dy) / mask.sum(_axes(node), keepdims=True) * mask)


@register_vjp("ReduceProd")
def _prod(node: BackwardNode) -> Gradients:
    """The product of the other positions, taken without a division, so that zeros are no exception."""
    axes = _axes(node)
    x, rank = node.x, node.x.rank
    order = [a for a in range(rank) if a not in axes] + axes
    moved = x.transpose(order)
    kept = [x.shape[a] for a in order[: rank - len(axes)]]
    length = math.prod(x.shape[a] for a in axes)
    flat = moved.reshape([math.prod(kept), 1, length]).expand([math.prod(kept), length, length])
    eye = node.graph.constant(np.eye(length, dtype=x.dtype))
    others = flat * (1.0 - eye) + eye
    product = node.graph.op("ReduceProd", others, node.graph.integers([2]), shape=[math.prod(kept), length], keepdims=0)
    back = sorted(range(rank), key=order.__getitem__)
    return node.only_first(product.reshape(moved.shape).transpose(back) * _kept(node, node.dy))


@register_vjp("ReduceL1")
def _l1(node: BackwardNode) -> Gradients:
    return node.only_first(_kept(node, node.dy) * node.x.map("Sign"))


@register_vjp("ReduceL2")
def _l2(node: BackwardNode) -> Gradients:
    """Zero at zero, where the norm has a corner."""
    norm = _kept(node, node.y)
    safe = norm.compare("Greater", 0.0).where(norm, norm.like(1.0))
    return node.only_first(_kept(node, node.dy) / safe * node.x)


@register_vjp("ReduceSumSquare")
def _sum_square(node: BackwardNode) -> Gradients:
    return node.only_first(_kept(node, node.dy) * node.x * 2.0)


@register_vjp("ReduceLogSum")
def _log_sum(node: BackwardNode) -> Gradients:
    total = node.x.sum(_axes(node), keepdims=True)
    return node.only_first((_kept(node, node.dy) / total).expand(node.x.shape))


@register_vjp("ReduceLogSumExp")
def _log_sum_exp(node: BackwardNode) -> Gradients:
    return node.only_first(_kept(node, node.dy) * (node.x - _kept(node, node.y)).map("Exp"))


@register_vjp("CumProd")
def _cumulative_product(node: BackwardNode) -> Gradients:
    """dy_i / dx_k is the product of the other factors of y_i: it is taken with x_k replaced by one."""
    x, axis = node.x, int(node.constant(1, "the axis of CumProd").reshape(-1)[0]) % node.x.rank
    length, attributes = x.shape[axis], node.attributes
    order = [*(a for a in range(x.rank) if a != axis), axis]
    kept = [x.shape[a] for a in order[:-1]]
    rows = x.transpose(order).reshape([*kept, 1, length]).expand([*kept, length, length])
    eye = node.graph.constant(np.eye(length, dtype=x.dtype))
    others = rows * (1.0 - eye) + eye
    last = node.graph.constant(np.array(x.rank, node.input(1).dtype))
    products = node.graph.op("CumProd", others, last, shape=others.shape, **attributes)
    reach = np.tri(length, k=-1 if attributes.get("exclusive") else 0, dtype=x.dtype)  # [output, factor]
    reach = reach if attributes.get("reverse") else reach.T
    moved = node.dy.transpose(order).reshape([*kept, 1, length])
    gradient = (products * node.graph.constant(np.ascontiguousarray(reach)) * moved).sum([x.rank])
    return node.only_first(gradient.transpose([int(a) for a in np.argsort(order)]))
