"""Optimisers and schedules against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxprune.autodiff.optimizers import SGD, AdamW, Optimizer, ParameterGroup, clip_by_norm, scheduled
from onnxprune.errors import UsageError


@pytest.mark.parametrize("optimizer", [SGD(), SGD(nesterov=True), SGD(momentum=0.0), AdamW(), AdamW(decay=0.01)])
def test_a_bowl_is_descended(optimizer: Optimizer) -> None:
    """f(w) = |w - 3|^2 / 2."""
    w = {"w": np.zeros((4, 4), np.float32)}
    for step in range(400):
        optimizer.update(w, {"w": w["w"] - 3}, scheduled(0.1, step, 400))
    assert np.abs(w["w"] - 3).max() < 0.05


def test_adam_takes_the_first_step_of_its_formula() -> None:
    w = {"w": np.array([1.0, -2.0], np.float32)}
    gradient = np.array([0.5, -4.0], np.float32)
    AdamW(epsilon=0.0).update(w, {"w": gradient}, 0.1)
    assert np.allclose(w["w"], [0.9, -1.9], atol=1e-6)  # the first step is the sign, whatever the size


def test_decay_shrinks_matrices_and_spares_biases() -> None:
    w = {"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}
    zero = {name: np.zeros_like(value) for name, value in w.items()}
    AdamW(decay=0.5).update(w, zero, 0.1)
    assert np.allclose(w["w"], 0.95)
    assert np.allclose(w["b"], 1)


def test_groups_have_rates_of_their_own_and_freeze() -> None:
    w = {name: np.ones(1, np.float32) for name in ("head.w", "body.w", "stem.w")}
    groups = [ParameterGroup("stem.*", rate=0.0), ParameterGroup("head.*", rate=10.0)]
    SGD(groups=groups, momentum=0.0).update(w, {name: np.ones(1, np.float32) for name in w}, 0.01)
    assert {name: round(float(value[0]), 6) for name, value in w.items()} == {
        "head.w": 0.9,
        "body.w": 0.99,
        "stem.w": 1.0,
    }


@pytest.mark.parametrize("make", [SGD, AdamW])
def test_a_restored_optimiser_goes_on_bit_for_bit(make: type[Optimizer]) -> None:
    rng = np.random.default_rng(0)
    gradients = [{"a/b:0": rng.standard_normal(5).astype(np.float32)} for _ in range(6)]
    whole, halves = {"a/b:0": np.zeros(5, np.float32)}, {"a/b:0": np.zeros(5, np.float32)}
    one, two, three = make(), make(), make()
    for g in gradients:
        one.update(whole, g, 0.1)
    for g in gradients[:3]:
        two.update(halves, g, 0.1)
    three.restore(two.state())
    for g in gradients[3:]:
        three.update(halves, g, 0.1)
    assert np.array_equal(whole["a/b:0"], halves["a/b:0"])


def test_schedules() -> None:
    assert scheduled(1.0, 0, 100, warmup=10) == pytest.approx(0.1)
    assert scheduled(1.0, 10, 100, warmup=10) == pytest.approx(1.0)
    assert scheduled(1.0, 55, 100, warmup=10) == pytest.approx(0.5)
    assert scheduled(1.0, 50, 100, schedule="linear") == pytest.approx(0.5)
    assert scheduled(1.0, 99, 100, schedule="constant") == 1.0
    with pytest.raises(UsageError, match="no schedule 'step'"):
        scheduled(1.0, 0, 10, schedule="step")  # type: ignore[arg-type]


def test_clipping_keeps_the_direction_and_leaves_odd_numbers_alone() -> None:
    gradients = {"a": np.array([3.0]), "b": np.array([4.0])}
    assert clip_by_norm(gradients, 1.0) == pytest.approx(5.0)
    assert np.allclose([gradients["a"][0], gradients["b"][0]], [0.6, 0.8])
    broken = {"a": np.array([math.nan, 1.0])}
    assert not math.isfinite(clip_by_norm(broken, 1.0))
    assert broken["a"][1] == 1.0
