"""Random zeros: by the seed alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxprune.sparsity import METHODS
from tests.sparsity.evidence import evidence_of, kept_by


def drawn(seed: int, scale: float = 1.0) -> np.ndarray:
    evidence = evidence_of()
    return kept_by(
        METHODS["random"], replace(evidence, weight=evidence.weight * scale, rng=np.random.default_rng(seed))
    )


def test_a_seed_decides_and_weights_do_not() -> None:
    assert (drawn(3) == drawn(3)).all() and (drawn(3) == drawn(3, scale=-100.0)).all()
    assert (drawn(3) != drawn(4)).any()


def test_every_weight_has_a_chance() -> None:
    share = np.mean([drawn(seed) for seed in range(200)], axis=0)
    assert np.abs(share - 0.5).max() < 0.15
