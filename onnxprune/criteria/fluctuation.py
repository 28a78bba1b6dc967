"""Fluctuation of a unit's activation: a steady one can be replaced by a bias.

Source: An et al., "Fluctuation-based Adaptive Structured Pruning for Large Language Models", 2024, eq. 4: the variance
of an input times the squared norm of the weights that read it; compared between groups in standard deviations.
"""

from __future__ import annotations

import numpy as np

from onnxprune.criteria.aggregate import Aggregate
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.criteria.wanda import consumed
from onnxprune.typing import Array


@criterion(
    "fluctuation", needs_data=True, aggregate="sum", normalize="standard", source="An et al. 2024, arXiv:2312.11983"
)
def fluctuation(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Variance of the input times the squared norm of the weights that read it."""
    return consumed(evidence, aggregate, np.square, lambda moments: moments.variance)
