"""Shares of rows and columns, times the root of the norm of the input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxprune.sparsity import METHODS
from tests.sparsity.evidence import evidence_of, kept_by, lowest_gone


def test_the_score_is_its_formula() -> None:
    evidence = evidence_of()
    size, norm = np.abs(evidence.weight), np.sqrt(np.diagonal(evidence.hessian[0]))[None, :, None]
    shares = size / size.sum(axis=1, keepdims=True) + size / size.sum(axis=2, keepdims=True)
    assert (kept_by(METHODS["ria"], evidence) == lowest_gone(shares * np.sqrt(norm))).all()


def test_a_layer_of_zeros_has_no_shares() -> None:
    """Sums of nothing are no divisors: there is no warning, and nothing stays."""
    evidence = evidence_of()
    dead = replace(evidence, weight=np.zeros_like(evidence.weight))
    with np.errstate(all="raise"):
        assert not kept_by(METHODS["ria"], dead).any()
