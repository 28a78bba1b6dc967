"""The smallest weights go, whatever they are multiplied with."""

from __future__ import annotations

import numpy as np

from onnxprune.sparsity import METHODS
from tests.sparsity.evidence import evidence_of, kept_by, lowest_gone


def test_the_smallest_go_whatever_their_sign() -> None:
    evidence = evidence_of()
    assert (kept_by(METHODS["magnitude"], evidence) == lowest_gone(np.abs(evidence.weight))).all()


def test_inputs_are_not_looked_at() -> None:
    evidence = evidence_of()
    other = evidence_of(moved=5.0)
    assert (evidence.weight == other.weight).all() and not np.allclose(evidence.second, other.second)
    assert (kept_by(METHODS["magnitude"], evidence) == kept_by(METHODS["magnitude"], other)).all()
    assert not METHODS["magnitude"].needs_data
