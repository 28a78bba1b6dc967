"""Training by gradient steps: what it reaches, what it keeps, and what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.autodiff import write_back
from onnxprune.errors import RunError, UsageError
from onnxprune.layers import bn_matching
from onnxprune.model import Model, load, to_proto
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.progress import WorkPart
from onnxprune.recovery import fine_tune
from onnxprune.recovery.training_options import TrainingOptions
from tests.graphs.net import Net

MODELS = Path(__file__).parents[2] / "models"
DIGITS, DATA, TEST = (MODELS / name for name in ("digits.onnx", "digits_calibration.npz", "digits_test.npz"))
QUICK = {"rate": 3e-4, "batch": 32, "threads": 1}


@pytest.fixture(scope="module")
def original() -> Model:
    return load(DIGITS)


@pytest.fixture(scope="module")
def small() -> Model:
    """Digits, three quarters of its units removed and repaired."""
    return load(onnxprune.prune(DIGITS, 0.75, data=DATA, verify=False).model)


def weights(model: Model) -> dict[str, np.ndarray]:
    return {name: model.array(tensor) for name, tensor in model.initializers.items()}


def same(one: Model, two: Model) -> bool:
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(np.array_equal(first[n], second[n]) for n in first)


def gemm(net: Net, x: str, inputs: int, outputs: int) -> str:
    return str(net.add("Gemm", x, net.weight(inputs, outputs), net.weight(outputs)))


def norm(net: Net, x: str, channels: int) -> str:
    """BatchNormalization with statistics of its own."""
    mean, deviation = net.rng.standard_normal(channels), net.rng.random(channels) + 0.5
    stored = [net.const(np.asarray(v, np.float32)) for v in (np.ones(channels), mean, mean, deviation)]
    return str(net.add("BatchNormalization", x, *stored))


def damage(model: Model) -> Model:
    """The model with noise on its weights."""
    proto, rng = onnx.ModelProto(), np.random.default_rng(0)
    proto.CopyFrom(to_proto(model))
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.ndim > 1:
            noise = rng.standard_normal(array.shape).astype(array.dtype) * array.std() * 0.5
            tensor.CopyFrom(onnx.numpy_helper.from_array(array + noise, tensor.name))
    return load(proto)


def test_a_rate_that_destroys_ends_where_it_began(original: Model, small: Model) -> None:
    trained, done = learn(small, TrainingData(DATA, teacher=original), TrainingOptions(30, rate=3.0, threads=1))
    assert done.best == 0 and done.after == done.before
    assert trained is small


def test_the_rate_is_found_by_trials(original: Model, small: Model) -> None:
    said: list[str] = []
    options = TrainingOptions(40, batch=32, threads=1)
    _, done = learn(small, TrainingData(DATA, teacher=original), options, progress=said.append)
    assert len(done.found) > 2 and done.rate >= min(done.found, key=lambda rate: done.found[rate])
    assert done.after < done.before
    assert any(f"learning rate {done.rate:g}" in line for line in said)
    assert any("held out" in line and isinstance(line, WorkPart) for line in said)


def test_the_same_seed_gives_the_same_model(original: Model, small: Model) -> None:
    def run(seed: int) -> Model:
        options = TrainingOptions(12, augment=("shift",), seed=seed, **QUICK)
        return learn(damage(small), TrainingData(DATA, teacher=original), options)[0]

    assert same(run(1), run(1))
    assert not same(run(1), run(2))


def test_a_running_mean_of_weights(original: Model, small: Model) -> None:
    _, done = learn(small, TrainingData(DATA, teacher=original), TrainingOptions(40, average=0.9, **QUICK))
    assert done.after < done.before


def test_a_fixed_batch_makes_up_the_batch_that_was_asked_for() -> None:
    net = Net()
    x = net.input((4, 8))
    net.output(gemm(net, x, 8, 4))
    model = net.model()
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((64, 8)).astype(np.float32)}
    _, done = learn(damage(model), TrainingData([data], teacher=model), TrainingOptions(30, rate=0.03, batch=16))
    assert done.after < 0.5 * done.before


@pytest.mark.parametrize("spoilt", [True, False])
def test_statistics_of_norms_are_estimated_again_if_that_is_better(spoilt: bool) -> None:
    net = Net()
    x = net.input(("n", 3, 8, 8))
    net.output(norm(net, net.add("Conv", x, net.weight(4, 3, 3, 3)), 4))
    data = {"x": np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)}
    teacher = load(to_proto(bn_matching.with_statistics_of(net.model(), [data])))
    node = next(n for n in teacher.proto.graph.node if n.op_type == "BatchNormalization")
    student = write_back(teacher, {node.input[3]: teacher.array(node.input[3]) + 2}) if spoilt else teacher
    options = TrainingOptions(2, rate=1e-6, batch=16, norm_statistics=True)
    trained, done = learn(student, TrainingData([data], teacher=teacher), options)
    if spoilt:
        assert done.after < 0.05 * done.before
        assert np.allclose(trained.array(node.input[3]), teacher.array(node.input[3]), atol=0.05)
    else:
        assert np.array_equal(trained.array(node.input[3]), teacher.array(node.input[3]))
        assert done.after <= done.before


def test_a_loss_that_is_not_finite_skips_the_step(
    original: Model, small: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, calls = fine_tune.Student.gradients, []

    def sometimes(self: fine_tune.Student, feeds: Mapping[str, np.ndarray]) -> object:
        found = made(self, feeds)
        calls.append(found)
        if len(calls) == 3:
            next(iter(found.gradients.values())).flat[0] = np.nan
        return found

    monkeypatch.setattr(fine_tune.Student, "gradients", sometimes)
    with caplog.at_level(logging.WARNING):
        trained, done = learn(small, TrainingData(DATA, teacher=original), TrainingOptions(8, **QUICK))
    assert done.skipped == 1 and done.after <= done.before
    assert "not finite" in caplog.text and all(np.isfinite(a).all() for a in weights(trained).values())


def test_a_loss_that_is_never_finite_ends_the_run(
    original: Model, small: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fine_tune.Student.gradients

    def never(self: fine_tune.Student, feeds: Mapping[str, np.ndarray]) -> object:
        found = made(self, feeds)
        return type(found)(float("nan"), found.gradients, found.taps)

    monkeypatch.setattr(fine_tune.Student, "gradients", never)
    with pytest.raises(RunError, match="not a finite number in 10 steps"):
        learn(small, TrainingData(DATA, teacher=original), TrainingOptions(40, **QUICK))


def test_data_of_many_shapes() -> None:
    net = Net()
    x = net.input(("n", "t", 4))
    net.output(net.add("MatMul", x, net.weight(4, 4)))
    model = net.model()
    feeds = [{"x": np.ones((2, t, 4), np.float32)} for t in range(1, 40)]
    with pytest.raises(UsageError, match="different shapes"):
        learn(model, TrainingData(feeds, teacher=model), TrainingOptions(4))
    few = [{"x": np.random.default_rng(t).random((8, t % 3 + 1, 4), np.float32)} for t in range(6)]
    assert learn(damage(model), TrainingData(few, teacher=model), TrainingOptions(20, rate=0.01))[1].best > 0


def test_a_single_sample_cannot_train_and_judge(small: Model, original: Model) -> None:
    data = [{"image": np.ones((1, 1, 8, 8), np.float32)}]
    with pytest.raises(UsageError, match="cannot train and judge"):
        learn(small, TrainingData(data, teacher=original), TrainingOptions(4))
