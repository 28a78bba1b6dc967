"""Random scores: the baseline that every criterion must beat."""

from __future__ import annotations

import numpy as np

from onnxprune.criteria.aggregate import Aggregate
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.typing import Array


@criterion("random")
def random(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Uniform noise."""
    return rng.random(evidence.groups.classes.count)
