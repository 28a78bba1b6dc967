"""Operators that treat every position alike: arithmetic, activations, comparisons, choices."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from onnx import TensorProto

from onnxprune.errors import ModelError
from onnxprune.model.protos import MICROSOFT
from onnxprune.torch.registry import Operation, translates

# Operator -> function of its inputs alone.
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": F.hardswish,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Mish": F.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": functools.partial(F.softplus, threshold=math.inf),
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}

TYPES: Mapping[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BFLOAT16: torch.bfloat16,
}


def _register(operator: str, function: Callable[..., Any]) -> None:
    translates(operator)(lambda operation, *inputs: function(*inputs))


for _operator, _function in _FUNCTIONS.items():
    _register(_operator, _function)


def element_type(number: int) -> torch.dtype:
    """PyTorch's name of an element type of ONNX.

    Raises:
        ModelError: PyTorch has no such type.
    """
    if number not in TYPES:
        raise ModelError(f"PyTorch has no element type {TensorProto.DataType.Name(number)}")
    return TYPES[number]


# --- arithmetic --------------------------------------------------------------------------------------------


@translates("Div")
def _div(operation: Operation, a: Any, b: Any) -> Any:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@translates("Mod")
def _mod(operation: Operation, a: Any, b: Any) -> Any:
    return torch.fmod(a, b) if operation.get("fmod") else torch.remainder(a, b)


@translates("Pow")
def _pow(operation: Operation, x: Any, power: Any) -> Any:
    return torch.pow(x, power).to(x.dtype)


@translates("Sum")
def _sum(operation: Operation, *inputs: Any) -> Any:
    return functools.reduce(torch.add, inputs)


@translates("Mean")
def _mean(operation: Operation, *inputs: Any) -> Any:
    return functools.reduce(torch.add, inputs) / len(inputs)


@translates("Max", "Min")
def _extreme(operation: Operation, *inputs: Any) -> Any:
    if len(inputs) < 3:
        return functools.reduce(torch.maximum if operation.kind == "Max" else torch.minimum, inputs)
    # Pair by pair, ties of three would not share the gradient equally.
    stacked = torch.stack(torch.broadcast_tensors(*inputs))
    return stacked.amax(0) if operation.kind == "Max" else stacked.amin(0)


@translates("BitShift")
def _shift(operation: Operation, x: Any, bits: Any) -> Any:
    return torch.bitwise_left_shift(x, bits) if operation.get("direction") == "LEFT" else x >> bits


@translates("IsInf")
def _is_infinite(operation: Operation, x: Any) -> Any:
    above = torch.isposinf(x) if operation.get("detect_positive", 1) else torch.zeros_like(x, dtype=torch.bool)
    return above | torch.isneginf(x) if operation.get("detect_negative", 1) else above


@translates("Identity")
def _identity(operation: Operation, x: Any) -> Any:
    return x


@translates("Dropout")
def _dropout(operation: Operation, x: Any, ratio: Any = None, training: Any = None) -> list[Any]:
    if training is None or not bool(training):
        return [x, torch.ones_like(x, dtype=torch.bool)]
    share = 0.5 if ratio is None else float(ratio)
    mask = torch.rand_like(x) >= share
    return [x * mask / (1 - share) if share < 1 else x * 0.0, mask]


@translates("Cast")
def _cast(operation: Operation, x: Any) -> Any:
    return x.to(element_type(operation.attributes["to"]))


@translates("CastLike")
def _cast_like(operation: Operation, x: Any, like: Any) -> Any:
    return x.to(like.dtype)


# --- activations -------------------------------------------------------------------------------------------


@translates("Clip", numbers=(1, 2))
def _clip(operation: Operation, x: Any, low: Any = None, high: Any = None) -> Any:
    low, high = (v[0] if isinstance(v, list) else v for v in (low, high))
    return x if low is None and high is None else torch.clamp(x, low, high)


@translates("LeakyRelu")
def _leaky(operation: Operation, x: Any) -> Any:
    return F.leaky_relu(x, operation.get("alpha", 0.01))


@translates("PRelu")
def _prelu(operation: Operation, x: Any, slope: Any) -> Any:
    return torch.where(x > 0, x, x * slope)


@translates("ThresholdedRelu")
def _thresholded(operation: Operation, x: Any) -> Any:
    return torch.where(x > operation.get("alpha", 1.0), x, torch.zeros_like(x))


@translates("Shrink")
def _shrink(operation: Operation, x: Any) -> Any:
    limit, bias = operation.get("lambd", 0.5), operation.get("bias", 0.0)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, torch.zeros_like(x)))


@translates("Elu")
def _elu(operation: Operation, x: Any) -> Any:
    return F.elu(x, operation.get("alpha", 1.0))


@translates("Celu")
def _celu(operation: Operation, x: Any) -> Any:
    return F.celu(x, operation.get("alpha", 1.0))


@translates("Selu")
def _selu(operation: Operation, x: Any) -> Any:
    alpha, gamma = operation.get("alpha", 1.6732632), operation.get("gamma", 1.0507010)
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0)))


@translates("HardSigmoid")
def _hard_sigmoid(operation: Operation, x: Any) -> Any:
    return torch.clamp(x * operation.get("alpha", 0.2) + operation.get("beta", 0.5), 0, 1)


@translates("Swish")
def _swish(operation: Operation, x: Any) -> Any:
    return x * torch.sigmoid(x * operation.get("alpha", 1.0))


@translates("Gelu")
def _gelu(operation: Operation, x: Any) -> Any:
    return F.gelu(x, approximate=operation.get("approximate", "none"))


@translates("Gelu", "BiasGelu", domain=MICROSOFT)
def _bias_gelu(operation: Operation, x: Any, bias: Any = None) -> Any:
    return F.gelu(x if bias is None else x + bias)


@translates("FastGelu", domain=MICROSOFT)
def _fast_gelu(operation: Operation, x: Any, bias: Any = None) -> Any:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@translates("QuickGelu", domain=MICROSOFT)
def _quick_gelu(operation: Operation, x: Any) -> Any:
    return x * torch.sigmoid(x * operation.get("alpha", 1.702))


@translates("BiasAdd", domain=MICROSOFT)
def _bias_add(operation: Operation, x: Any, bias: Any, skip: Any = None) -> Any:
    return x + bias if skip is None else x + bias + skip


@translates("BiasSplitGelu", domain=MICROSOFT)
def _bias_split_gelu(operation: Operation, x: Any, bias: Any) -> Any:
    value, gate = (x + bias).chunk(2, -1)
    return value * F.gelu(gate)
