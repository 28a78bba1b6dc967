"""Least squares on a support."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.sparsity import METHODS, refitted
from tests.sparsity.evidence import OUTPUTS, evidence_of


@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_the_refit_is_the_best_of_its_support(moved: float) -> None:
    evidence = evidence_of(moved=moved)
    weight, keep = METHODS["wanda"].make(evidence)
    found = refitted(evidence, weight, keep)
    for output in range(OUTPUTS):
        support = np.flatnonzero(keep[0, :, output])
        best = np.linalg.solve(evidence.hessian[0][np.ix_(support, support)], evidence.aim[0, support, output])
        assert np.allclose(found[0, support, output], best, rtol=1e-3, atol=1e-4)
    assert (found[~keep] == 0).all()


def test_a_whole_support_gives_the_dense_weights() -> None:
    evidence = evidence_of(moved=1.0)
    found = refitted(evidence, evidence.weight, np.ones(evidence.weight.shape, bool))
    assert np.allclose(found, evidence.dense, rtol=1e-3, atol=1e-4)


def test_an_empty_support_is_zero() -> None:
    evidence = evidence_of()
    assert not refitted(evidence, evidence.weight, np.zeros(evidence.weight.shape, bool)).any()
