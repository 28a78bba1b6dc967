"""What all methods that choose zeros have in common, and how they compare."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.sparsity import METHODS
from tests.sparsity.evidence import INPUTS, error_of, evidence_of

CHOSEN = [name for name in METHODS if name != "threshold"]


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block 2x3"])
@pytest.mark.parametrize("name", CHOSEN)
def test_zeros_have_the_pattern(name, pattern):
    evidence = evidence_of(pattern)
    weight, keep = METHODS[name].make(evidence)
    assert weight.shape == keep.shape == evidence.weight.shape
    assert (weight[~keep] == 0).all() and np.isfinite(weight).all()
    assert keep.mean() == pytest.approx(0.5)
    if pattern == "unstructured":
        assert (keep.sum(axis=1) == INPUTS // 2).all(), "every output keeps as many"
    if not METHODS[name].refits:
        assert (weight[keep] == evidence.weight[keep]).all()


@pytest.mark.parametrize("name", CHOSEN)
def test_a_zero_stays_a_zero(name):
    evidence = evidence_of(share=0.25)
    evidence.weight[0, :6, 2] = 0
    weight, keep = METHODS[name].make(evidence)
    assert not keep[0, :6, 2].any() and (weight[0, :6, 2] == 0).all()


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_better_methods_are_better(pattern, moved):
    """Summed over layers: ALPS before SparseGPT before Wanda before magnitude before chance."""
    names, totals = ("alps", "sparsegpt", "wanda", "magnitude", "random"), []
    for name in names:
        errors = []
        for seed in range(6):
            evidence = evidence_of(pattern, moved=moved, seed=seed)
            dense = error_of(evidence, evidence.dense)
            errors.append(error_of(evidence, METHODS[name].make(evidence)[0]) - dense)
        assert min(errors) >= 0
        totals.append(sum(errors))
    assert totals == sorted(totals), dict(zip(names, totals, strict=True))
