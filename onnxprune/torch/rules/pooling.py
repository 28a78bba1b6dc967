"""Pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from onnxprune.errors import ModelError
from onnxprune.torch.registry import Operation, translates
from onnxprune.torch.rules.convolution import padded, placed

_MAX = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_MEAN = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def _fitted(
    operation: Operation, x: Any, strides: Sequence[int], dilations: Sequence[int], pads: list[int]
) -> list[int]:
    """Padding that makes windows of a pooling which rounds up fit: the last ones reach beyond the padded input."""
    if not operation.get("ceil_mode"):
        return pads
    kernel, rank = operation.attributes["kernel_shape"], len(strides)
    fitted = list(pads)
    for axis in range(rank):
        reach, size = (kernel[axis] - 1) * dilations[axis] + 1, x.shape[2 + axis]
        whole = size + pads[axis] + pads[rank + axis]
        windows = -(-(whole - reach) // strides[axis]) + 1
        # A window that would start in the padding behind the input is left out.
        if (windows - 1) * strides[axis] >= size + pads[axis]:
            windows -= 1
        fitted[rank + axis] += max((windows - 1) * strides[axis] + reach - whole, 0)
    return fitted


@translates("MaxPool")
def _max_pool(operation: Operation, x: Any) -> list[Any]:
    kernel = operation.attributes["kernel_shape"]
    if len(kernel) > len(_MAX) or (operation.wants(1) and operation.get("storage_order")):
        raise ModelError(f"PyTorch has no pooling like that of node {operation.name!r}")
    strides, dilations, pads = placed(operation, x.shape[2:], kernel)
    pads, sizes = _fitted(operation, x, strides, dilations, pads), x.shape[2:]
    options: dict[str, Any] = {"stride": strides, "dilation": dilations}
    # Padding that is even is PyTorch's own, without a copy of the input.
    half, rank = [k // 2 for k in kernel], len(kernel)
    if pads[:rank] == pads[rank:] and all(0 <= p <= h for p, h in zip(pads[:rank], half, strict=True)):
        options["padding"] = pads[:rank]
    else:
        lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        x, padding = padded(x, pads, lowest), pads
        if operation.wants(1):
            y, places = _MAX[rank - 1](x, kernel, return_indices=True, **options)
            return [y, _counted(_moved(places, x.shape[2:], sizes, padding[:rank]), y, sizes)]
    if not operation.wants(1):
        return [_MAX[rank - 1](x, kernel, **options)]
    y, places = _MAX[rank - 1](x, kernel, return_indices=True, **options)
    return [y, _counted(places, y, sizes)]


def _moved(places: Any, made: Sequence[int], sizes: Sequence[int], before: Sequence[int]) -> Any:
    """Places within a padded image as places within the image."""
    moved, factor = torch.zeros_like(places), 1
    for size, original, front in zip(reversed(made), reversed(sizes), reversed(before), strict=True):
        moved = moved + (places % size - front) * factor
        places, factor = places // size, factor * original
    return moved


def _counted(places: Any, y: Any, sizes: Sequence[int]) -> Any:
    """Places within their own image as places within the whole tensor, which ONNX counts."""
    batch, channels = y.shape[:2]
    images = torch.arange(batch * channels, device=places.device).reshape(batch, channels, *[1] * len(sizes))
    return places + images * math.prod(sizes)


@translates("AveragePool", "LpPool")
def _average_pool(operation: Operation, x: Any) -> Any:
    kernel = operation.attributes["kernel_shape"]
    if len(kernel) > len(_MEAN):
        raise ModelError(f"PyTorch has no pooling like that of node {operation.name!r}")
    strides, dilations, pads = placed(operation, x.shape[2:], kernel)
    fitted = _fitted(operation, x, strides, dilations, pads)
    if operation.kind == "LpPool":
        power = operation.get("p", 2)
        return _sums(operation, padded(x.abs() ** power, fitted), strides, dilations) ** (1 / power)
    rank = len(kernel)
    if pads == fitted and not any(pads) and not any(d > 1 for d in dilations):
        return _MEAN[rank - 1](x, kernel, strides)
    counted = torch.ones_like(x[:1, :1])
    if operation.get("count_include_pad"):
        counted = padded(padded(counted, pads, 1.0), [f - p for f, p in zip(fitted, pads, strict=True)])
    else:
        counted = padded(counted, fitted)
    return _sums(operation, padded(x, fitted), strides, dilations) / _sums(operation, counted, strides, dilations)


def _sums(operation: Operation, x: Any, strides: Sequence[int], dilations: Sequence[int]) -> Any:
    """Sum of every window."""
    kernel = operation.attributes["kernel_shape"]
    if all(d == 1 for d in dilations):
        return _MEAN[len(kernel) - 1](x, kernel, strides) * math.prod(kernel)
    for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True), 2):
        x = x.unfold(axis, (size - 1) * dilation + 1, stride)[..., ::dilation].sum(-1)
    return x


@translates("GlobalAveragePool")
def _global_average(operation: Operation, x: Any) -> Any:
    return x.mean(tuple(range(2, x.ndim)), True)


@translates("GlobalMaxPool")
def _global_max(operation: Operation, x: Any) -> Any:
    return x.amax(tuple(range(2, x.ndim)), True)


@translates("GlobalLpPool")
def _global_norm(operation: Operation, x: Any) -> Any:
    return torch.linalg.vector_norm(x, operation.get("p", 2), tuple(range(2, x.ndim)), True)
