"""Operators that move elements: shapes, orders, parts, copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.registry import BackwardNode, NoGradient, register_vjp

Gradients = Sequence[Value | None]


@register_vjp("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(node: BackwardNode) -> Gradients:
    return node.only_first(node.dy.reshape(node.x.shape))


@register_vjp("Transpose")
def _transpose(node: BackwardNode) -> Gradients:
    order = node.attributes.get("perm", list(range(node.x.rank))[::-1])
    return [node.dy.transpose([int(a) for a in np.argsort(order)])]


@register_vjp("Expand")
def _expand(node: BackwardNode) -> Gradients:
    return node.only_first(node.dy.sum_to(node.x.shape))


@register_vjp("Tile")
def _tile(node: BackwardNode) -> Gradients:
    repeats = [int(n) for n in node.constant(1, "how often Tile repeats")]
    pairs = [n for pair in zip(repeats, node.x.shape, strict=True) for n in pair]
    return node.only_first(node.dy.reshape(pairs).sum(range(0, len(pairs), 2)))


@register_vjp("Concat")
def _concat(node: BackwardNode) -> Gradients:
    axis = node.attributes["axis"] % node.y.rank
    gradients: list[Value | None] = []
    start = 0
    for slot, value in enumerate(node.inputs):
        stop = start + (value.shape[axis] if value is not None else 0)
        gradients.append(node.dy.slice(axis, start, stop) if node.needed(slot) else None)
        start = stop
    return gradients


@register_vjp("Split")
def _split(node: BackwardNode) -> Gradients:
    axis = node.attributes.get("axis", 0) % node.x.rank
    parts = [node.gradient(i) for i, output in enumerate(node.outputs) if output is not None]
    if len(parts) < len(node.outputs):
        raise NoGradient("an output of Split is left out")
    return node.only_first(node.graph.concat(parts, axis))


@register_vjp("Slice")
def _slice(node: BackwardNode) -> Gradients:
    starts, ends = node.integers("starts", 1) or [], node.integers("ends", 2) or []
    axes = node.integers("axes", 3) or list(range(len(starts)))
    steps = node.integers("steps", 4) or [1] * len(starts)
    gradient, shape = node.dy, node.x.shape
    before, after = [0] * len(shape), [0] * len(shape)
    for start, end, axis, step in zip(starts, ends, [a % len(shape) for a in axes], steps, strict=True):
        positions = _positions(shape[axis], start, end, step)
        if not len(positions):
            return node.only_first(node.graph.zeros(shape, gradient.dtype))
        if step < 0:
            gradient, positions = gradient.reversed(axis), positions[::-1]
        gradient = _spread(gradient, axis, abs(step))
        before[axis], after[axis] = positions[0], shape[axis] - 1 - positions[-1]
    return node.only_first(gradient.pad(before, after))


def _positions(size: int, start: int, end: int, step: int) -> range:
    """Positions that Slice takes; ONNX clamps bounds, and negative bounds count from the end."""
    low, high = (0, size) if step > 0 else (-1, size - 1)
    first = min(max(start + size if start < 0 else start, 0), high)
    last = min(max(end + size if end < 0 else end, low), size)
    return range(first, last, step)


def _spread(value: Value, axis: int, step: int) -> Value:
    """Put `step - 1` zeros between the positions of an axis."""
    if step == 1:
        return value
    shape, size = value.shape, value.shape[axis]
    after = [0] * (value.rank + 1)
    after[axis + 1] = step - 1
    apart = value.reshape([*shape[: axis + 1], 1, *shape[axis + 1 :]]).pad([0] * len(after), after)
    return apart.reshape([*shape[:axis], size * step, *shape[axis + 1 :]]).slice(axis, 0, (size - 1) * step + 1)


@register_vjp("Pad")
def _pad(node: BackwardNode) -> Gradients:
    mode = node.attributes.get("mode", "constant")
    rank = node.x.rank
    pads = node.integers("pads", 1) or []
    axes = [a % rank for a in node.integers("axes", 3) or range(rank)]
    gradient = node.dy
    for i, axis in enumerate(axes):
        gradient = _unpadded(gradient, axis, (pads[i], pads[i + len(axes)]), mode)
    value = None
    if node.needed(2):
        value = (node.dy.sum(range(rank)) - gradient.sum(range(rank))).reshape(node.input(2).shape)
    return [gradient, *[value if slot == 2 else None for slot in range(1, len(node.inputs))]]


def _unpadded(gradient: Value, axis: int, pads: tuple[int, int], mode: str) -> Value:
    """Undo the padding of one axis: what a padded position copied gets the gradient of the copy."""
    before, after = pads
    padded = gradient.shape[axis]
    size = padded - before - after
    if mode != "constant" and (before or after):
        source = _source_positions(size, before, after, mode)
        matrix = np.zeros((padded, size), gradient.dtype)
        matrix[np.arange(padded), source] = 1
        return along_axis(gradient, axis, matrix)
    kept = gradient.slice(axis, max(before, 0), padded - max(after, 0))
    return kept.pad(
        [max(-before, 0) if a == axis else 0 for a in range(gradient.rank)],
        [max(-after, 0) if a == axis else 0 for a in range(gradient.rank)],
    )


def _source_positions(size: int, before: int, after: int, mode: str) -> np.ndarray:
    names = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    if mode not in names or min(before, after) < 0:
        raise NoGradient(f"Pad in mode {mode!r}")
    return np.pad(np.arange(size), (before, after), mode=names[mode])  # type: ignore[call-overload]


def along_axis(value: Value, axis: int, matrix: np.ndarray) -> Value:
    """Multiply an axis by a matrix [old size, new size]."""
    order = [a for a in range(value.rank) if a != axis] + [axis]
    moved = value.transpose(order)
    flat = moved.reshape([moved.size // moved.shape[-1], moved.shape[-1]])
    result = (flat @ value.graph.constant(matrix)).reshape([*moved.shape[:-1], matrix.shape[1]])
    return result.transpose([int(a) for a in np.argsort(order)])


@register_vjp("DepthToSpace")
def _depth_to_space(node: BackwardNode) -> Gradients:
    n, channels, height, width = node.x.shape
    block = node.attributes["blocksize"]
    inner = channels // block**2
    apart = node.dy.reshape([n, inner, height, block, width, block])
    order = [0, 3, 5, 1, 2, 4] if node.attributes.get("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    return [apart.transpose(order).reshape(node.x.shape)]


@register_vjp("SpaceToDepth")
def _space_to_depth(node: BackwardNode) -> Gradients:
    n, channels, height, width = node.x.shape
    block = node.attributes["blocksize"]
    apart = node.dy.reshape([n, block, block, channels, height // block, width // block])
    return [apart.transpose([0, 3, 4, 1, 5, 2]).reshape(node.x.shape)]


@register_vjp("ReverseSequence")
def _reverse_sequence(node: BackwardNode) -> Gradients:
    axes = {name: node.attributes.get(name, 1 - i) for i, name in enumerate(("batch_axis", "time_axis"))}
    return [node.graph.op("ReverseSequence", node.dy, node.input(1), shape=node.x.shape, **axes), None]
