"""Operators on quantised tensors, written as what they compute: dequantised, the plain operator, quantised.

The weights stay as they are; gradients pass straight through to what comes before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.lowering.registry import Inputs, leading, lowering, optional, settings_of
from onnxprune.model.protos import MICROSOFT

_FLOAT = np.dtype(np.float32)
_BYTE: np.dtype[Any] = np.dtype(np.uint8)


def _real(inputs: Inputs, slot: int, *, axis: int = 1) -> Value:
    """The real numbers of a tensor whose scale and zero point are the next two inputs."""
    value, scale, zero = inputs[slot], inputs[slot + 1], optional(inputs, slot + 2)
    assert value is not None and scale is not None
    return _dequantised(value, scale, zero, axis=axis)


def _dequantised(value: Value, scale: Value, zero: Value | None, *, axis: int = 1) -> Value:
    if scale.rank == 1 and scale.size == 1:
        scale, zero = scale.reshape(()), None if zero is None else zero.reshape(())
    along = {"axis": axis % value.rank} if scale.rank else {}
    return value.graph.op("DequantizeLinear", value, scale, zero, shape=value.shape, dtype=_FLOAT, **along)


def _steps(value: Value, inputs: Inputs, slot: int) -> Value:
    """The numbers of a tensor in steps of the scale at `slot`, with the zero point behind it."""
    scale, zero = inputs[slot], optional(inputs, slot + 1)
    assert scale is not None
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    single = [None if v is None else v.reshape(()) for v in (scale, zero)]
    return value.graph.op("QuantizeLinear", value, *single, shape=value.shape, dtype=kind)


def _shape(outputs: Inputs) -> tuple[int, ...]:
    return leading(outputs).shape


@lowering("QLinearConv")
@lowering("QLinearConv", domain=MICROSOFT)
def _conv(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    attributes = settings_of(node)
    if attributes.pop("channels_last", 0):
        return None
    x, weight = _real(inputs, 0), _real(inputs, 3, axis=0)
    bias, scale = optional(inputs, 8), inputs[1]
    if bias is not None:
        assert scale is not None and inputs[4] is not None
        bias = bias.cast(_FLOAT) * (inputs[4] * scale).reshape([inputs[4].size])
    y = graph.op("Conv", x, weight, bias, shape=_shape(outputs), **attributes)
    return [_steps(y, inputs, 6)]


@lowering("QLinearMatMul")
def _matmul(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    a, b = _real(inputs, 0, axis=-2), _real(inputs, 3, axis=-1)
    return [_steps(graph.op("MatMul", a, b, shape=_shape(outputs)), inputs, 6)]


@lowering("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def _arithmetic(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    a, b = _real(inputs, 0), _real(inputs, 3)
    return [_steps(a + b if node.op_type == "QLinearAdd" else a * b, inputs, 6)]


@lowering(
    *("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearReduceMean"),
    *("QLinearSigmoid", "QLinearSoftmax"),
    domain=MICROSOFT,
)
def _one_input(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    attributes = settings_of(node)
    attributes.pop("opset", None)
    if attributes.pop("channels_last", 0) or "axes" in attributes:
        return None
    operator = node.op_type.removeprefix("QLinear")
    return [_steps(graph.op(operator, _real(inputs, 0), shape=_shape(outputs), **attributes), inputs, 3)]


@lowering("QLinearConcat", domain=MICROSOFT)
def _concat(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    parts = [_real(inputs, slot) for slot in range(2, len(inputs), 3)]
    return [_steps(graph.concat(parts, settings_of(node)["axis"] % parts[0].rank), inputs, 0)]


@lowering("QLinearWhere", domain=MICROSOFT)
def _where(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    return [_steps(leading(inputs).where(_real(inputs, 1), _real(inputs, 4)), inputs, 7)]


@lowering("QGemm", domain=MICROSOFT)
def _gemm(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    attributes = settings_of(node)
    turned = attributes.get("transB", 0)
    a, b, bias = _real(inputs, 0), _real(inputs, 3, axis=0 if turned else 1), optional(inputs, 6)
    a, b = a.mT if attributes.get("transA") else a, b.mT if turned else b
    y = a @ b * float(attributes.get("alpha", 1.0))
    if bias is not None:
        assert inputs[1] is not None and inputs[4] is not None
        y = y + bias.cast(_FLOAT) * (inputs[1] * inputs[4]) * float(attributes.get("alpha", 1.0))
    return [y if optional(inputs, 7) is None else _steps(y, inputs, 7)]


@lowering("MatMulIntegerToFloat", domain=MICROSOFT)
def _matmul_to_float(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    a, b, a_scale, b_scale = inputs[:4]
    assert a is not None and b is not None and a_scale is not None and b_scale is not None
    left = _dequantised(a, a_scale, optional(inputs, 4), axis=-2)
    y = left @ _dequantised(b, b_scale, optional(inputs, 5), axis=-1)
    bias = optional(inputs, 6)
    return [y if bias is None else y + bias]


@lowering("DynamicQuantizeMatMul", domain=MICROSOFT)
def _dynamic_matmul(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    a, b, scale, bias = leading(inputs), inputs[1], inputs[2], optional(inputs, 4)
    assert b is not None and scale is not None
    steps, step, zero = graph.ops("DynamicQuantizeLinear", [a], [a.shape, (), ()], [_BYTE, _FLOAT, _BYTE])
    y = _dequantised(steps, step, zero) @ _dequantised(b, scale, optional(inputs, 3), axis=-1)
    return [y if bias is None else y + bias]


@lowering("MatMulNBits", domain=MICROSOFT)
def _matmul_n_bits(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    attributes, bias = settings_of(node), optional(inputs, 5)
    packed, scales, zeros = (None if v is None else v.constant for v in (*inputs[1:3], optional(inputs, 3)))
    if (
        packed is None
        or scales is None
        or optional(inputs, 4) is not None
        or (optional(inputs, 3) is not None and zeros is None)
    ):
        return None
    weight = _unpacked(packed, scales, zeros, attributes)
    y = leading(inputs) @ graph.constant(np.ascontiguousarray(weight.T.astype(leading(inputs).dtype)))
    return [y if bias is None else y + bias]


def _unpacked(
    packed: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, attributes: Mapping[str, Any]
) -> np.ndarray:
    """The weight [N, K] of a MatMulNBits: numbers of a few bits, lowest first, in blocks with a scale each."""
    rows, columns, bits, block = (int(attributes.get(k, 4)) for k in ("N", "K", "bits", "block_size"))
    blocks = -(-columns // block)
    steps = _bits(packed.reshape(rows, blocks, -1), bits)[..., :block].astype(np.float32)
    middle = np.full((rows, blocks), 2.0 ** (bits - 1), np.float32)
    if zeros is not None:
        whole = zeros.reshape(rows, -1)
        middle = whole if whole.dtype.kind == "f" else _bits(whole, bits)[:, :blocks].astype(np.float32)
    real = (steps - middle[..., None]) * scales.reshape(rows, blocks, 1).astype(np.float32)
    return real.reshape(rows, blocks * block)[:, :columns]


def _bits(packed: np.ndarray, bits: int) -> np.ndarray:
    """Numbers of `bits` bits that lie in bytes one after the other, the lowest bits first."""
    apart = np.unpackbits(packed, axis=-1, bitorder="little")
    numbers = apart.reshape(*packed.shape[:-1], -1, bits)
    return (numbers * (1 << np.arange(bits))).sum(-1)
