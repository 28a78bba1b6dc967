"""Mask and weights by alternating directions."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from onnxprune.sparsity import METHODS, refitted
from tests.sparsity.evidence import error_of, evidence_of


def test_it_comes_close_to_the_best_mask() -> None:
    """Of one output with eight inputs, all masks can be tried."""
    ratios = []
    for seed in range(10):
        evidence = evidence_of(seed=seed)
        small = replace(
            evidence,
            weight=evidence.weight[:, :8, :1],
            second=evidence.second[:, :8, :8],
            cross=(evidence.second[:, :8, :8] @ evidence.weight[:, :8, :1]),
        )
        found = error_of(small, METHODS["alps"].make(small)[0]) - error_of(small, small.dense)
        masks = (np.isin(np.arange(8), kept)[None, :, None] for kept in itertools.combinations(range(8), 4))
        best = min(error_of(small, refitted(small, small.weight, mask)) for mask in masks)
        ratios.append(found / (best - error_of(small, small.dense)))
    assert min(ratios) > 0.999 and np.median(ratios) < 1.1, ratios


def test_its_weights_are_the_best_of_its_mask() -> None:
    evidence = evidence_of(moved=1.0)
    weight, keep = METHODS["alps"].make(evidence)
    again = refitted(evidence, evidence.weight, keep)
    assert np.allclose(weight, again, rtol=1e-3, atol=1e-4) and METHODS["alps"].refits
