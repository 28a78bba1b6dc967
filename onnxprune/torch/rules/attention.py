"""Attention: the standard operator's pieces, and ONNX Runtime's fused ones without caches."""

from __future__ import annotations

import math
from typing import Any

import torch

from onnxprune.errors import ModelError
from onnxprune.model.protos import MICROSOFT
from onnxprune.torch.registry import Operation, filled, translates


def _refuse_caches(operation: Operation, *inputs: Any) -> None:
    if any(i is not None for i in inputs) or any(operation.wants(k) for k in range(1, len(operation.outputs))):
        raise ModelError(f"no rule says how PyTorch computes {operation.kind} with a cache (node {operation.name!r})")


@translates("Attention", domain=MICROSOFT)
def _attention(operation: Operation, *inputs: Any) -> Any:
    x, weight, bias, mask, past, extra, *others = filled(inputs, 6)
    _refuse_caches(operation, past, *others)
    packed = x @ weight if bias is None else x @ weight + bias
    widths = operation.get("qkv_hidden_sizes") or [packed.shape[-1] // 3] * 3
    return _attended(operation, list(packed.split(widths, -1)), mask, extra)


@translates("MultiHeadAttention", domain=MICROSOFT)
def _multi_head(operation: Operation, *inputs: Any) -> Any:
    q, k, v, bias, mask, extra, *others = filled(inputs, 6)
    _refuse_caches(operation, *others)
    if any(t is None or t.ndim != 3 for t in (q, k, v)):
        raise ModelError(f"no rule says how PyTorch computes packed MultiHeadAttention (node {operation.name!r})")
    parts = [q, k, v]
    if bias is not None:
        parts = [t + b for t, b in zip(parts, bias.split([t.shape[-1] for t in parts]), strict=True)]
    return _attended(operation, parts, mask, extra)


def _attended(operation: Operation, parts: list[Any], mask: Any, extra: Any) -> Any:
    """Softmax of the scaled products, times the values; [batch, length, heads * size] in and out."""
    heads = operation.attributes["num_heads"]
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in parts)
    scale = operation.get("scale") or 1 / math.sqrt(q.shape[-1])
    scores = q @ k.mT * scale
    if mask is not None:
        scores = scores + _added(operation, mask, scores)
    if extra is not None:
        scores = scores + extra
    if operation.get("unidirectional"):
        rows, columns = scores.shape[-2:]
        later = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).triu(columns - rows + 1)
        scores = scores.masked_fill(later, torch.finfo(scores.dtype).min / 2)
    return (torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(-2)


def _added(operation: Operation, mask: Any, scores: Any) -> Any:
    """What a mask of ones and zeros adds to the scores: [batch, keys] or [batch, queries, keys]."""
    batch, _, rows, columns = scores.shape
    shapes = {(batch, columns): (batch, 1, 1, columns), (batch, rows, columns): (batch, 1, rows, columns)}
    if tuple(mask.shape) not in shapes:
        raise ModelError(f"no rule says how PyTorch reads a mask of shape {list(mask.shape)} (node {operation.name!r})")
    kept = mask.to(scores.dtype).reshape(shapes[tuple(mask.shape)])
    return (1.0 - kept) * operation.get("mask_filter_value", -10000.0)


@translates("EmbedLayerNormalization", domain=MICROSOFT)
def _embed_norm(operation: Operation, *inputs: Any) -> list[Any]:
    ids, segments, words, positions, segment_table, scale, shift, mask, places = filled(inputs, 9)
    if mask is not None:
        raise ModelError(f"no rule says how PyTorch counts a mask (node {operation.name!r})")
    places = torch.arange(ids.shape[1], device=ids.device) if places is None else places.long()
    total = words[ids.long()] + positions[places]
    if segments is not None:
        total = total + segment_table[segments.long()]
    normal = torch.nn.functional.layer_norm(total, total.shape[-1:], scale, shift, operation.get("epsilon", 1e-12))
    return [normal, None, total]
