"""Magnitude of all weights that a unit holds, written or read.

Source: Li et al., "Pruning Filters for Efficient ConvNets", 2017 (l1); extended to all coupled weights as in
Fang et al., "DepGraph: Towards Any Structural Pruning", 2023, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from onnxprune.criteria.aggregate import Aggregate, Member, aggregated, by_class
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.layers import WeightPart, Weights
from onnxprune.tracing import Groups, as_field
from onnxprune.typing import Array

# Tensors are read in slabs of so many elements: what is computed on the way stays in the cache.
SLAB = 1 << 18
Elementwise = Callable[[Array], Array]


@criterion("l1", aggregate="sum", normalize="max", source="Li et al. 2017, arXiv:1608.08710")
def l1(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Sum of absolute values over all weights of a unit."""
    return aggregate(members(evidence.weights, np.abs))


@criterion("l2", aggregate="norm", normalize="max", source="Fang et al. 2023, arXiv:2301.12900")
def l2(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Euclidean norm of all weights of a unit."""
    return aggregate(norms(evidence.weights))


def accumulate(groups: Groups, elementwise: Elementwise) -> Array:
    """Sums of `elementwise(weight)` over every class: float64[classes].

    A weight that is cut along two axes counts for a class of either. Weights are as they act (see `effective`).
    """
    return aggregated(members(Weights(groups), elementwise), "sum", groups.classes.count)


def norms(weights: Weights) -> Iterator[Member]:
    """The Euclidean norm of what every class holds of every weight axis that is cut."""
    return ((ids, np.sqrt(sums)) for ids, sums in members(weights, np.square))


def members(
    weights: Weights, elementwise: Elementwise, amounts_of: Callable[[WeightPart], Array | None] | None = None
) -> Iterator[Member]:
    """Sums of `elementwise(weight)` over what every class holds of every weight axis that is cut.

    `amounts_of` replaces weights by other amounts of the same shape, and those that it has none for are left out.

    Vectors (biases, scales) count only for classes that hold nothing else: a bias moves what a unit gives, and says
    little of what the unit is worth. What is not finite counts wherever it is, so that it is reported.
    """
    held, vectors = np.zeros(weights.groups.classes.count, bool), list[Member]()
    for part, cut, weight in weights.parts():
        value = weight if amounts_of is None else amounts_of(part)
        if value is None:
            continue
        is_vector = sum(size > 1 for size in value.shape) < 2
        fields = [as_field(part.axes[a], a, value.ndim) for a in cut]
        for field, sums in zip(fields, sums_over(value, fields, elementwise), strict=True):
            labels = np.broadcast_to(field, sums.shape).reshape(-1)
            ids, amounts = by_class(weights.classes(labels), sums.reshape(-1))
            if is_vector:
                vectors.append((ids, amounts))
                continue
            held[ids] = True
            yield ids, amounts
    for ids, amounts in vectors:
        counts = ~held[ids] | ~np.isfinite(amounts)
        if counts.any():
            yield ids[counts], amounts[counts]


def sums_over(value: Array, fields: Sequence[Array], elementwise: Elementwise) -> list[Array]:
    """`elementwise(value)` summed over the axes on which a field does not vary, for every field (axes are kept)."""
    needed = [a for a in range(value.ndim) if any(f.shape[a] > 1 for f in fields)]
    away = tuple(a for a in range(1, value.ndim) if a not in needed)
    spare = [tuple(a for a in {0, *needed} if f.shape[a] == 1) for f in fields]
    parts: list[list[Array]] = [[] for _ in fields]
    rows = max(1, SLAB // max(1, value.size // max(1, value.shape[0])))
    for start in range(0, value.shape[0], rows):
        slab = value[start : start + rows]
        if slab.dtype.itemsize < 4 or slab.dtype.kind not in "fc":
            slab = slab.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # scores that are not finite are refused
            powered = elementwise(slab)
            powered = powered.sum(axis=away, keepdims=True) if away else powered
            for found, axes in zip(parts, spare, strict=True):
                found.append(powered.sum(axis=axes, keepdims=True) if axes else powered)
    return [_joined(found, along=f.shape[0] > 1) for found, f in zip(parts, fields, strict=True)]


def _joined(parts: Sequence[Array], *, along: bool) -> Array:
    """The slabs' sums in a row, or added up."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if along else np.asarray(np.sum(parts, axis=0, dtype=np.float64))
