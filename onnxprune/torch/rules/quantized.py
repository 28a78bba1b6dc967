"""Quantisation with straight-through gradients.

Between QuantizeLinear and DequantizeLinear the integers are carried as floats, so that gradients pass: rounding passes
them as they are, saturation stops them (Bengio et al. 2013, Jacob et al. 2018).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.torch.registry import Operation, translates

_LIMITS = {"uint4": (0, 15), "int4": (-8, 7), "uint2": (0, 3), "int2": (-2, 1)}


def _spread(operation: Operation, value: Any, x: Any) -> Any:
    """Scales or zero points laid out against a tensor: one number, one for each position of an axis, or of a block."""
    if value.numel() == 1:
        return value.reshape(())
    axis = operation.get("axis", 1) % x.ndim
    if value.ndim == 1:
        return value.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    return value.repeat_interleave(operation.attributes["block_size"], axis).narrow(axis, 0, x.shape[axis])


def _limits(operation: Operation, zero: Any) -> tuple[int, int]:
    given = operation.constants.get(2)
    if given is not None:
        kind: Any = given.dtype
    elif operation.get("output_dtype"):
        kind = helper.tensor_dtype_to_np_dtype(operation.get("output_dtype"))
    else:
        kind = np.dtype(np.uint8) if zero is None else np.dtype(str(zero.dtype).removeprefix("torch."))
    if kind.name in _LIMITS:
        return _LIMITS[kind.name]
    if kind.kind not in "iu":
        raise ModelError(f"no rule says how PyTorch quantises to {kind} (node {operation.name!r})")
    info = np.iinfo(kind)
    return int(info.min), int(info.max)


@translates("QuantizeLinear")
def _quantize(operation: Operation, x: Any, scale: Any, zero: Any = None) -> Any:
    low, high = _limits(operation, zero)
    steps = x / _spread(operation, scale, x).to(x.dtype)
    rounded = steps + (torch.round(steps) - steps).detach()
    shift = 0.0 if zero is None else _spread(operation, zero, x).to(x.dtype)
    return torch.clamp(rounded + shift, low, high)


@translates("DequantizeLinear")
def _dequantize(operation: Operation, x: Any, scale: Any, zero: Any = None) -> Any:
    steps = x.to(scale.dtype)
    steps = steps if zero is None else steps - _spread(operation, zero, x).to(scale.dtype)
    return steps * _spread(operation, scale, x)
