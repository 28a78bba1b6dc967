"""Operators that pick or place elements by index. The adjoint of picking adds at the places that were picked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxprune.autodiff.builder import Shape, Value
from onnxprune.autodiff.registry import ZERO, BackwardNode, NoGradient, register_vjp

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
    index, updates = node.input(1), node.input(2)
    if node.attributes.get("reduction", "none") == "none":
        _refuse_repeats(index)

    def picked(value: Value) -> Value:
        return value.graph.op("GatherND", value, index, shape=updates.shape)

    def scattered(value: Value, parts: Value, reduction: str) -> Value:
        return value.graph.op("ScatterND", value, index, parts, shape=value.shape, reduction=reduction)

    return _scatter_gradients(node, picked, scattered)


@register_vjp("ScatterElements", "Scatter")
def _scatter_elements(node: BackwardNode) -> Gradients:
    axis, index, updates = node.attributes.get("axis", 0), node.input(1), node.input(2)

    def picked(value: Value) -> Value:
        return value.graph.op("GatherElements", value, index, shape=updates.shape, axis=axis)

    def scattered(value: Value, parts: Value, reduction: str) -> Value:
        return value.graph.op("ScatterElements", value, index, parts, shape=value.shape, axis=axis, reduction=reduction)

    return _scatter_gradients(node, picked, scattered)


def _scatter_gradients(
    node: BackwardNode, picked: Callable[[Value], Value], scattered: Callable[[Value, Value, str], Value]
) -> Gradients:
    """Gradients of an operator that writes updates into data.

    Args:
        node: the node.
        picked: reads a tensor of the data's shape at the places of the updates.
        scattered: writes updates into a tensor of the data's shape, by a reduction.
    """
    reduction = node.attributes.get("reduction", "none")
    data, updates, dy = node.x, node.input(2), node.dy
    if reduction == "add":
        return [dy, None, picked(dy) if node.needed(2) else None]
    if reduction in ("max", "min"):
        # What reached the extreme shares the gradient; a place without an update is its own extreme.
        own, new = data.mask("Equal", node.y), updates.mask("Equal", picked(node.y))
        share = dy / scattered(own, new, "add")
        return [share * own, None, picked(share) * new]
    if reduction == "mul":
        return [dy * scattered(_filled(dy, 1.0), updates, "mul"), None, _factors(node, picked, scattered)]
    if not node.needed(0):
        return [None, None, picked(dy)]
    zeros = node.graph.zeros(updates.shape, dy.dtype)
    return [scattered(dy, zeros, "none"), None, picked(dy) if node.needed(2) else None]


def _factors(
    node: BackwardNode, picked: Callable[[Value], Value], scattered: Callable[[Value, Value, str], Value]
) -> Value:
    """The gradient by factors: the product of the others, which may hold zeros."""
    updates, dy = node.input(2), node.dy
    zero = updates.compare("Equal", 0.0)
    ones = zero.where(updates.like(1.0), updates)
    count = scattered(node.graph.zeros(dy.shape, dy.dtype), zero.cast(dy.dtype), "add")
    rest = picked(dy * scattered(node.x, ones, "mul")) / ones
    # All other factors differ from zero where no zero is left besides this one.
    return rest * (picked(count) - zero.cast(dy.dtype)).mask("Equal", 0.0)


def _filled(like: Value, number: float) -> Value:
    return like.like(number).expand(like.shape)


def _refuse_repeats(index: Value) -> None:
    """Where two updates meet, ONNX does not say which one stays."""
    known = index.constant
    if known is not None:
        rows = known.reshape(-1, known.shape[-1])
        if len(np.unique(rows, axis=0)) < len(rows):
            raise NoGradient("ScatterND writes to one place twice")


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


@register_vjp("OneHot")
def _one_hot(node: BackwardNode) -> Gradients:
    """The values are [off, on]; indices and depth are numbers of positions, whatever their type."""
    axis = node.attributes.get("axis", -1)
    values = node.graph.constant(np.array([0, 1], node.dy.dtype))
    mask = node.graph.op(
        "OneHot", node.input(0), node.input(1), values, shape=node.dy.shape, dtype=values.dtype, axis=axis
    )
    on = (node.dy * mask).sum(range(mask.rank)).reshape([1])
    total = node.dy.sum(range(mask.rank)).reshape([1])
    return [ZERO, ZERO, node.graph.concat([total - on, on], 0)]


@register_vjp("Unique")
def _unique(node: BackwardNode) -> Gradients:
    """Every value comes from the place where it is met first."""
    axis = node.attributes.get("axis")
    count = node.y.shape[0 if axis is None else axis]
    places = node.extra_output(1, (count,), _INT64).reshape([count, 1])
    if axis is None:
        return [_added_rows((node.x.size,), places, node.dy).reshape(node.x.shape)]
    along = axis % node.x.rank
    order = [along, *(a for a in range(node.x.rank) if a != along)]
    added = _added_rows(tuple(node.x.shape[a] for a in order), places, node.dy.transpose(order))
    return [added.transpose([int(a) for a in np.argsort(order)])]


@register_vjp("MaxUnpool")
def _max_unpool(node: BackwardNode) -> Gradients:
    rest = [node.input(slot) for slot in range(1, len(node.inputs))]
    attributes = {k: v for k, v in node.attributes.items() if k in ("kernel_shape", "pads", "strides")}
    (gradient,) = _traced(node, [0], lambda x: node.graph.op("MaxUnpool", x, *rest, shape=node.y.shape, **attributes))
    return node.only_first(gradient)


@register_vjp("TensorScatter")
def _tensor_scatter(node: BackwardNode) -> Gradients:
    rest = [node.input(slot) for slot in range(2, len(node.inputs))]

    def repeat(past: Value, update: Value) -> Value:
        return node.graph.op("TensorScatter", past, update, *rest, shape=node.y.shape, **node.attributes)

    return _traced(node, [0, 1], repeat)


# Numbers up to this are whole in single precision.
_COUNTABLE = 2**24


def _traced(node: BackwardNode, slots: Sequence[int], repeat: Callable[..., Value]) -> list[Value]:
    """Gradients of an operator that moves elements: it is repeated on their numbers, to see where each one goes.

    Args:
        node: the node; every element of its output is one of its inputs' elements, or zero.
        slots: the inputs whose elements are moved.
        repeat: the operator, as a function of these inputs.
    """
    sizes = [node.input(slot).size for slot in slots]
    if sum(sizes) >= _COUNTABLE:
        raise NoGradient(f"{node.node.op_type} of more than {_COUNTABLE} elements")
    numbers = np.arange(1, sum(sizes) + 1, dtype=node.x.dtype)  # zero is what comes from no element
    ends = np.cumsum(sizes)
    parts = [
        node.graph.constant(numbers[end - size : end].reshape(node.input(slot).shape))
        for slot, size, end in zip(slots, sizes, ends, strict=True)
    ]
    places = repeat(*parts).cast(_INT64).reshape([node.y.size, 1])
    total = _added_rows((sum(sizes) + 1,), places, node.dy.reshape([node.y.size]))
    return [
        total.slice(0, int(end - size + 1), int(end + 1)).reshape(node.input(slot).shape)
        for slot, size, end in zip(slots, sizes, ends, strict=True)
    ]


@register_vjp("ArrayFeatureExtractor", domain="ai.onnx.ml")
def _array_feature_extractor(node: BackwardNode) -> Gradients:
    """Positions of the last axis; what has one axis becomes a row."""
    x, index = node.x, node.input(1)
    count, length = index.size, x.shape[-1]
    rows = node.dy.reshape([x.size // length, count])
    added = _added_rows((length, x.size // length), _wrapped(index, length).reshape([count, 1]), rows.transpose([1, 0]))
    return [added.transpose([1, 0]).reshape(x.shape), None]
