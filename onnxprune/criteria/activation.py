"""Magnitude of a unit's activation where contractions read it.

Source: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", 2017, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from onnxprune.criteria.aggregate import Aggregate, Member, first_known
from onnxprune.criteria.magnitude import norms
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.layers import ActivationMoments
from onnxprune.typing import Array


@criterion("activation", needs_data=True, aggregate="mean", source="Molchanov et al. 2017, arXiv:1611.06440")
def activation(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Mean absolute value of a unit's activations."""
    return read(evidence, aggregate, lambda moments: moments.mean_absolute)


def read(evidence: Evidence, aggregate: Aggregate, statistic: Callable[[ActivationMoments], Array]) -> Array:
    """The mean of a statistic over a class' positions, in every activation that is read, and these combined.

    A group that was not measured is ranked by the norms of all that it holds.
    """

    def members() -> Iterator[Member]:
        for reader, moments in evidence.activations.tensors():
            yield mean_by_class(evidence.weights.classes(reader.field).reshape(-1), statistic(moments).reshape(-1))

    return first_known(evidence.groups, aggregate, members, lambda: norms(evidence.weights))


def mean_by_class(ids: Array, amounts: Array) -> Member:
    """Means of `amounts` over equal ids."""
    found, place, count = np.unique(ids, return_inverse=True, return_counts=True)
    means = np.bincount(place.reshape(-1), weights=amounts) / count
    return found[found >= 0], means[found >= 0]
