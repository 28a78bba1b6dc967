"""Layer-adaptive magnitude.

Source: Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", 2021, eq. 4, with units in the place of
single weights: the squared norm of a unit over the sum of those of its group that are at least as large.
"""

from __future__ import annotations

import numpy as np

from onnxprune.criteria.aggregate import Aggregate
from onnxprune.criteria.magnitude import l2
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.typing import Array


@criterion("lamp", aggregate="norm", normalize="none", source="Lee et al. 2021, arXiv:2010.07611")
def lamp(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Squared l2 over the sum of those of the group that are no smaller."""
    power = np.square(l2(evidence, rng, aggregate))
    scores = np.zeros_like(power)
    for group in evidence.groups.groups:
        order = np.argsort(power[group.classes], kind="stable")
        rising = power[group.classes[order]]
        left = np.cumsum(rising[::-1])[::-1]
        # Equal units share the sum in front of the first of them.
        first = np.searchsorted(rising, rising)
        scores[group.classes[order]] = rising / np.maximum(left[first], 1e-30)
    return scores
