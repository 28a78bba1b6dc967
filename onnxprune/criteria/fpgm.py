"""Distance from the geometric median: a filter in the middle of the others is replaceable by them.

Source: He et al., "Filter Pruning via Geometric Median for Deep Neural Networks Acceleration", 2019, eq. 4: the sum of
the distances from all other filters of the layer; here between the units of a group, for every layer that makes them.
A group that no layer makes from a weight of its own (weight normalisation) is ranked by the norms of all that it holds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxprune.criteria.aggregate import Aggregate, Member, first_known
from onnxprune.criteria.magnitude import norms
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.layers import making_axes
from onnxprune.tracing import as_field
from onnxprune.typing import Array

# Rows of the table of distances that are in memory at a time.
ROWS = 1024


@criterion("fpgm", aggregate="sum", source="He et al. 2019, arXiv:1811.00250")
def fpgm(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Sum of distances from the filters of the group's other units."""
    weights = evidence.weights
    return first_known(evidence.groups, aggregate, lambda: _members(evidence), lambda: norms(weights))


def _members(evidence: Evidence) -> Iterator[Member]:
    weights, group_of = evidence.weights, evidence.groups.group_of
    for part, axis, value in making_axes(weights):
        ids, filters = by_unit(value, weights.classes(as_field(part.axes[axis], axis, value.ndim)), axis)
        groups = np.where(ids >= 0, group_of[ids], -1)
        for group in np.unique(groups[groups >= 0]):
            mine = groups == group
            yield ids[mine], distances(filters[mine])


def by_unit(value: Array, ids: Array, axis: int) -> tuple[Array, Array]:
    """(classes, float32[classes, elements]): what every class holds; zeros behind a class that holds less."""
    if ids.size == ids.shape[axis]:
        rows = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
    else:
        rows, ids = value.reshape(-1, 1), np.broadcast_to(ids, value.shape)
    order = np.argsort(ids.reshape(-1), kind="stable")
    found, start, count = np.unique(ids.reshape(-1)[order], return_index=True, return_counts=True)
    rows = rows[order].astype(np.float32, copy=False)
    if (count == count[0]).all():
        return found, rows.reshape(len(found), -1)
    laid = np.zeros((len(found), count.max(), rows.shape[1]), np.float32)
    laid[np.repeat(np.arange(len(found)), count), np.arange(len(rows)) - np.repeat(start, count)] = rows
    return found, laid.reshape(len(found), -1)


def distances(points: Array) -> Array:
    """The sum of every point's Euclidean distances from all others."""
    points = points - points.mean(axis=0)  # the products below are exact where the points lie around zero
    squares = np.einsum("ij,ij->i", points, points)
    sums = np.empty(len(points))
    for start in range(0, len(points), ROWS):
        part = slice(start, start + ROWS)
        table = squares[part, None] + squares - 2 * (points[part] @ points.T)
        table[np.arange(len(table)), np.arange(start, start + len(table))] = 0
        sums[part] = np.sqrt(np.maximum(table, 0)).sum(axis=1, dtype=np.float64)
    return sums
