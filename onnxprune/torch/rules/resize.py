"""Resampling. A Resize is linear and works axis by axis: one product of matrices for each axis.

The matrix of an axis is measured: ONNX Runtime resamples an identity matrix. That makes every mode exact with no
formula of any mode written down here; what PyTorch has itself (whole copies, bilinear) is computed by PyTorch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from onnxprune.autodiff import axis_matrix
from onnxprune.errors import ModelError
from onnxprune.torch.program import to_tensor
from onnxprune.torch.registry import Operation, translates

_LINEAR = ("linear", "bilinear", "trilinear")


@translates("Resize", numbers=(2, 3))
def _resize(
    operation: Operation, x: Any, roi: Any = None, scales: list[float] | None = None, sizes: list[int] | None = None
) -> Any:
    if operation.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise ModelError(f"no rule says how PyTorch crops (Resize {operation.name!r})")
    axes = [axis % x.ndim for axis in operation.get("axes") or range(x.ndim)]
    if sizes:
        made = _kept_aspect(operation, [x.shape[a] for a in axes], sizes)
        factors: list[float | None] = [None] * len(axes)
    else:
        factors = [float(s) for s in scales or []]
        made = [int(x.shape[a] * s) for a, s in zip(axes, factors, strict=True) if s is not None]
    if _is_plain_linear(operation, x, axes, made):
        mode = _LINEAR[x.ndim - 3]
        aligned = operation.get("coordinate_transformation_mode") == "align_corners"
        return F.interpolate(x, made[-(x.ndim - 2) :], mode=mode, align_corners=aligned)
    for axis, size, factor in zip(axes, made, factors, strict=True):
        if size != x.shape[axis] or (factor is not None and factor != 1):
            x = _resampled(operation, x, axis, size=size, factor=factor)
    return x


def _kept_aspect(operation: Operation, old: Sequence[int], sizes: list[int]) -> list[int]:
    policy = operation.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return sizes
    ratios = [new / n for new, n in zip(sizes, old, strict=True)]
    factor = min(ratios) if policy == "not_larger" else max(ratios)
    return [int(factor * n + 0.5) for n in old]


def _is_plain_linear(operation: Operation, x: Any, axes: Sequence[int], made: Sequence[int]) -> bool:
    """Whether PyTorch's own interpolation is the same: sizes are whole multiples, so both name the same positions."""
    if operation.get("mode", "nearest") != "linear" or operation.get("antialias") or not 3 <= x.ndim <= 5:
        return False
    whole = list(axes) in (list(range(x.ndim)), list(range(2, x.ndim)))
    if not whole or (len(axes) == x.ndim and list(made[:2]) != list(x.shape[:2])):
        return False
    spatial = list(made[-(x.ndim - 2) :])
    mode = operation.get("coordinate_transformation_mode", "half_pixel")
    return mode in ("half_pixel", "align_corners") and all(
        new % old == 0 for new, old in zip(spatial, x.shape[2:], strict=True)
    )


def _resampled(operation: Operation, x: Any, axis: int, *, size: int, factor: float | None) -> Any:
    options = tuple(
        (name, value)
        for name, value in operation.attributes.items()
        if name not in ("axes", "keep_aspect_ratio_policy")
    )
    matrix, copies = _measured(options, x.shape[axis], size, factor)
    if copies:
        return x.repeat_interleave(copies, axis)
    moved = torch.matmul(x.movedim(axis, -1), matrix.to(x.device, x.dtype))
    return moved.movedim(-1, axis)


@functools.lru_cache(maxsize=256)
def _measured(options: tuple[tuple[str, Any], ...], size: int, made: int, factor: float | None) -> tuple[Any, int]:
    """The matrix [size, made] of an axis; and how often every position is copied, 0 where that is not all."""
    matrix = to_tensor(axis_matrix(dict(options), size, made, factor))
    copies = made // size
    plain = made % size == 0 and torch.equal(matrix, torch.eye(size).repeat_interleave(copies, 1))
    return matrix, copies if plain else 0


@translates("AffineGrid", numbers=(1,))
def _affine_grid(operation: Operation, theta: Any, size: list[int]) -> Any:
    return F.affine_grid(theta, size, align_corners=bool(operation.get("align_corners", 0)))


@translates("GridSample")
def _grid_sample(operation: Operation, x: Any, grid: Any) -> Any:
    modes = {"linear": "bilinear", "bilinear": "bilinear", "cubic": "bicubic", "bicubic": "bicubic"}
    mode = modes.get(operation.get("mode", "linear"), "nearest")
    padding = operation.get("padding_mode", "zeros")
    return F.grid_sample(x, grid, mode, padding, align_corners=bool(operation.get("align_corners", 0)))
