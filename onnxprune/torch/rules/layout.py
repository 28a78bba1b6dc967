"""Operators that move elements, and those that tell or make sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from onnxprune.errors import ModelError
from onnxprune.torch.program import to_tensor
from onnxprune.torch.registry import Operation, translates
from onnxprune.torch.rules.pointwise import element_type

_PADDING = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@translates("Transpose")
def _transpose(operation: Operation, x: Any) -> Any:
    return x.permute(operation.get("perm") or list(reversed(range(x.ndim))))


@translates("Reshape", numbers=(1,))
def _reshape(operation: Operation, x: Any, shape: list[int]) -> Any:
    if operation.get("allowzero"):
        return x.reshape(shape)
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])


@translates("Flatten")
def _flatten(operation: Operation, x: Any) -> Any:
    axis = operation.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1 if x.numel() else math.prod(x.shape[axis:]))


@translates("Squeeze", numbers=(1,))
def _squeeze(operation: Operation, x: Any, axes: list[int] | None = None) -> Any:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@translates("Unsqueeze", numbers=(1,))
def _unsqueeze(operation: Operation, x: Any, axes: list[int]) -> Any:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@translates("Expand", numbers=(1,))
def _expand(operation: Operation, x: Any, shape: list[int]) -> Any:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


@translates("Tile", numbers=(1,))
def _tile(operation: Operation, x: Any, repeats: list[int]) -> Any:
    return x.repeat(repeats)


@translates("Concat")
def _concat(operation: Operation, *inputs: Any) -> Any:
    return torch.cat(inputs, operation.attributes["axis"])


@translates("Split", numbers=(1,))
def _split(operation: Operation, x: Any, sizes: list[int] | None = None) -> list[Any]:
    axis = operation.get("axis", 0)
    if sizes is None:
        sizes = -(-x.shape[axis] // operation.get("num_outputs", len(operation.outputs)))
    return list(torch.split(x, sizes, axis))


@translates("Slice", numbers=(1, 2, 3, 4))
def _slice(
    operation: Operation,
    x: Any,
    starts: list[int],
    ends: list[int],
    axes: list[int] | None = None,
    steps: list[int] | None = None,
) -> Any:
    axes = list(range(len(starts))) if axes is None else [axis % x.ndim for axis in axes]
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        size = x.shape[axis]
        taken = range(size)[_bounds(start, end, step, size)]
        if step > 0:
            x = x[(slice(None),) * axis + (slice(taken.start, taken.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(taken), dtype=torch.int64, device=x.device))
    return x


def _bounds(start: int, end: int, step: int, size: int) -> slice:
    """Bounds with ONNX's meaning: they count from the end if negative, and are clamped afterwards."""
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    low = min(max(end, -1), size - 1)
    return slice(min(max(start, 0), size - 1), None if low < 0 else low, step)


@translates("Pad", numbers=(1, 3))
def _pad(operation: Operation, x: Any, pads: list[int], value: Any = None, axes: list[int] | None = None) -> Any:
    axes = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes]
    before, after = pads[: len(axes)], pads[len(axes) :]
    mode = operation.get("mode", "constant")
    if mode == "constant":
        amounts = [0] * (2 * x.ndim)
        for axis, front, back in zip(axes, before, after, strict=True):
            amounts[2 * (x.ndim - 1 - axis)], amounts[2 * (x.ndim - 1 - axis) + 1] = front, back
        return F.pad(x, amounts, value=0.0 if value is None else value.item())
    for axis, front, back in zip(axes, before, after, strict=True):
        if front or back:
            x = _padded(x, axis, amounts=(front, back), mode=_PADDING[mode])
    return x


def _padded(x: Any, axis: int, *, amounts: Sequence[int], mode: str) -> Any:
    """Pad one axis with elements of the tensor: negative amounts cut."""
    cut = [max(-n, 0) for n in amounts]
    x = x.narrow(axis, cut[0], x.shape[axis] - sum(cut))
    last = x.movedim(axis, -1)
    made = F.pad(last.reshape(1, -1, last.shape[-1]), [max(n, 0) for n in amounts], mode=mode)
    return made.reshape(*last.shape[:-1], -1).movedim(-1, axis)


