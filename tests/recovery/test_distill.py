"""What a teacher's outputs teach."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.recovery.training_options import TrainingOptions
from onnxprune.runtime import Session
from tests.graphs.net import Net
from tests.recovery.test_fine_tune import DATA, QUICK, TEST, original, small

__all__ = ["original", "small"]  # the fixtures


def error(model: Model, original: Model) -> float:
    """Squared error of the logits on samples that are in no calibration data, relative to the original's."""
    with np.load(TEST) as data, Session(model) as one, Session(original) as two:
        found, wanted = (s.run({"image": data["image"]})[0] for s in (one, two))
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


def test_distillation_brings_a_cut_model_nearer(original: Model, small: Model) -> None:
    trained, done = learn(
        small, TrainingData(DATA, teacher=original), TrainingOptions(60, rate=1e-3, batch=32, threads=1)
    )
    assert done.after < 0.9 * done.before and done.best > 0
    assert error(trained, original) < 0.95 * error(small, original)
    assert [n.op_type for n in trained.proto.graph.node] == [n.op_type for n in small.proto.graph.node]
    assert done.samples + done.held == 256 and done.held >= 25


@pytest.mark.parametrize("loss", ["mse", "temperature"])
def test_other_losses_towards_a_teacher(original: Model, small: Model, loss: str) -> None:
    chosen = {"loss": "mse"} if loss == "mse" else {"temperature": 2.0}
    _, done = learn(small, TrainingData(DATA, teacher=original), TrainingOptions(30, **chosen, **QUICK))
    assert done.after < done.before


def test_a_teacher_with_other_outputs(small: Model) -> None:
    net = Net()
    x = net.input(("n", 1, 8, 8), "image")
    net.output(net.add("Conv", x, net.weight(4, 1, 3, 3)))
    with pytest.raises(UsageError, match="teacher"):
        learn(small, TrainingData(DATA, teacher=net.model()), TrainingOptions(4, **QUICK))
