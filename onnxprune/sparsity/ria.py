"""Relative importance and activations: a weight counts by its share of its input's and of its output's weights.

Source: Zhang et al., "Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models", 2024, eq. 2
and 3, with the root of the input's norm.
"""

from __future__ import annotations

import numpy as np

from onnxprune.sparsity.registry import LayerEvidence, scoring
from onnxprune.typing import Array


@scoring("ria", needs_data=True, source="Zhang et al. 2024, openreview Tr0lPx9woF")
def ria(evidence: LayerEvidence) -> Array:
    """Share of the weight in its row and in its column, times the root of the norm of its input."""
    size = np.abs(evidence.weight)
    by_output, by_input = (np.maximum(size.sum(axis=axis, keepdims=True), 1e-30) for axis in (1, 2))
    return (size / by_output + size / by_input) * np.sqrt(evidence.deviation)
