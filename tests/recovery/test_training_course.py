"""Options of training do what they say: warm-up, schedules, clipping, decay, accumulation, early end, means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from onnxprune import TrainingOptions
from onnxprune.autodiff.optimizers import AdamW
from onnxprune.model import Model
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.recovery import Training
from onnxprune.typing import Array
from tests.graphs.net import Net
from tests.recovery.test_fine_tune import damage

X = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
DATA = [{"x": part} for part in np.split(X, 8)]
Seen = list[tuple[float, dict[str, Array], dict[str, Array]]]


def network() -> Model:
    net = Net()
    h = net.add("Relu", net.add("MatMul", net.input(("n", 8), name="x"), net.weight(8, 16, name="first")))
    net.output(net.add("MatMul", h, net.weight(16, 4, name="second")))
    return net.model()


def course(monkeypatch: pytest.MonkeyPatch, steps: int = 20, **options: Any) -> tuple[Seen, Training]:
    """Rate, gradients and weights of every step, and what training did."""
    seen: Seen = []
    update = AdamW.update

    def noted(self: AdamW, weights: Mapping[str, Array], gradients: Mapping[str, Array], rate: float) -> None:
        seen.append((rate, {n: g.copy() for n, g in gradients.items()}, {n: w.copy() for n, w in weights.items()}))
        update(self, weights, gradients, rate)

    monkeypatch.setattr(AdamW, "update", noted)
    how = {"rate": 1e-3, "batch": 8, "threads": 1, **options}
    done = learn(damage(network()), TrainingData(DATA, teacher=network()), TrainingOptions(steps, **how))[1]
    monkeypatch.undo()
    return seen, done


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_and_schedules(monkeypatch: pytest.MonkeyPatch, schedule: str) -> None:
    rates = [rate for rate, *_ in course(monkeypatch, warm_up=5, schedule=schedule)[0]]
    assert rates[:5] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3])
    rest = np.arange(15) / 15
    wanted = {"constant": rest * 0 + 1, "linear": 1 - rest, "cosine": 0.5 + 0.5 * np.cos(np.pi * rest)}[schedule]
    assert rates[5:] == pytest.approx(list(1e-3 * wanted))
    assert course(monkeypatch)[0][0][0] == pytest.approx(1e-3), "a twentieth of the steps by default"


def test_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    def norms(**options: Any) -> list[float]:
        return [
            float(np.sqrt(sum(np.square(g).sum() for g in gradients.values())))
            for _, gradients, _ in course(monkeypatch, **options)[0]
        ]

    free = norms()
    limit = float(np.median(free))
    assert max(free) > 1.1 * limit and max(norms(clip=limit)) <= limit * (1 + 1e-6)


def test_weight_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    def size(**options: Any) -> float:
        return float(sum(np.square(w).sum() for w in course(monkeypatch, **options)[0][-1][2].values()))

    assert size(decay=50.0) < 0.9 * size()


def test_accumulated_gradients_are_the_mean_of_those_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    single = course(monkeypatch, steps=3, rate=1e-30)[0]
    double = course(monkeypatch, steps=1, rate=1e-30, accumulate=2)[0]
    for name, gradient in double[0][1].items():
        wanted = (single[0][1][name] + single[1][1][name]) / 2
        assert np.abs(gradient - wanted).max() <= 1e-6 * np.abs(wanted).max(), name
        assert np.abs(gradient - single[0][1][name]).max() > 1e-2 * np.abs(wanted).max()


def test_early_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate that destroys is never better than the beginning."""
    seen, done = course(monkeypatch, steps=100, rate=5.0, schedule="constant", warm_up=0, patience=3)
    assert len(seen) == done.steps == 12 and len(done.course) == 3 and done.best == 0
    assert course(monkeypatch, steps=100, rate=5.0, schedule="constant", patience=0)[1].steps == 100


def test_the_best_weights_are_kept_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    _, done = course(monkeypatch, steps=100, rate=0.1, batch=4, schedule="constant", patience=0)
    held = {judgement.step: judgement.held for judgement in done.course}
    assert done.after == min(done.before, *held.values()) == held[done.best] < held[100]


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_running_mean_is_judged(monkeypatch: pytest.MonkeyPatch, average: float) -> None:
    """Where steps jump to and fro, their mean is better than they are."""
    _, done = course(monkeypatch, steps=100, rate=0.1, batch=4, schedule="constant", patience=0, average=average)
    late = [judgement.held for judgement in done.course[-5:]]
    other = course(monkeypatch, steps=100, rate=0.1, batch=4, schedule="constant", patience=0, average=0.9 - average)[1]
    assert (np.mean(late) < np.mean([j.held for j in other.course[-5:]])) == (average > 0)


def test_groups_have_rates_and_frozen_globs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def changes(**options: Any) -> dict[str, float]:
        seen = course(monkeypatch, steps=10, warm_up=0, **options)[0]
        return {name: float(np.abs(seen[-1][2][name] - seen[0][2][name]).max()) for name in seen[0][2]}

    plain = changes()
    assert changes(rates={"sec*": 0.1})["second"] == pytest.approx(0.1 * plain["second"], rel=0.5)
    assert changes(rates={"sec*": 0.0, "*": 1.0})["second"] == 0, "the first that matches counts"
    assert "second" not in changes(freeze=["sec*"])