@translates("DepthToSpace")
def _depth_to_space(operation: Operation, x: Any) -> Any:
    block = operation.attributes["blocksize"]
    if operation.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    parts = x.reshape([n, block, block, c // block**2, h, w]).permute([0, 3, 4, 1, 5, 2])
    return parts.reshape(n, c // block**2, h * block, w * block)


@translates("SpaceToDepth")
def _space_to_depth(operation: Operation, x: Any) -> Any:
    block = operation.attributes["blocksize"]
    n, c, h, w = x.shape
    parts = x.reshape([n, c, h // block, block, w // block, block]).permute([0, 3, 5, 1, 2, 4])
    return parts.reshape(n, c * block**2, h // block, w // block)


@translates("Trilu", numbers=(1,))
def _triangle(operation: Operation, x: Any, diagonal: Any = 0) -> Any:
    shift = diagonal[0] if isinstance(diagonal, list) else diagonal
    return torch.triu(x, shift) if operation.get("upper", 1) else torch.tril(x, shift)


@translates("ReverseSequence", numbers=(1,))
def _reverse_sequence(operation: Operation, x: Any, lengths: list[int]) -> Any:
    batch_axis, time_axis = operation.get("batch_axis", 1), operation.get("time_axis", 0)
    rows = x.movedim((batch_axis, time_axis), (0, 1))
    turned = torch.stack([torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(rows, lengths, strict=True)])
    return turned.movedim((0, 1), (batch_axis, time_axis))


# --- sizes -------------------------------------------------------------------------------------------------


@translates("Shape")
def _shape(operation: Operation, x: Any) -> Any:
    return torch.tensor(list(x.shape)[operation.get("start", 0) : operation.get("end")], dtype=torch.int64)


@translates("Size")
def _size(operation: Operation, x: Any) -> Any:
    return torch.tensor(x.numel(), dtype=torch.int64)


@translates("Range")
def _range(operation: Operation, start: Any, limit: Any, delta: Any) -> Any:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


@translates("ConstantOfShape", numbers=(0,))
def _constant_of_shape(operation: Operation, shape: list[int]) -> Any:
    given = operation.get("value")
    value = np.zeros(1, np.float32) if given is None else numpy_helper.to_array(given)
    return to_tensor(value.reshape(-1)[:1]).expand(shape).clone()


@translates("Constant")
def _constant(operation: Operation) -> Any:
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    name, value = next(iter(operation.attributes.items()))
    if name == "value":
        return to_tensor(numpy_helper.to_array(value))
    if name not in kinds:
        raise ModelError(f"Constant {operation.name!r} holds {name}, of which PyTorch has no tensor")
    return to_tensor(np.asarray(value, kinds[name]))


@translates("EyeLike")
def _eye(operation: Operation, x: Any) -> Any:
    kind = element_type(operation.get("dtype")) if operation.get("dtype") else x.dtype
    rows, columns = x.shape
    shifted = torch.ones(rows, columns, dtype=kind, device=x.device)
    shift = operation.get("k", 0)
    return torch.triu(torch.tril(shifted, shift), shift)


@translates("RandomNormalLike", "RandomUniformLike")
def _random_like(operation: Operation, x: Any) -> Any:
    kind = element_type(operation.get("dtype")) if operation.get("dtype") else x.dtype
    if operation.kind == "RandomNormalLike":
        return torch.randn(x.shape, dtype=kind, device=x.device) * operation.get("scale", 1.0) + operation.get(
            "mean", 0.0
        )
    low, high = operation.get("low", 0.0), operation.get("high", 1.0)
    return torch.rand(x.shape, dtype=kind, device=x.device) * (high - low) + low
