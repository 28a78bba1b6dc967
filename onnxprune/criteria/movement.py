"""Movement of weights away from zero while the model trains, and their norm where it does not.

    movement: minus the sum over steps, and over the weights that read a unit, of w * dw

The sum is made while training (`pipelines/unit_masks.py`). Before the first step nothing has moved.

Source: Sanh et al., "Movement Pruning: Adaptive Sparsity by Fine-Tuning", 2020, eq. 5; of blocks of weights: Lagunas et
al., "Block Pruning for Faster Transformers", 2021.
"""

from __future__ import annotations

import numpy as np

from onnxprune.criteria.aggregate import Aggregate
from onnxprune.criteria.magnitude import norms
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.typing import Array


@criterion("movement", aggregate="norm", normalize="max", source="Sanh et al. 2020, arXiv:2005.07683")
def movement(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Movement of a unit's weights away from zero with --while-training soft, else as l2."""
    return aggregate(norms(evidence.weights))
