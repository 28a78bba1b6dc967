"""ONNX Runtime's fused operators, written out in standard ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.lowering.registry import Inputs, leading, lowering, optional, settings_of
from onnxprune.model.protos import MICROSOFT


def gelu(x: Value) -> Value:
    """Gaussian error linear unit, by the error function."""
    return x * ((x * (1 / math.sqrt(2))).map("Erf") + 1.0) * 0.5


def fast_gelu(x: Value) -> Value:
    """Gaussian error linear unit, approximated by tanh."""
    inner = x * (x * x * 0.044715 + 1.0) * math.sqrt(2 / math.pi)
    return x * (inner.map("Tanh") + 1.0) * 0.5


_ACTIVATIONS: Mapping[str, Callable[[Value, Sequence[float]], Value]] = {
    "Relu": lambda x, p: x.map("Relu"),
    "Sigmoid": lambda x, p: x.map("Sigmoid"),
    "Tanh": lambda x, p: x.map("Tanh"),
    "LeakyRelu": lambda x, p: x.map("LeakyRelu", alpha=float(p[0]) if p else 0.01),
    "HardSigmoid": lambda x, p: x.map("HardSigmoid", alpha=float(p[0]), beta=float(p[1])),
    "Clip": lambda x, p: x.graph.op("Clip", x, x.like(p[0]), x.like(p[1]), shape=x.shape),
    "": lambda x, p: x,
}


@lowering("Gelu", domain=MICROSOFT)
def _gelu(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    return [gelu(leading(inputs))]


@lowering("BiasGelu", domain=MICROSOFT)
def _bias_gelu(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    return [gelu(_with(inputs, 1))]


@lowering("FastGelu", domain=MICROSOFT)
def _fast_gelu(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    return [fast_gelu(_with(inputs, 1))]


@lowering("QuickGelu", domain=MICROSOFT)
def _quick_gelu(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    x = leading(inputs)
    return [x * (x * float(settings_of(node).get("alpha", 1.702))).map("Sigmoid")]


def _with(inputs: Inputs, slot: int) -> Value:
    x, bias = leading(inputs), optional(inputs, slot)
    return x if bias is None else x + bias


@lowering("FusedConv", domain=MICROSOFT)
def _fused_conv(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    settings = settings_of(node)
    name, parameters = settings.pop("activation", ""), settings.pop("activation_params", [])
    output = outputs[0]
    if name not in _ACTIVATIONS or output is None:
        return None
    y = graph.op("Conv", *inputs[:3], shape=output.shape, **settings)
    skip = optional(inputs, 3)
    return [_ACTIVATIONS[name](y if skip is None else y + skip, parameters)]


@lowering("FusedGemm", domain=MICROSOFT)
def _fused_gemm(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    settings = settings_of(node)
    name = settings.pop("activation", "")
    keys = [k for k in ("activation_alpha", "activation_beta", "activation_gamma") if k in settings]
    parameters = [settings.pop(k) for k in keys]
    output = outputs[0]
    if name not in _ACTIVATIONS or output is None:
        return None
    return [_ACTIVATIONS[name](graph.op("Gemm", *inputs, shape=output.shape, **settings), parameters)]


@lowering("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def _fused_matmul(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    settings = settings_of(node)
    a, b = leading(inputs), inputs[1]
    if b is None or min(a.rank, b.rank) < 2:
        return None
    left, right = _turned(a, settings, "A"), _turned(b, settings, "B")
    return [left @ right * float(settings.get("alpha", 1.0))]


def _turned(value: Value, settings: dict[str, Any], side: str) -> Value:
    """An operand as it is multiplied: its matrices, and its first axis with the last of the stack, may be turned."""
    if settings.get(f"transBatch{side}"):
        rank = value.rank
        value = value.transpose([*range(1, rank - 1), 0, rank - 1])
    return value.mT if settings.get(f"trans{side}") else value


@lowering("SimplifiedLayerNormalization")
@lowering("SimplifiedLayerNormalization", domain=MICROSOFT)
def _simplified_norm(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    x, scale = leading(inputs), inputs[1]
    settings = settings_of(node)
    if scale is None or len([o for o in outputs if o is not None]) > 1:
        return None
    axes = list(range(settings.get("axis", -1) % x.rank, x.rank))
    return [_rms(x, scale, axes, settings.get("epsilon", 1e-5))]


def _rms(x: Value, scale: Value, axes: Sequence[int], epsilon: float) -> Value:
    return x * ((x * x).mean(axes, keepdims=True) + float(epsilon)).map("Sqrt").map("Reciprocal") * scale


def _layer_norm(x: Value, scale: Value, shift: Value | None, epsilon: float) -> Value:
    return x.graph.op("LayerNormalization", x, scale, shift, shape=x.shape, axis=-1, epsilon=float(epsilon))


@lowering("SkipLayerNormalization", domain=MICROSOFT)
def _skip_norm(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value | None] | None:
    scale = optional(inputs, 2)
    total = _skipped(inputs, bias=4)
    if scale is None or total is None or any(o is not None for o in outputs[1:3]):
        return None
    return [_layer_norm(total, scale, optional(inputs, 3), settings_of(node).get("epsilon", 1e-12)), None, None, total]


@lowering("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def _skip_rms(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value | None] | None:
    scale = optional(inputs, 2)
    total = _skipped(inputs, bias=3)
    if scale is None or total is None or any(o is not None for o in outputs[1:3]):
        return None
    axes = [total.rank - 1]
    return [_rms(total, scale, axes, settings_of(node).get("epsilon", 1e-12)), None, None, total]


def _skipped(inputs: Inputs, *, bias: int) -> Value | None:
    x, skip = leading(inputs), optional(inputs, 1)
    if skip is None:
        return None
    added = optional(inputs, bias)
    return x + skip if added is None else x + skip + added


@lowering("EmbedLayerNormalization", domain=MICROSOFT)
def _embed_norm(
    graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs
) -> list[Value | None] | None:
    ids, segments, words, positions = leading(inputs), optional(inputs, 1), optional(inputs, 2), optional(inputs, 3)
    segment_table, scale = optional(inputs, 4), optional(inputs, 5)
    mask, places = optional(inputs, 7), optional(inputs, 8)
    if words is None or positions is None or scale is None or outputs[0] is None:
        return None
    batch, length = ids.shape
    if places is None:
        places = graph.constant(np.broadcast_to(np.arange(length, dtype=np.int64), (batch, length)).copy())
    total = _rows(words, ids) + _rows(positions, places)
    if segments is not None and segment_table is not None:
        total = total + _rows(segment_table, segments)
    normal = _layer_norm(total, scale, optional(inputs, 6), settings_of(node).get("epsilon", 1e-12))
    lengths = graph.constant(np.zeros(batch, np.int32)) if mask is None else mask.sum([1])
    return [normal, lengths, total]


def _rows(table: Value, ids: Value) -> Value:
    return table.graph.op("Gather", table, ids, shape=[*ids.shape, table.shape[1]], axis=0)
