"""Which rates are tried, and which one is taken."""

from __future__ import annotations

import math

import pytest

from onnxprune.recovery import learning_rate


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ({3e-4: 0.9, 1e-3: 0.7, 3e-3: 0.6, 1e-2: 0.9}, 3e-3),  # up as long as it helps
        ({3e-4: 0.9, 1e-3: 0.7, 3e-3: 0.6, 1e-2: 0.8}, 1e-2),  # still half of the gain
        ({3e-4: 0.95, 1e-3: 0.97, 1e-4: 0.8, 3e-5: 0.9}, 1e-4),  # down where up does not
        ({3e-4: 1.2, 1e-4: 1.1, 3e-5: 0.9, 1e-5: 0.95}, 3e-5),  # harm: no higher rate is tried
        ({3e-4: math.inf, 1e-4: math.inf}, 3e-4),
        ({3e-4: 1.3, 1e-4: 1.2, 3e-5: 1.1, 1e-5: 1.05}, 1e-5),  # nothing gains
    ],
)
def test_rates_rise_or_fall_as_long_as_that_does_better(losses: dict[float, float], chosen: float) -> None:
    found: dict[float, float] = {}
    assert learning_rate.rate_by_trials(found, 1.0, losses.__getitem__, "adamw") == chosen
    assert found == losses


def test_what_was_tried_is_not_tried_again() -> None:
    found = {3e-4: 0.9, 1e-3: 0.8}
    tried: list[float] = []

    def trial(rate: float) -> float:
        tried.append(rate)
        return 0.95

    assert learning_rate.rate_by_trials(found, 1.0, trial, "adamw") == 1e-3
    assert tried == [3e-3]


def test_rates_of_sgd_are_higher() -> None:
    found: dict[float, float] = {}
    assert learning_rate.rate_by_trials(found, 1.0, lambda rate: 12 * abs(rate - 0.03), "sgd") == pytest.approx(0.03)
    assert min(found) > 1e-3


@pytest.mark.parametrize(("steps", "expected"), [(1, 5), (20, 5), (100, 20), (500, 100), (10_000, 150)])
def test_a_trial_is_a_fifth_of_the_run(steps: int, expected: int) -> None:
    assert learning_rate.trial_steps(steps) == expected
