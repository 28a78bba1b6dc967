"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from onnxprune.torch.registry import Operation, translates

# Operator -> function of tensor, axes and whether the axes stay.
_REDUCTIONS: Mapping[str, Callable[[Any, Any, bool], Any]] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
    "ReduceMax": lambda x, axes, keep: _extreme(x, axes, keep, torch.amax),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMin": lambda x, axes, keep: _extreme(x, axes, keep, torch.amin),
    "ReduceProd": lambda x, axes, keep: _product(x, axes, keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keep, dtype=x.dtype),
}


def _extreme(x: Any, axes: Any, keep: bool, function: Callable[..., Any]) -> Any:
    return function(x.byte(), axes, keep).bool() if x.dtype == torch.bool else function(x, axes, keep)


def _product(x: Any, axes: Any, keep: bool) -> Any:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keep, dtype=x.dtype)
    return x


@translates(*_REDUCTIONS, numbers=(1,))
def _reduce(operation: Operation, x: Any, axes: list[int] | None = None) -> Any:
    axes = operation.get("axes") if axes is None else axes
    if not axes and operation.get("noop_with_empty_axes"):
        # The operator without its sum: the square of ReduceSumSquare is still taken.
        return _REDUCTIONS[operation.kind](x.unsqueeze(-1), (x.ndim,), False)
    along = tuple(axis % x.ndim for axis in axes or range(x.ndim)) if x.ndim else ()
    if not along:
        return _REDUCTIONS[operation.kind](x.reshape(1), (0,), False)
    return _REDUCTIONS[operation.kind](x, along, bool(operation.get("keepdims", 1)))


@translates("ArgMax", "ArgMin")
def _place(operation: Operation, x: Any) -> Any:
    axis, keep = operation.get("axis", 0), bool(operation.get("keepdims", 1))
    find = torch.argmax if operation.kind == "ArgMax" else torch.argmin
    if operation.get("select_last_index"):
        return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keep)
    return find(x, axis, keepdim=keep)


@translates("CumSum", "CumProd", numbers=(1,))
def _cumulative(operation: Operation, x: Any, axis: Any) -> Any:
    axis = axis[0] if isinstance(axis, list) else axis
    x = x.flip(axis) if operation.get("reverse") else x
    if operation.get("exclusive"):
        first = torch.full_like(x.narrow(axis, 0, 1), operation.kind == "CumProd")
        x = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    total = (torch.cumsum if operation.kind == "CumSum" else torch.cumprod)(x, axis, dtype=x.dtype)
    return total.flip(axis) if operation.get("reverse") else total


@translates("TopK", numbers=(1,))
def _top(operation: Operation, x: Any, count: list[int]) -> list[Any]:
    axis, largest = operation.get("axis", -1), bool(operation.get("largest", 1))
    # A stable sort: among equal elements the first counts, as ONNX says.
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return [values.narrow(axis, 0, count[0]), places.narrow(axis, 0, count[0])]
