"""Weights times the norms of their inputs."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.sparsity import METHODS, method_of
from tests.sparsity.evidence import evidence_of, kept_by, lowest_gone


def test_the_score_is_its_formula() -> None:
    evidence = evidence_of()
    norm = np.sqrt(np.diagonal(evidence.hessian[0]))[None, :, None]
    kept = kept_by(METHODS["wanda"], evidence)
    assert (kept == lowest_gone(np.abs(evidence.weight) * norm)).all()
    assert (kept != lowest_gone(np.abs(evidence.weight))).any(), "else the test could not tell it from magnitude"


def test_it_needs_inputs() -> None:
    with pytest.raises(UsageError, match="'wanda' looks at what the model computes"):
        method_of("wanda", data=False)
    assert method_of("wanda", data=True) is METHODS["wanda"]
