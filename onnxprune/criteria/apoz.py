"""Average percentage of zeros in a unit's activation.

Source: Hu et al., "Network Trimming: A Data-Driven Neuron Pruning Approach", 2016: average percentage of zeros.
"""

from __future__ import annotations

import numpy as np

from onnxprune.criteria.activation import read
from onnxprune.criteria.aggregate import Aggregate
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.typing import Array


@criterion("apoz", needs_data=True, aggregate="mean", source="Hu et al. 2016, arXiv:1607.03250")
def apoz(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Share of a unit's activations that are not zero."""
    return read(evidence, aggregate, lambda moments: 1 - moments.zeros)
