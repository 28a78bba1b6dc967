"""Ranks within budgets."""

from __future__ import annotations

import pytest

from onnxprune.allocation.ranks import LowRankOptions
from onnxprune.model import load
from onnxprune.pipelines.low_rank import factorised
from tests.pipelines.test_low_rank import DIGITS


@pytest.mark.parametrize("kind", ["params", "macs", "size"])
def test_budgets_hold(kind):
    done = factorised(load(DIGITS), LowRankOptions(**{kind: "60%"}, round_to=1, allow_slower=True))
    (goal,) = done.goals
    assert goal.met and goal.reached > 0.4 * goal.before


def test_a_budget_that_no_rank_holds_is_missed():
    options = LowRankOptions(params="1%", round_to=4, allow_slower=True)
    (goal,) = factorised(load(DIGITS), options).goals
    assert not goal.met
