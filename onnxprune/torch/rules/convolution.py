"""Convolutions and their transposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from onnxprune.errors import ModelError
from onnxprune.model.protos import MICROSOFT
from onnxprune.torch.registry import Operation, translates

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_ACTIVATIONS = {
    "Relu": lambda x, p: torch.relu(x),
    "Sigmoid": lambda x, p: torch.sigmoid(x),
    "Tanh": lambda x, p: torch.tanh(x),
    "LeakyRelu": lambda x, p: F.leaky_relu(x, p[0] if p else 0.01),
    "HardSigmoid": lambda x, p: torch.clamp(x * p[0] + p[1], 0, 1),
    "HardSwish": lambda x, p: F.hardswish(x),
    "Clip": lambda x, p: torch.clamp(x, p[0], p[1]),
    "": lambda x, p: x,
}


def placed(operation: Operation, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and padding (in front of every axis, then behind) of windows on an input of `sizes`."""
    rank = len(kernel)
    strides = list(operation.get("strides") or [1] * rank)
    dilations = list(operation.get("dilations") or [1] * rank)
    mode = operation.get("auto_pad", "NOTSET")
    if not mode.startswith("SAME"):
        return strides, dilations, list(operation.get("pads") or [0] * 2 * rank) if mode != "VALID" else [0] * 2 * rank
    before, after = [], []
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        missing = max((-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
        less, more = missing // 2, missing - missing // 2
        before.append(less if mode == "SAME_UPPER" else more)
        after.append(more if mode == "SAME_UPPER" else less)
    return strides, dilations, before + after


def padded(x: Any, pads: Sequence[int], value: float = 0.0) -> Any:
    """Pad the spatial axes: amounts in front of every axis, then behind."""
    if not any(pads):
        return x
    rank = len(pads) // 2
    return F.pad(x, [n for axis in reversed(range(rank)) for n in (pads[axis], pads[rank + axis])], value=value)


@translates("Conv")
def _conv(operation: Operation, x: Any, weight: Any, bias: Any = None) -> Any:
    rank = weight.ndim - 2
    strides, dilations, pads = placed(operation, x.shape[2:], weight.shape[2:])
    if rank > len(_CONVOLUTIONS):
        raise ModelError(f"PyTorch has no convolution over {rank} axes (node {operation.name!r})")
    if pads[:rank] != pads[rank:] or min(pads, default=0) < 0:
        x, pads = padded(x, pads), [0] * 2 * rank
    group = operation.get("group", 1)
    return _CONVOLUTIONS[rank - 1](
        x, weight, bias, stride=strides, padding=pads[:rank], dilation=dilations, groups=group
    )


@translates("ConvTranspose")
def _conv_transpose(operation: Operation, x: Any, weight: Any, bias: Any = None) -> Any:
    """All positions that the windows reach are made, and the padding is cut off: it may differ at the two ends."""
    rank = weight.ndim - 2
    if rank > len(_TRANSPOSED):
        raise ModelError(f"PyTorch has no convolution over {rank} axes (node {operation.name!r})")
    strides = list(operation.get("strides") or [1] * rank)
    dilations = list(operation.get("dilations") or [1] * rank)
    extra = list(operation.get("output_padding") or [0] * rank)
    reach = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(x.shape[2:], strides, weight.shape[2:], dilations, strict=True)
    ]
    before, sizes = _cut(operation, x.shape[2:], reach=reach, strides=strides, extra=extra)
    options: dict[str, Any] = {"stride": strides, "dilation": dilations, "groups": operation.get("group", 1)}
    after = [r - b - n for r, b, n in zip(reach, before, sizes, strict=True)]
    even = [b - a for b, a in zip(before, after, strict=True)]
    fits = min(before) >= 0 and all(0 <= e < max(s, d) for e, s, d in zip(even, strides, dilations, strict=True))
    if fits:
        return _TRANSPOSED[rank - 1](x, weight, bias, padding=before, output_padding=even, **options)
    y = _TRANSPOSED[rank - 1](x, weight, None, **options)
    y = padded(y, [*(-b for b in before), *(-a for a in after)])
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def _cut(
    operation: Operation, given: Sequence[int], *, reach: Sequence[int], strides: Sequence[int], extra: Sequence[int]
) -> tuple[list[int], list[int]]:
    """What is cut off in front of every axis, and the sizes that are left."""
    rank, mode = len(reach), operation.get("auto_pad", "NOTSET")
    asked = operation.get("output_shape")
    if asked or mode.startswith("SAME"):
        sizes = list(asked[-rank:]) if asked else [n * s for n, s in zip(given, strides, strict=True)]
        total = [r + e - n for r, e, n in zip(reach, extra, sizes, strict=True)]
        return [t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total], sizes
    pads = list(operation.get("pads") or [0] * 2 * rank) if mode != "VALID" else [0] * 2 * rank
    return pads[:rank], [r + e - b - a for r, e, b, a in zip(reach, extra, pads[:rank], pads[rank:], strict=True)]


def activated(operation: Operation, x: Any, name: str, parameters: Sequence[float]) -> Any:
    """Apply the activation that ONNX Runtime has put into another operator."""
    if name not in _ACTIVATIONS:
        raise ModelError(f"no rule says how PyTorch computes the activation {name!r} of node {operation.name!r}")
    return _ACTIVATIONS[name](x, parameters)


@translates("FusedConv", domain=MICROSOFT)
def _fused_conv(operation: Operation, x: Any, weight: Any, bias: Any = None, skip: Any = None) -> Any:
    y = _conv(operation, x, weight, bias)
    y = y if skip is None else y + skip
    return activated(operation, y, operation.get("activation", ""), operation.get("activation_params", []))
