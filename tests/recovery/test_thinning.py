"""Masks that hold while a model trains."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.pipelines.train import TrainingData, learn, zero_masks
from onnxprune.recovery.training_options import TrainingOptions
from tests.recovery.test_fine_tune import DATA, QUICK, original, small, weights

__all__ = ["original", "small"]  # the fixtures


def test_masks_hold(original: Model, small: Model) -> None:
    rng = np.random.default_rng(0)
    kept = {n: rng.random(a.shape) < 0.7 for n, a in weights(small).items() if a.ndim > 1}
    trained, _ = learn(small, TrainingData(DATA, teacher=original), TrainingOptions(20, **QUICK), masks=kept)
    found = weights(trained)
    assert all((found[n][~mask] == 0).all() for n, mask in kept.items())
    again, done = learn(
        trained, TrainingData(DATA, teacher=original), TrainingOptions(20, **QUICK), masks=zero_masks(trained)
    )
    assert done.best > 0 and all((weights(again)[n][~mask] == 0).all() for n, mask in kept.items())


def test_masks_that_fit_nothing(small: Model, original: Model) -> None:
    data, options = TrainingData(DATA, teacher=original), TrainingOptions(4, **QUICK)
    name = next(n for n, a in weights(small).items() if a.ndim > 1)
    with pytest.raises(UsageError, match="no initializer 'nothing'"):
        learn(small, data, options, masks={"nothing": np.ones(3, bool)})
    with pytest.raises(UsageError, match="its mask is"):
        learn(small, data, options, masks={name: np.ones(3, bool)})
