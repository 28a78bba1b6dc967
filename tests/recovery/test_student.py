"""Weights that are trained, and those that stay."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import ModelError, UsageError
from onnxprune.model import Model
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.recovery.training_options import TrainingOptions
from tests.graphs.net import Net
from tests.recovery.test_fine_tune import DATA, QUICK, damage, norm, original, same, small, weights

__all__ = ["original", "small"]  # the fixtures


def test_frozen_weights_stay(original: Model, small: Model) -> None:
    trained, _ = learn(small, TrainingData(DATA, teacher=original), TrainingOptions(10, freeze=("fc*",), **QUICK))
    before, after = weights(small), weights(trained)
    changed = {n for n in before if not np.array_equal(before[n], after[n])}
    assert changed and not any(n.startswith("fc") for n in changed)
    assert any(n.startswith("fc") for n in before)


def test_rates_by_glob(original: Model, small: Model) -> None:
    options = TrainingOptions(10, rates={"fc*": 0.0}, **QUICK)
    trained, _ = learn(small, TrainingData(DATA, teacher=original), options)
    before, after = weights(small), weights(trained)
    assert all(np.array_equal(before[n], after[n]) for n in before if n.startswith("fc"))
    assert not same(trained, small)


def test_statistics_of_norms_stay(original: Model) -> None:
    net = Net()
    x = net.input(("n", 3, 8, 8))
    net.output(norm(net, net.add("Conv", x, net.weight(4, 3, 3, 3)), 4))
    model = net.model()
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((16, 3, 8, 8)).astype(np.float32)}
    trained, done = learn(damage(model), TrainingData([data], teacher=model), TrainingOptions(5, rate=1e-3, batch=1))
    node = next(n for n in model.proto.graph.node if n.op_type == "BatchNormalization")
    for name in node.input[3:]:
        assert np.array_equal(weights(trained)[name], weights(model)[name])
    assert done.after <= done.before


def test_weights_of_other_sizes_need_steps_of_other_sizes() -> None:
    """Inputs up to 255 make weights small; a rate that suits others destroys them, unless steps are relative."""
    net = Net()
    x = net.input(("n", 3, 8, 8))
    h = net.add("Relu", net.add("Conv", x, net.weight(8, 3, 3, 3, scale=1e-3)))
    net.output(net.add("Gemm", net.add("Flatten", h), net.weight(8 * 36, 4)))
    model, rng = net.model(), np.random.default_rng(0)
    data = [{"x": (rng.random((64, 3, 8, 8)) * 255).astype(np.float32)}]
    found = {}
    for optimizer in ("adamw", "relative"):
        options = TrainingOptions(40, rate=1e-2, batch=16, optimizer=optimizer, threads=1)
        found[optimizer] = learn(damage(model), TrainingData(data, teacher=model), options)[1]
    assert found["relative"].after < 0.8 * found["relative"].before
    assert found["relative"].after < 0.8 * found["adamw"].after


def test_no_weight_to_train(small: Model, original: Model) -> None:
    with pytest.raises(ModelError, match="all are frozen"):
        learn(small, TrainingData(DATA, teacher=original), TrainingOptions(4, freeze=("*",)))
    with pytest.raises(UsageError, match="no weight matches 'nothing'"):
        learn(small, TrainingData(DATA, teacher=original), TrainingOptions(4, freeze=("nothing",)))
    net = Net()
    x = net.input(("n", 4))
    net.output(net.add("Relu", x))
    model = net.model()
    data = [{"x": np.ones((8, 4), np.float32)}]
    with pytest.raises(ModelError, match="no parameter of the model reaches the loss"):
        learn(model, TrainingData(data, teacher=model), TrainingOptions(4))
