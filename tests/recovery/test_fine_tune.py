"""Training by gradient steps: what it reaches, what it keeps, and what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import api
from onnxprune.autodiff import write_back
from onnxprune.errors import ModelError, RunError, UsageError
from onnxprune.layers import bn_matching
from onnxprune.model import Model, load, to_proto
from onnxprune.pipelines.train import TrainingData, learn, zero_masks
from onnxprune.recovery import fine_tune
from onnxprune.recovery.training_options import TrainingOptions
from onnxprune.runtime import Session
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


def error(model: Model, original: Model) -> float:
    """Squared error of the logits on samples that are in no calibration data, relative to the original's."""
    with np.load(TEST) as data, Session(model) as one, Session(original) as two:
        found, wanted = (s.run({"image": data["image"]})[0] for s in (one, two))
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


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


# --- what it reaches --------------------------------------------------------------------------------------


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


def test_labels(small: Model) -> None:
    damaged = damage(small)
    trained, done = learn(damaged, TrainingData(TEST, labels="label"), TrainingOptions(60, **QUICK))
    assert done.loss == "cross-entropy" and done.after < 0.8 * done.before
    assert not same(trained, damaged)


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
    assert len(done.found) > 2 and done.rate == min(done.found, key=lambda rate: done.found[rate])
    assert done.after < done.before
    assert any(f"learning rate {done.rate:g}" in line for line in said)
    assert any("held out" in line and "left" in line for line in said)


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


# --- what it keeps ----------------------------------------------------------------------------------------


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


def test_pruning_trains_after_the_repair(original: Model) -> None:
    recovery = api.RecoveryOptions(train=TrainingOptions(40, **QUICK))
    plain = api.run(original, onnxprune.Options(ratio=0.75), data=DATA, verify=False)
    outcome = api.run(original, onnxprune.Options(ratio=0.75), data=DATA, recovery=recovery)
    assert outcome.training is not None and outcome.training.best > 0
    assert outcome.verdict is not None and outcome.verdict.ok
    assert outcome.judged is not None and plain.judged is not None and outcome.judged.error < plain.judged.error


def test_pruning_needs_real_inputs_to_train(original: Model) -> None:
    recovery = api.RecoveryOptions(train=TrainingOptions(4))
    for data in (None, "random"):
        with pytest.raises(UsageError, match="training needs inputs"):
            api.run(original, onnxprune.Options(ratio=0.5), data=data, recovery=recovery)


def test_inputs_and_outputs_that_shrink_are_paired() -> None:
    net = Net()
    x = net.input(("n", 8))
    h = net.add("Relu", gemm(net, x, 8, 16))
    net.output(gemm(net, h, 16, 8))
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((64, 8)).astype(np.float32)}]
    recovery = api.RecoveryOptions(train=TrainingOptions(10, rate=1e-3))
    options = onnxprune.Options(ratio=0.25, allow_io_changes=True)
    outcome = api.run(net.model(), options, data=data, recovery=recovery)
    assert outcome.io_changes and outcome.training is not None
    assert outcome.training.after <= outcome.training.before


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


# --- what goes wrong --------------------------------------------------------------------------------------


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


def test_nothing_to_learn_from(small: Model, original: Model) -> None:
    for data, options, problem in (
        (TrainingData(DATA), {}, "nothing to learn from"),
        (TrainingData(DATA, teacher=original), {"loss": "cross-entropy"}, "needs labels"),
        (TrainingData(TEST, labels="label"), {"loss": "distil"}, "needs a teacher"),
        (TrainingData(TEST, labels="label", teacher=original), {"loss": "mse"}, "not with both"),
        (TrainingData(TEST, labels="nothing"), {}, "input 'nothing' is missing"),
        (TrainingData(TEST, labels="label"), {"augment": ("mixup",)}, "mixup needs a teacher"),
    ):
        with pytest.raises(UsageError, match=problem):
            learn(small, data, TrainingOptions(4, **options, **QUICK))


def test_labels_out_of_range(small: Model) -> None:
    with np.load(TEST) as data:
        feeds = {"image": data["image"][:64], "label": data["label"][:64].astype(np.int64) + 3}
    with pytest.raises(UsageError, match="labels 'label' go from 3 to 12, the model has 10 classes"):
        learn(small, TrainingData([feeds], labels="label"), TrainingOptions(4, **QUICK))


def test_a_teacher_with_other_outputs(small: Model) -> None:
    net = Net()
    x = net.input(("n", 1, 8, 8), "image")
    net.output(net.add("Conv", x, net.weight(4, 1, 3, 3)))
    with pytest.raises(UsageError, match="teacher"):
        learn(small, TrainingData(DATA, teacher=net.model()), TrainingOptions(4, **QUICK))


def test_inputs_that_are_not_numbers(small: Model, original: Model) -> None:
    image = np.full((8, 1, 8, 8), np.nan, np.float32)
    with pytest.raises(UsageError, match="holds NaN"):
        learn(small, TrainingData([{"image": image}], teacher=original), TrainingOptions(4))
    with pytest.raises(RunError, match="not a finite number before training"):
        learn(small, TrainingData([{"image": np.full_like(image, np.inf)}] * 2, teacher=original), TrainingOptions(4))


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


def test_masks_that_fit_nothing(small: Model, original: Model) -> None:
    data, options = TrainingData(DATA, teacher=original), TrainingOptions(4, **QUICK)
    name = next(n for n, a in weights(small).items() if a.ndim > 1)
    with pytest.raises(UsageError, match="no initializer 'nothing'"):
        learn(small, data, options, masks={"nothing": np.ones(3, bool)})
    with pytest.raises(UsageError, match="its mask is"):
        learn(small, data, options, masks={name: np.ones(3, bool)})


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"optimizer": "adam"}, "no optimizer"),
        ({"schedule": "step"}, "no schedule"),
        ({"augment": ("spin",)}, "no augmentation"),
        ({"loss": "l3"}, "no loss"),
        ({"rate": -1.0}, "learning rate"),
        ({"temperature": 0.0}, "a temperature must be from 0.01 to 1000"),
        ({"average": 1.0}, "running mean"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_options_out_of_range(given: dict[str, object], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        TrainingOptions(10, **given)


def test_the_public_function(tmp_path: Path) -> None:
    small = onnxprune.prune(DIGITS, 0.75, data=DATA, verify=False).model
    result = onnxprune.train(small, DATA, 10, teacher=DIGITS, **QUICK)
    assert isinstance(result.model, onnx.ModelProto) and result.report.after <= result.report.before
