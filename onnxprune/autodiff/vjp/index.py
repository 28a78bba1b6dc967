"""Operators that pick or place elements by index. The adjoint of picking adds at the places that were picked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.autodiff.builder import Shape, Value
from onnxprune.autodiff.registry import BackwardNode, NoGradient, register_vjp

Gradients = Sequence[Value | None]
_INT64 = np.dtype(np.int64)


def _wrapped(index: Value, size: int) -> Value:
    """Indices as int64, with negative ones counted from the end."""
    known = index.constant
    if known is not None:
        return index.graph.constant(np.where(known < 0, known + size, known).astype(np.int64))
    wide = index.cast(_INT64)
    return wide.compare("Less", 0).where(wide + size, wide)


def _added_rows(target: Shape, index: Value, rows: Value) -> Value:
    """Zeros of shape `target` to which `rows` are added at `index` (ScatterND's meaning)."""
    zeros = rows.graph.zeros(target, rows.dtype)
    return rows.graph.op("ScatterND", zeros, index, rows, shape=target, reduction="add")


@register_vjp("Gather")
def _gather(node: BackwardNode) -> Gradients:
    x, index = node.x, node.input(1)
    axis = node.attributes.get("axis", 0) % x.rank
    count = index.size
    gradient = node.dy.reshape([*x.shape[:axis], count, *x.shape[axis + 1 :]])
    known = index.constant
    if known is not None and known.size == 1:
        position = int(known.reshape(-1)[0]) % x.shape[axis]
        before = [position if a == axis else 0 for a in range(x.rank)]
        after = [x.shape[axis] - 1 - position if a == axis else 0 for a in range(x.rank)]
        return [gradient.pad(before, after), None]
    order = [axis, *(a for a in range(x.rank) if a != axis)]
    places = _wrapped(index, x.shape[axis]).reshape([count, 1])
    added = _added_rows(tuple(x.shape[a] for a in order), places, gradient.transpose(order))
    return [added.transpose([int(a) for a in np.argsort(order)]), None]


@register_vjp("GatherElements")
def _gather_elements(node: BackwardNode) -> Gradients:
    return [_added_elements(node.x, node.input(1), node.dy, node.attributes.get("axis", 0)), None]


def _added_elements(like: Value, index: Value, updates: Value, axis: int) -> Value:
    zeros = like.graph.zeros(like.shape, updates.dtype)
    return like.graph.op("ScatterElements", zeros, index, updates, shape=like.shape, axis=axis, reduction="add")


@register_vjp("GatherND")
def _gather_nd(node: BackwardNode) -> Gradients:
    x, index = node.x, node.input(1)
    batch = node.attributes.get("batch_dims", 0)
    depth = index.shape[-1]
    sizes = x.shape[batch : batch + depth]
    places = [_wrapped(_column(index, i), size) for i, size in enumerate(sizes)]
    lead = index.shape[:-1]
    grids = []
    for a in range(batch):
        grid = np.arange(lead[a], dtype=np.int64).reshape([-1 if b == a else 1 for b in range(len(lead))])
        grids.append(x.graph.constant(np.broadcast_to(grid, lead)[..., None].copy()))
    full = x.graph.concat([*grids, *places], len(lead))
    return [_added_rows(x.shape, full, node.dy), None]


def _column(index: Value, column: int) -> Value:
    return index.slice(index.rank - 1, column, column + 1)


@register_vjp("ScatterND")
def _scatter_nd(node: BackwardNode) -> Gradients:
    reduction = node.attributes.get("reduction", "none")
    index, updates = node.input(1), node.input(2)
    picked = None
    if node.needed(2):
        picked = node.graph.op("GatherND", node.dy, index, shape=updates.shape)
    if reduction == "add":
        return [node.dy, None, picked]
    if reduction != "none":
        raise NoGradient(f"ScatterND with reduction {reduction!r}")
    _refuse_repeats(index)
    zeros = node.graph.zeros(updates.shape, node.dy.dtype)
    rest = node.graph.op("ScatterND", node.dy, index, zeros, shape=node.dy.shape) if node.needed(0) else None
    return [rest, None, picked]


def _refuse_repeats(index: Value) -> None:
    """Where two updates meet, ONNX does not say which one stays."""
    known = index.constant
    if known is not None:
        rows = known.reshape(-1, known.shape[-1])
        if len(np.unique(rows, axis=0)) < len(rows):
            raise NoGradient("ScatterND writes to one place twice")


@register_vjp("ScatterElements", "Scatter")
def _scatter_elements(node: BackwardNode) -> Gradients:
    reduction = node.attributes.get("reduction", "none")
    axis, index, updates = node.attributes.get("axis", 0), node.input(1), node.input(2)
    picked = None
    if node.needed(2):
        picked = node.graph.op("GatherElements", node.dy, index, shape=updates.shape, axis=axis)
    if reduction == "add":
        return [node.dy, None, picked]
    if reduction != "none":
        raise NoGradient(f"ScatterElements with reduction {reduction!r}")
    if not node.needed(0):
        return [None, None, picked]
    zeros = node.graph.zeros(updates.shape, node.dy.dtype)
    rest = node.graph.op("ScatterElements", node.dy, index, zeros, shape=node.dy.shape, axis=axis)
    return [rest, None, picked]


@register_vjp("TopK")
def _top_k(node: BackwardNode) -> Gradients:
    axis = node.attributes.get("axis", -1)
    places = node.extra_output(1, node.y.shape, _INT64)
    return [_added_elements(node.x, places, node.dy, axis), None]


@register_vjp("Compress")
def _compress(node: BackwardNode) -> Gradients:
    condition = node.constant(1, "the condition of Compress").astype(bool).reshape(-1)
    axis = node.attributes.get("axis")
    x = node.x if axis is not None else node.x.reshape([node.x.size])
    along = 0 if axis is None else axis % x.rank
    places = node.graph.constant(np.flatnonzero(condition).astype(np.int64).reshape(-1, 1))
    order = [along, *(a for a in range(x.rank) if a != along)]
    added = _added_rows(tuple(x.shape[a] for a in order), places, node.dy.transpose(order))
    return [added.transpose([int(a) for a in np.argsort(order)]).reshape(node.x.shape), None]
