"""Norms and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from onnxprune.model.protos import MICROSOFT
from onnxprune.torch.registry import Operation, translates


@translates("Softmax")
def _softmax(operation: Operation, x: Any) -> Any:
    return _over_rows(F.softmax, x, operation.get("axis", -1))


@translates("LogSoftmax")
def _log_softmax(operation: Operation, x: Any) -> Any:
    return _over_rows(F.log_softmax, x, operation.get("axis", -1))


def _over_rows(function: Callable[[Any, int], Any], x: Any, axis: int) -> Any:
    """A softmax whose rows that are masked whole, minus infinity alone, give NaN and pass no gradient back.

    PyTorch passes NaN back, also where a model replaces the NaN of such rows, as the standard's Attention does.
    """
    masked = x.amax(axis, keepdim=True) == -math.inf
    return function(x.masked_fill(masked, 0.0), axis).masked_fill(masked, math.nan)


@translates("Hardmax")
def _hardmax(operation: Operation, x: Any) -> Any:
    axis = operation.get("axis", -1)
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


@translates("BatchNormalization")
def _batch_norm(operation: Operation, x: Any, scale: Any, shift: Any, mean: Any, variance: Any) -> list[Any]:
    epsilon, momentum = operation.get("epsilon", 1e-5), operation.get("momentum", 0.9)
    if not operation.get("training_mode"):
        return [F.batch_norm(x, mean, variance, weight=scale, bias=shift, eps=epsilon)]
    axes = [0, *range(2, x.ndim)]
    own = x.mean(axes), x.var(axes, correction=0)
    y = F.batch_norm(x, None, None, weight=scale, bias=shift, training=True, eps=epsilon)
    return [y, *(old * momentum + new * (1 - momentum) for old, new in zip((mean, variance), own, strict=True))]


@translates("InstanceNormalization")
def _instance_norm(operation: Operation, x: Any, scale: Any, shift: Any) -> Any:
    return F.instance_norm(x, weight=scale, bias=shift, eps=operation.get("epsilon", 1e-5))


@translates("LayerNormalization")
def _layer_norm(operation: Operation, x: Any, scale: Any, shift: Any = None) -> list[Any]:
    axis, epsilon = operation.get("axis", -1) % x.ndim, operation.get("epsilon", 1e-5)
    shape = x.shape[axis:]
    if not operation.wants(1) and not operation.wants(2) and scale.shape == shape:
        return [F.layer_norm(x, shape, scale, shift if shift is None else shift.expand(shape), epsilon)]
    axes = list(range(axis, x.ndim))
    mean = x.mean(axes, keepdim=True)
    inverse = torch.rsqrt(x.var(axes, correction=0, keepdim=True) + epsilon)
    y = (x - mean) * inverse * scale
    return [y if shift is None else y + shift, mean, inverse]


@translates("RMSNormalization")
def _rms_norm(operation: Operation, x: Any, scale: Any) -> Any:
    axis = operation.get("axis", -1) % x.ndim
    return _rms(x, scale, list(range(axis, x.ndim)), operation.get("epsilon", 1e-5))


@translates("SimplifiedLayerNormalization")
@translates("SimplifiedLayerNormalization", domain=MICROSOFT)
def _simplified_norm(operation: Operation, x: Any, scale: Any) -> Any:
    return _rms_norm(operation, x, scale)


def _rms(x: Any, scale: Any, axes: list[int], epsilon: float) -> Any:
    return x * torch.rsqrt((x * x).mean(axes, keepdim=True) + epsilon) * scale


@translates("GroupNormalization")
def _group_norm(operation: Operation, x: Any, scale: Any, shift: Any) -> Any:
    groups = operation.attributes["num_groups"]
    if len(scale) == groups != x.shape[1]:  # version 18 had one scale for each group
        scale, shift = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, shift))
    return F.group_norm(x, groups, scale, shift, operation.get("epsilon", 1e-5))


@translates("MeanVarianceNormalization")
def _mean_variance(operation: Operation, x: Any) -> Any:
    axes = operation.get("axes", [0, 2, 3])
    centred = x - x.mean(axes, keepdim=True)
    return centred / (x.var(axes, correction=0, keepdim=True).sqrt() + 1e-9)


@translates("LpNormalization")
def _lp_norm(operation: Operation, x: Any) -> Any:
    norm = torch.linalg.vector_norm(x, operation.get("p", 2), operation.get("axis", -1), True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@translates("LRN")
def _local_response(operation: Operation, x: Any) -> Any:
    size = operation.attributes["size"]
    squares = F.pad((x * x).unsqueeze(1), [0, 0] * (x.ndim - 2) + [(size - 1) // 2, size // 2])
    sums = squares.unfold(2, size, 1).sum(-1).squeeze(1)
    base = operation.get("bias", 1.0) + operation.get("alpha", 1e-4) / size * sums
    return x / base ** operation.get("beta", 0.75)


@translates("SkipLayerNormalization", domain=MICROSOFT)
def _skip_norm(operation: Operation, x: Any, skip: Any, scale: Any, shift: Any = None, bias: Any = None) -> list[Any]:
    total = x + skip if bias is None else x + skip + bias
    y = F.layer_norm(total, total.shape[-1:], scale, shift, operation.get("epsilon", 1e-12))
    return [y, None, None, total]


@translates("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def _skip_rms(operation: Operation, x: Any, skip: Any, scale: Any, bias: Any = None) -> list[Any]:
    total = x + skip if bias is None else x + skip + bias
    return [_rms(total, scale, [-1], operation.get("epsilon", 1e-12)), None, None, total]
