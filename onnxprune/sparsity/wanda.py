"""Weights times the norm of the input that they are multiplied with.

Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", 2024, eq. 1.
"""

from __future__ import annotations

import numpy as np

from onnxprune.sparsity.registry import LayerEvidence, scoring
from onnxprune.typing import Array


@scoring("wanda", needs_data=True, source="Sun et al. 2024, arXiv:2306.11695")
def wanda(evidence: LayerEvidence) -> Array:
    """Absolute value of the weight times the norm of its input."""
    return np.abs(evidence.weight) * evidence.deviation
