"""Gathering and scattering by index."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from onnxprune.torch.registry import Operation, translates

_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _counted(index: Any, size: int) -> Any:
    """Indices that count from the end made to count from the front, as 64-bit numbers."""
    index = index.long()
    return torch.where(index < 0, index + size, index)


@translates("Gather")
def _gather(operation: Operation, x: Any, index: Any) -> Any:
    axis = operation.get("axis", 0) % x.ndim
    index = _counted(index, x.shape[axis])
    if axis == 0 and x.ndim == 2 and x.is_floating_point():
        return F.embedding(index, x)
    if index.ndim == 0:
        return x.select(axis, int(index))
    taken = x.index_select(axis, index.reshape(-1))
    return taken.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


@translates("GatherElements")
def _gather_elements(operation: Operation, x: Any, index: Any) -> Any:
    axis = operation.get("axis", 0)
    return x.gather(axis, _counted(index, x.shape[axis]))


def _places(shape: torch.Size, index: Any, batch: int) -> tuple[Any, ...]:
    """Index tuples [..., k] into the axes behind `batch` leading ones, as one index for each axis."""
    depth = index.shape[-1]
    parts = [_counted(index[..., k], shape[batch + k]) for k in range(depth)]
    lead = []
    for axis in range(batch):
        line = [1] * (index.ndim - 1)
        line[axis] = shape[axis]
        lead.append(torch.arange(shape[axis], device=index.device).reshape(line))
    return (*lead, *parts)


@translates("GatherND")
def _gather_nd(operation: Operation, x: Any, index: Any) -> Any:
    return x[_places(x.shape, index, operation.get("batch_dims", 0))]


@translates("ScatterElements", "Scatter")
def _scatter_elements(operation: Operation, x: Any, index: Any, updates: Any) -> Any:
    axis, how = operation.get("axis", 0), operation.get("reduction", "none")
    index = _counted(index, x.shape[axis])
    if how == "none":
        return x.scatter(axis, index, updates)
    if how == "add":
        return x.scatter_add(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCE[how])


@translates("ScatterND")
def _scatter_nd(operation: Operation, x: Any, index: Any, updates: Any) -> Any:
    how = operation.get("reduction", "none")
    places = _places(x.shape, index, 0)
    if how in ("none", "add"):
        return x.index_put(places, updates, accumulate=how == "add")
    depth = index.shape[-1]
    flat = x.reshape(-1, *x.shape[depth:])
    rows = torch.zeros_like(places[0])
    for place, size in zip(places, x.shape, strict=False):
        rows = rows * size + place
    spread = updates.reshape(-1, *x.shape[depth:])
    return flat.index_reduce(0, rows.reshape(-1), spread, _REDUCE[how].replace("sum", "mean")).reshape(x.shape)


@translates("Compress")
def _compress(operation: Operation, x: Any, kept: Any) -> Any:
    axis = operation.get("axis")
    places = kept.nonzero().reshape(-1)
    return x.reshape(-1).index_select(0, places) if axis is None else x.index_select(axis, places)


@translates("NonZero")
def _non_zero(operation: Operation, x: Any) -> Any:
    return x.nonzero().t()


@translates("OneHot", numbers=(1,))
def _one_hot(operation: Operation, index: Any, depth: Any, values: Any) -> Any:
    size = int(depth[0] if isinstance(depth, list) else depth)
    hot = F.one_hot(_counted(index, size), size).bool()
    axis = operation.get("axis", -1)
    return torch.where(hot, values[1], values[0]).movedim(-1, axis if axis >= 0 else axis + index.ndim + 1)
