"""Random zeros, the baseline that every other method has to beat."""

from __future__ import annotations

from onnxprune.sparsity.registry import LayerEvidence, scoring
from onnxprune.typing import Array


@scoring("random")
def random(evidence: LayerEvidence) -> Array:
    """A random number for every weight."""
    return evidence.rng.random(evidence.weight.shape) + 1e-9
