"""Weights times the norm of their inputs.

Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", 2024, eq. 1: |W_ij| * ||x_j||,
here summed over all weights that read a unit, in every consumer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from onnxprune.criteria.aggregate import Aggregate, Member, by_class, first_known
from onnxprune.criteria.magnitude import Elementwise, norms, sums_over
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.layers import ActivationMoments
from onnxprune.typing import Array


@criterion("wanda", needs_data=True, aggregate="sum", source="Sun et al. 2024, arXiv:2306.11695")
def wanda(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Sum over the consumers' weights of |weight| times the norm of its input."""
    return consumed(evidence, aggregate, np.abs, lambda moments: moments.norm)


def consumed(
    evidence: Evidence, aggregate: Aggregate, elementwise: Elementwise, statistic: Callable[[ActivationMoments], Array]
) -> Array:
    """`elementwise(weight) * statistic(input)` summed over the weights of every consumer, and these combined.

    A group that is read by no weight (queries and keys, which are multiplied with each other) has the statistic alone,
    and one that was not measured is ranked by the norms of all that it holds.
    """
    weights, activations = evidence.weights, evidence.activations

    def plain() -> Iterator[Member]:
        for reader, moments in activations.tensors():
            yield by_class(weights.classes(reader.field).reshape(-1), statistic(moments).reshape(-1))

    def weighed() -> Iterator[Member]:
        return _members(evidence, elementwise, statistic)

    return first_known(evidence.groups, aggregate, weighed, plain, lambda: norms(weights))


def _members(
    evidence: Evidence, elementwise: Elementwise, statistic: Callable[[ActivationMoments], Array]
) -> Iterator[Member]:
    for reader, moments in evidence.activations.measured():
        value = None if reader.part is None else evidence.weights.value(reader.part)
        if value is None or reader.weight_field is None:
            continue
        (sums,) = sums_over(value, [reader.weight_field], elementwise)
        field = np.broadcast_to(reader.weight_field, sums.shape)
        amounts = sums * reader.laid_along(statistic(moments), evidence.weights)
        yield by_class(evidence.weights.classes(field).reshape(-1), amounts.reshape(-1))
