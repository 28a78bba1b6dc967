"""Layers with correlated inputs, as methods that choose zeros see them."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxprune.sparsity import LayerEvidence, pattern_of
from onnxprune.typing import Array

INPUTS, OUTPUTS, ROWS = 12, 7, 400


def evidence_of(
    pattern: str = "unstructured", share: float = 0.5, *, moved: float = 0.0, seed: int = 0
) -> LayerEvidence:
    """A layer with correlated inputs; `moved` is how far they are from those of the original."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, INPUTS)) @ rng.standard_normal((INPUTS, INPUTS)) * np.geomspace(0.3, 3, INPUTS)
    weight = rng.standard_normal((INPUTS, OUTPUTS))
    seen = x + moved * rng.standard_normal(x.shape)
    second, cross = (seen.T @ v / ROWS for v in (seen, x @ weight))
    gradient = np.broadcast_to(np.diag(second)[None, :, None], (1, INPUTS, OUTPUTS))
    given = {"second": second[None], "cross": cross[None], "gradient": gradient}
    return LayerEvidence(weight[None], pattern_of(pattern), share, INPUTS, rng=rng, **given)


def error_of(evidence: LayerEvidence, weight: Array) -> float:
    """What the ridge regression of every output leaves, without what does not depend on the weights."""
    return float((weight * (evidence.hessian @ weight)).sum() - 2 * (weight * evidence.aim).sum())


def lowest_gone(scores: Array) -> Array:
    """What stays where the lower half of the inputs of every output goes."""
    kept = np.ones(scores.shape, bool)
    np.put_along_axis(kept, np.argsort(scores, axis=1)[:, : scores.shape[1] // 2], False, axis=1)
    return kept


def kept_by(method: Any, evidence: LayerEvidence) -> Array:
    """What a method that gives no other weights leaves."""
    weight, keep = method.make(evidence)
    assert (weight == evidence.weight * keep).all()
    return np.asarray(keep)
