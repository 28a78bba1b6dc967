"""ONNX Runtime's fused operators, written out in standard ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.lowering.registry import lowering
from onnxprune.model.protos import MICROSOFT

Inputs = Sequence[Value | None]


def _options(node: onnx.NodeProto) -> dict[str, Any]:
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


def _given(inputs: Inputs, slot: int) -> Value | None:
    return inputs[slot] if slot < len(inputs) else None


def _first(inputs: Inputs) -> Value:
    value = inputs[0]
    assert value is not None
    return value


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
    return [gelu(_first(inputs))]


@lowering("BiasGelu", domain=MICROSOFT)
def _bias_gelu(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    return [gelu(_with(inputs, 1))]


@lowering("FastGelu", domain=MICROSOFT)
def _fast_gelu(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    return [fast_gelu(_with(inputs, 1))]


@lowering("QuickGelu", domain=MICROSOFT)
def _quick_gelu(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    x = _first(inputs)
    return [x * (x * float(_options(node).get("alpha", 1.702))).map("Sigmoid")]


@lowering("BiasAdd", domain=MICROSOFT)
def _bias_add(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    x = _with(inputs, 1)
    skip = _given(inputs, 2)
    return [x if skip is None else x + skip]


@lowering("BiasSplitGelu", domain=MICROSOFT)
def _bias_split_gelu(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value]:
    x = _with(inputs, 1)
    axis, half = x.rank - 1, x.shape[-1] // 2
    return [x.slice(axis, 0, half) * gelu(x.slice(axis, half, 2 * half))]


def _with(inputs: Inputs, slot: int) -> Value:
    x, bias = _first(inputs), _given(inputs, slot)
    return x if bias is None else x + bias


@lowering("FusedConv", domain=MICROSOFT)
def _fused_conv(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    options = _options(node)
    name, parameters = options.pop("activation", ""), options.pop("activation_params", [])
    output = outputs[0]
    if name not in _ACTIVATIONS or output is None:
        return None
    y = graph.op("Conv", *inputs[:3], shape=output.shape, **options)
    skip = _given(inputs, 3)
    return [_ACTIVATIONS[name](y if skip is None else y + skip, parameters)]


@lowering("FusedGemm", domain=MICROSOFT)
def _fused_gemm(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    options = _options(node)
    name = options.pop("activation", "")
    keys = [k for k in ("activation_alpha", "activation_beta", "activation_gamma") if k in options]
    parameters = [options.pop(k) for k in keys]
    output = outputs[0]
    if name not in _ACTIVATIONS or output is None:
        return None
    return [_ACTIVATIONS[name](graph.op("Gemm", *inputs, shape=output.shape, **options), parameters)]


@lowering("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def _fused_matmul(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    options = _options(node)
    a, b = _first(inputs), inputs[1]
    if b is None or options.get("transBatchA") or options.get("transBatchB") or min(a.rank, b.rank) < 2:
        return None
    left = a.mT if options.get("transA") else a
    right = b.mT if options.get("transB") else b
    return [left @ right * float(options.get("alpha", 1.0))]


@lowering("SimplifiedLayerNormalization")
@lowering("SimplifiedLayerNormalization", domain=MICROSOFT)
def _simplified_norm(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    x, scale = _first(inputs), inputs[1]
    options = _options(node)
    if scale is None or len([o for o in outputs if o is not None]) > 1:
        return None
    axes = list(range(options.get("axis", -1) % x.rank, x.rank))
    return [_rms(x, scale, axes, options.get("epsilon", 1e-5))]


def _rms(x: Value, scale: Value, axes: Sequence[int], epsilon: float) -> Value:
    return x * ((x * x).mean(axes, keepdims=True) + float(epsilon)).map("Sqrt").map("Reciprocal") * scale


def _layer_norm(x: Value, scale: Value, shift: Value | None, epsilon: float) -> Value:
    return x.graph.op("LayerNormalization", x, scale, shift, shape=x.shape, axis=-1, epsilon=float(epsilon))


@lowering("SkipLayerNormalization", domain=MICROSOFT)
def _skip_norm(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value | None] | None:
    scale = _given(inputs, 2)
    total = _skipped(inputs, bias=4)
    if scale is None or total is None or any(o is not None for o in outputs[1:3]):
        return None
    return [_layer_norm(total, scale, _given(inputs, 3), _options(node).get("epsilon", 1e-12)), None, None, total]


@lowering("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def _skip_rms(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value | None] | None:
    scale = _given(inputs, 2)
    total = _skipped(inputs, bias=3)
    if scale is None or total is None or any(o is not None for o in outputs[1:3]):
        return None
    axes = [total.rank - 1]
    return [_rms(total, scale, axes, _options(node).get("epsilon", 1e-12)), None, None, total]


def _skipped(inputs: Inputs, *, bias: int) -> Value | None:
    x, skip = _first(inputs), _given(inputs, 1)
    if skip is None:
        return None
    added = _given(inputs, bias)
    return x + skip if added is None else x + skip + added


@lowering("EmbedLayerNormalization", domain=MICROSOFT)
def _embed_norm(
    graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs
) -> list[Value | None] | None:
    ids, segments, words, positions = _first(inputs), _given(inputs, 1), _given(inputs, 2), _given(inputs, 3)
    segment_table, scale = _given(inputs, 4), _given(inputs, 5)
    places = _given(inputs, 8)
    if words is None or positions is None or scale is None or outputs[0] is None or _given(inputs, 7) is not None:
        return None
    batch, length = ids.shape
    if places is None:
        places = graph.constant(np.broadcast_to(np.arange(length, dtype=np.int64), (batch, length)).copy())
    total = _rows(words, ids) + _rows(positions, places)
    if segments is not None and segment_table is not None:
        total = total + _rows(segment_table, segments)
    normal = _layer_norm(total, scale, _given(inputs, 6), _options(node).get("epsilon", 1e-12))
    return [normal, None, total]


def _rows(table: Value, ids: Value) -> Value:
    return table.graph.op("Gather", table, ids, shape=[*ids.shape, table.shape[1]], axis=0)


@lowering("Attention", domain=MICROSOFT)
def _attention(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    """Self-attention with packed projections; masks of two axes, no cache."""
    options = _options(node)
    x, weight, bias, mask = _first(inputs), inputs[1], _given(inputs, 2), _given(inputs, 3)
    plain = not any(options.get(k) for k in ("do_rotary", "past_present_share_buffer"))
    if weight is None or not plain or any(_given(inputs, s) is not None for s in (4, 6)):
        return None
    packed = x @ weight
    packed = packed if bias is None else packed + bias
    heads = options["num_heads"]
    widths = options.get("qkv_hidden_sizes") or [packed.shape[-1] // 3] * 3
    ends = np.cumsum(widths)
    q, k, v = (packed.slice(2, int(end - n), int(end)) for end, n in zip(ends, widths, strict=True))
    scores = _scores(q, k, heads, options.get("scale"))
    if mask is not None:
        added = _added_mask(mask, scores, options.get("mask_filter_value", -10000.0))
        if added is None:
            return None
        scores = scores + added
    if options.get("unidirectional"):
        scores = scores + _causal(scores)
    extra = _given(inputs, 5)
    return [_attended(scores if extra is None else scores + extra, v, heads)]


@lowering("MultiHeadAttention", domain=MICROSOFT)
def _multi_head(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    """Attention over separate [batch, length, heads * size] inputs, without cache."""
    options = _options(node)
    q, k, v = _first(inputs), _given(inputs, 1), _given(inputs, 2)
    if k is None or v is None or any(t.rank != 3 for t in (q, k, v)):
        return None
    if any(_given(inputs, s) is not None for s in range(6, len(inputs))) or any(o is not None for o in outputs[1:]):
        return None
    bias = _given(inputs, 3)
    if bias is not None:
        ends = np.cumsum([t.shape[2] for t in (q, k, v)])
        q, k, v = (t + bias.slice(0, int(e - t.shape[2]), int(e)) for t, e in zip((q, k, v), ends, strict=True))
    heads = options["num_heads"]
    scores = _scores(q, k, heads, options.get("scale"))
    mask = _given(inputs, 4)
    if mask is not None:
        added = _added_mask(mask, scores, options.get("mask_filter_value", -10000.0))
        if added is None:
            return None
        scores = scores + added
    extra = _given(inputs, 5)
    scores = scores if extra is None else scores + extra
    return [_attended(scores + _causal(scores) if options.get("unidirectional") else scores, v, heads)]


def _heads(value: Value, heads: int) -> Value:
    batch, length, width = value.shape
    return value.reshape([batch, length, heads, width // heads]).transpose([0, 2, 1, 3])


def _scores(q: Value, k: Value, heads: int, scale: float | None) -> Value:
    size = q.shape[2] // heads
    return _heads(q, heads) @ _heads(k, heads).mT * float(scale or 1 / math.sqrt(size))


def _attended(scores: Value, v: Value, heads: int) -> Value:
    mixed = scores.map("Softmax", axis=-1) @ _heads(v, heads)
    batch, _, length, size = mixed.shape
    return mixed.transpose([0, 2, 1, 3]).reshape([batch, length, heads * size])


def _causal(scores: Value) -> Value:
    rows, columns = scores.shape[-2:]
    later = np.triu(np.full((rows, columns), np.finfo(scores.dtype).min / 2, scores.dtype), columns - rows + 1)
    return scores.graph.constant(later)


def _added_mask(mask: Value, scores: Value, low: float) -> Value | None:
    """What a mask of ones and zeros adds to the scores: [batch, keys] or [batch, queries, keys]; None for others."""
    batch, _, rows, columns = scores.shape
    kept = mask.cast(scores.dtype)
    if mask.shape == (batch, columns):
        return (1.0 - kept.reshape([batch, 1, 1, columns])) * float(low)
    if mask.shape == (batch, rows, columns):
        return (1.0 - kept.reshape([batch, 1, rows, columns])) * float(low)
    return None
