"""Scale of BatchNormalization: the factor that a channel is multiplied by.

Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", 2017. The scale is lost where
an exporter folded it into the layer in front: a group in which not every unit has one is ranked by the norm of the
filters (with what was folded into them) that make its units, and one that no filters make by the norms of all that it
holds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxprune.criteria.aggregate import Aggregate, Member, by_class, first_known
from onnxprune.criteria.magnitude import norms, sums_over
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.layers import making_axes
from onnxprune.tracing import as_field
from onnxprune.typing import Array


@criterion("bn-scale", aggregate="sum", source="Liu et al. 2017, arXiv:1708.06519")
def bn_scale(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """|scale| of BatchNormalization, the filters' norm where it is folded away."""
    choices = (lambda: _scales(evidence), lambda: _filters(evidence), lambda: norms(evidence.weights))
    return first_known(evidence.groups, aggregate, *choices)


def _scales(evidence: Evidence) -> Iterator[Member]:
    tracing = evidence.groups.tracing
    for view, rule in tracing.views:
        if rule is not None and view.node.op_type == "BatchNormalization" and view.is_weight(1):
            labels, value = view.labels(1)[0], tracing.weight_value(view.node.input[1])
            if value is not None and evidence.weights.in_groups(labels):
                yield by_class(evidence.weights.classes(labels), np.abs(value.astype(np.float64)))


def _filters(evidence: Evidence) -> Iterator[Member]:
    for part, axis, value in making_axes(evidence.weights):
        field = as_field(part.axes[axis], axis, value.ndim)
        (sums,) = sums_over(value, [field], np.square)
        ids, sums = by_class(evidence.weights.classes(field).reshape(-1), sums.reshape(-1))
        yield ids, np.sqrt(sums)
