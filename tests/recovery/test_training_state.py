"""A run between two steps, saved and continued."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxprune.recovery.training_state import Judgement, TrainingState


class Remembering:
    """An optimizer whose state is one array."""

    def __init__(self, value: float) -> None:
        self.moment = {"m": np.full(2, value)}

    def state(self) -> dict[str, np.ndarray]:
        return self.moment

    def restore(self, saved: Any) -> None:
        self.moment = {n: np.array(a) for n, a in saved.items()}


def state(value: float) -> TrainingState:
    weights = {"w": np.full((2, 3), value, np.float32)}
    return TrainingState(weights, Remembering(value), dict(weights), {})  # type: ignore[arg-type]


def test_what_was_saved_is_continued() -> None:
    before = state(1.0)
    before.rate, before.step, before.skipped, before.found = 1e-3, 7, 2, {1e-3: 0.5}
    before.course.append(Judgement(5, 0.4, 0.3))
    saved = before.checkpoint()
    after = state(9.0)
    held = after.weights["w"]
    after.restore(saved)
    assert after.weights["w"] is held and (held == 1).all(), "in place: sessions hold on to the array"
    assert (after.rate, after.step, after.skipped, after.found) == (1e-3, 7, 2, {1e-3: 0.5})
    assert after.course == [Judgement(5, 0.4, 0.3)] and (after.optimizer.moment["m"] == 1).all()  # type: ignore[attr-defined]


def test_what_is_saved_no_longer_changes_the_run() -> None:
    after = state(1.0)
    after.restore(state(2.0).checkpoint())
    after.best["w"][...] = 5
    assert (after.weights["w"] == 2).all()


def test_the_candidate_is_the_mean_where_there_is_one() -> None:
    one = state(1.0)
    assert one.candidate is one.weights
    one.average = {"w": np.zeros((2, 3), np.float32)}
    assert one.candidate is one.average


def test_numbers_are_not_known_at_first() -> None:
    one = state(1.0)
    assert math.isnan(one.rate) and math.isnan(one.before) and one.best_loss == math.inf
