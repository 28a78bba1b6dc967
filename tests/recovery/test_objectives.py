"""What a model learns from, and what nothing can be learned from."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import RunError, UsageError
from onnxprune.model import Model
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.recovery.training_options import TrainingOptions
from tests.recovery.test_fine_tune import DATA, QUICK, TEST, damage, original, same, small

__all__ = ["original", "small"]  # the fixtures


def test_labels(small: Model) -> None:
    damaged = damage(small)
    trained, done = learn(damaged, TrainingData(TEST, labels="label"), TrainingOptions(60, **QUICK))
    assert done.loss == "cross-entropy" and done.after < 0.8 * done.before
    assert not same(trained, damaged)


def test_nothing_to_learn_from(small: Model, original: Model) -> None:
    for data, options, problem in (
        (TrainingData(DATA), {}, "nothing to learn from"),
        (TrainingData(DATA, teacher=original), {"loss": "cross-entropy"}, "needs labels"),
        (TrainingData(TEST, labels="label"), {"loss": "distil"}, "needs a teacher"),
        (TrainingData(TEST, labels="label", teacher=original), {"loss": "mse"}, "a teacher, not both"),
        (TrainingData(TEST, labels="nothing"), {}, "label 'nothing' is missing"),
        (TrainingData(TEST, labels="label"), {"augment": ("mixup",)}, "mixup needs a teacher"),
    ):
        with pytest.raises(UsageError, match=problem):
            learn(small, data, TrainingOptions(4, **options, **QUICK))


def test_labels_out_of_range(small: Model) -> None:
    with np.load(TEST) as data:
        feeds = {"image": data["image"][:64], "label": data["label"][:64].astype(np.int64) + 3}
    with pytest.raises(UsageError, match=r"labels 'label' go from \d to 12, the model has 10 classes"):
        learn(small, TrainingData([feeds], labels="label"), TrainingOptions(4, **QUICK))


def test_inputs_that_are_not_numbers(small: Model, original: Model) -> None:
    image = np.full((8, 1, 8, 8), np.nan, np.float32)
    with pytest.raises(UsageError, match="holds NaN"):
        learn(small, TrainingData([{"image": image}], teacher=original), TrainingOptions(4))
    with pytest.raises(RunError, match="not a finite number before training"):
        learn(small, TrainingData([{"image": np.full_like(image, np.inf)}] * 2, teacher=original), TrainingOptions(4))
