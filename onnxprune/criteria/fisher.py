"""Fisher information: the curvature of the outputs along a unit's weights.

    fisher:  sum over the unit's weights of E[dw^2] * w^2

E[dw^2] is the diagonal of J^T J (of the Gauss-Newton matrix of the squared error to the model's own outputs, which is
the Fisher information where outputs have normal noise), from gradients of randomly signed outputs: no labels.

Sources: LeCun, Denker, Solla, "Optimal Brain Damage", 1990, eq. 5; Theis et al., "Faster gaze prediction with dense
networks and Fisher pruning", 2018, eq. 8.
"""

from __future__ import annotations

import numpy as np

from onnxprune.criteria.aggregate import Aggregate
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.criteria.taylor import by_weight
from onnxprune.typing import Array


@criterion("fisher", needs_data=True, aggregate="sum", normalize="none", source="Theis et al. 2018, arXiv:1801.05787")
def fisher(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Sum of mean squared gradient times squared weight over all weights of a unit."""
    return by_weight(evidence, rng, aggregate, lambda weight, gradient: np.square(weight * gradient))
