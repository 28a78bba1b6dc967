"""One input after the other, later inputs making up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxprune.sparsity import METHODS
from tests.sparsity.evidence import error_of, evidence_of


def test_later_inputs_make_up_and_earlier_ones_stay() -> None:
    """Only elements behind the first that goes have other weights than without zeros."""
    evidence = evidence_of(share=1 / 12)
    weight, keep = METHODS["sparsegpt"].make(evidence)
    for output in range(weight.shape[2]):
        first = int(np.flatnonzero(~keep[0, :, output])[0])
        assert np.allclose(weight[0, :first, output], evidence.dense[0, :first, output])
        if first < weight.shape[1] - 1:
            assert not np.allclose(weight[0, first + 1 :, output], evidence.dense[0, first + 1 :, output])


def test_one_zero_costs_what_the_inverse_says() -> None:
    """Of the last input nothing makes up: its error is w^2 / U_dd^2, the smallest possible for one zero there."""
    evidence = evidence_of()
    count = evidence.weight.shape[1]
    alone = replace(evidence, weight=evidence.weight[:, :, :1], cross=evidence.cross[:, :, :1], share=1 / count)
    weight, keep = METHODS["sparsegpt"].make(alone)
    (gone,) = np.flatnonzero(~keep[0, :, 0])
    inverse = np.linalg.inv(alone.hessian[0])
    # What re-fitting all others would leave at best; what only later ones re-fit is never better.
    best = alone.dense[0, gone, 0] ** 2 / inverse[gone, gone]
    assert error_of(alone, weight) - error_of(alone, alone.dense) >= best * (1 - 1e-6)


def test_it_is_better_than_no_compensation() -> None:
    evidence = evidence_of()
    weight, keep = METHODS["sparsegpt"].make(evidence)
    assert error_of(evidence, weight) < error_of(evidence, evidence.weight * keep)
