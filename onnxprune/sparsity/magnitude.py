"""Absolute values: the smallest weights go.

Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015.
"""

from __future__ import annotations

import numpy as np

from onnxprune.sparsity.registry import LayerEvidence, scoring
from onnxprune.typing import Array


@scoring("magnitude", source="Han et al. 2015, arXiv:1506.02626")
def by_magnitude(evidence: LayerEvidence) -> Array:
    """Absolute value of the weight."""
    return np.abs(evidence.weight)
