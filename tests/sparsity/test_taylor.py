"""Squares of weights times those of their gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.sparsity import METHODS, method_of
from tests.sparsity.evidence import evidence_of, kept_by, lowest_gone


def test_the_score_is_its_formula() -> None:
    evidence = evidence_of()
    gradient = np.random.default_rng(1).uniform(0, 9, evidence.weight.shape)
    kept = kept_by(METHODS["taylor"], replace(evidence, gradient=gradient))
    assert (kept == lowest_gone(np.square(evidence.weight) * gradient)).all()
    assert (kept != lowest_gone(np.abs(evidence.weight))).any(), "else the test could not tell it from magnitude"


def test_it_needs_inputs() -> None:
    with pytest.raises(UsageError, match="'taylor' looks at what the model computes"):
        method_of("taylor", data=False)
    assert method_of("taylor", data=True).needs_gradients
