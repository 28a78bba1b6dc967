"""Magnitude of all parameters that a unit holds.

Source: Li et al., "Pruning Filters for Efficient ConvNets", 2017 (l1); extended to all coupled parameters as in
Fang et al., "DepGraph: Towards Any Structural Pruning", 2023, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.grouping import Groups
from onnxprune.labels import as_field

# Tensors are read in slabs, so that memory stays bounded by the tensor itself.
SLAB = 1 << 22


def l1(groups: Groups, rng: np.random.Generator) -> np.ndarray:
    """Sum of absolute values over all parameters of a class."""
    return accumulate(groups, np.abs)


def l2(groups: Groups, rng: np.random.Generator) -> np.ndarray:
    """Euclidean norm over all parameters of a class."""
    return np.sqrt(accumulate(groups, np.square))


def accumulate(groups: Groups, elementwise: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Sums of `elementwise(weight)` over every class: float64[classes].

    A weight that is cut along two axes counts for a class of either; running statistics of BatchNormalization,
    which are not parameters, do not count.
    """
    totals = np.zeros(groups.classes.count)
    grouped = groups.group_of >= 0
    for key, axes in groups.tracing.weights_axes():
        if key in groups.tracing.statistics:
            continue
        cut = []
        for axis, labels in enumerate(axes):
            flat = labels.reshape(-1)
            if flat.size > 1 and grouped[groups.classes.of[np.maximum(flat, 0)]][flat >= 0].any():
                cut.append(axis)
        if cut:
            _add(totals, groups, key, axes, cut, elementwise)
    return totals


def _add(
    totals: np.ndarray,
    groups: Groups,
    key: str,
    axes: tuple[np.ndarray, ...],
    cut: list[int],
    elementwise: Callable[[np.ndarray], np.ndarray],
) -> None:
    value = groups.tracing.weight_value(groups.tracing.weights[key])
    if value is None:
        return
    fields = [as_field(axes[a], a, value.ndim) for a in cut]
    needed = [a for a in range(value.ndim) if any(f.shape[a] > 1 for f in fields)]
    reduced = _reduce(value, tuple(a for a in range(value.ndim) if a not in needed), elementwise)
    for field in fields:
        spare = tuple(a for a in range(value.ndim) if field.shape[a] == 1 and reduced.shape[a] > 1)
        amount = reduced.sum(axis=spare, keepdims=True) if spare else reduced
        labels = np.broadcast_to(field, amount.shape).reshape(-1)
        held = labels >= 0
        ids = groups.classes.of[labels[held]]
        totals += np.bincount(ids, weights=amount.reshape(-1)[held], minlength=len(totals))


def _reduce(value: np.ndarray, away: tuple[int, ...], elementwise: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`elementwise(value)` summed over the axes `away` (kept with size 1), in slabs of the first axis."""
    rows = max(1, SLAB // max(1, value.size // max(1, value.shape[0])))
    parts = []
    for start in range(0, value.shape[0], rows):
        slab = value[start : start + rows]
        if slab.dtype.itemsize < 4 or slab.dtype.kind not in "fc":
            slab = slab.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # scores that are not finite are refused
            powered = elementwise(slab)
        parts.append(powered.sum(axis=away, keepdims=True, dtype=np.float32) if away else powered)
    if 0 in away:
        return np.sum(parts, axis=0)
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
