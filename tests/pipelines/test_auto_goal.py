"""What is nearer to a goal, and what is asked for next: held against what a person would do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from onnxprune.pipelines.auto_goal import FURTHER, AutoGoal
from onnxprune.pipelines.auto_recipes import VerbStep
from onnxprune.pipelines.auto_trials import AutoTrial
from onnxprune.pipelines.search_targets import QualityConstraint

HALF = AutoGoal("size", 0.5, None, {}, "sqnr")
GOOD = AutoGoal("size", None, QualityConstraint("sqnr", 20.0), {}, "sqnr")


def trial(cost: float, sqnr: float = math.nan, *, share: float | None = None, samples: int = 64) -> AutoTrial:
    values = {} if math.isnan(sqnr) else {"sqnr": sqnr}
    return AutoTrial(f"r{cost}", share=share, samples=samples, shares={"size": cost, "macs": 0.3}, values=values)


def test_with_a_budget_the_best_that_holds_it_comes_first() -> None:
    over, good, bad = trial(0.51, 40), trial(0.5, 20), trial(0.2, 10)
    assert sorted([over, bad, good], key=HALF.rank) == [good, bad, over]
    assert HALF.rank(over, 0.1) < HALF.rank(good, 0.1), "it is nearly met"
    assert not HALF.fits(over) and HALF.fits(good)
    further = trial(0.9, 50)
    assert sorted([further, over], key=HALF.rank) == [over, further], "what is nearest to the budget"


def test_equal_classes_are_told_apart_by_the_noise() -> None:
    goal = replace(HALF, metric="top1")
    one, two = (replace(trial(0.4), values={"top1": 0.9, "sqnr": sqnr}) for sqnr in (10.0, 11.0))
    assert min([one, two], key=goal.rank) is two
    assert goal.rank(replace(one, values={"top1": 0.95, "sqnr": 5.0})) < goal.rank(two)


def test_without_a_budget_the_smallest_that_is_good_enough() -> None:
    small, large, bad = trial(0.3, 20), trial(0.4, 40), trial(0.1, 19.9)
    assert sorted([bad, large, small], key=GOOD.rank) == [small, large, bad]
    both = replace(HALF, floor=GOOD.floor)
    assert sorted([bad, large, small], key=both.rank) == [large, small, bad]


def test_where_nothing_tells_what_harms_least_in_general_comes_first() -> None:
    blind = replace(HALF, metric="")
    whole = replace(trial(0.3), steps=(VerbStep("compress"), VerbStep("quantize", {"weights": "int8"})))
    cut, less = (replace(trial(cost), steps=(VerbStep("prune", {"size": "50%"}),)) for cost in (0.4, 0.45))
    lossless = replace(trial(0.5), steps=(VerbStep("compress"),))
    assert sorted([cut, whole, less, lossless], key=blind.rank) == [lossless, whole, less, cut]


@pytest.mark.parametrize(("reached", "lower", "upper"), [(0.6, 0.40, 0.42), (0.4, 0.61, 0.63), (0.5, 0.5, 0.5)])
def test_a_budget_is_asked_for_again_by_what_was_missed(reached: float, lower: float, upper: float) -> None:
    asked = HALF.next_share([trial(reached, share=0.5)], 0.5, (64, 0))
    assert lower <= asked <= upper


def test_asking_leads_to_the_budget() -> None:
    """Of a verb that leaves a tenth more of the whole than it is asked for, whatever that is."""
    tried = [trial(0.5 + 0.1, share=0.5)]
    for _ in range(3):
        share = HALF.next_share(tried, 0.5, (64, 0))
        tried.append(trial(share + 0.1, share=share))
    assert 0.48 <= HALF.cost_of(tried[-1]) <= 0.5


def test_an_interval_is_halved_between_too_little_and_enough() -> None:
    effort = (64, 0)
    assert GOOD.next_share([], 0.5, effort) == 0.5
    good = trial(0.5, 30, share=0.5)
    assert GOOD.next_share([good], 0.5, effort) == pytest.approx(0.5 * FURTHER), "nothing was too small yet"
    bad = trial(0.3, 10, share=0.3)
    assert GOOD.next_share([good, bad], 0.5, effort) == pytest.approx(0.4)
    assert GOOD.next_share([bad], 0.5, effort) == pytest.approx(0.65), "the original is good enough"
    assert GOOD.next_share([good, bad], 0.5, (128, 0)) == pytest.approx(0.35), "more samples may do what fewer did not"


def test_a_time_may_be_missed_by_what_is_noise() -> None:
    goal = AutoGoal("latency", 0.5, None, {}, "sqnr")
    timed = AutoTrial("r", shares={"latency": 0.505, "macs": 0.4})
    assert goal.fits(timed) and not goal.fits(replace(timed, shares={"latency": 0.52}))
    assert goal.cost_of(replace(timed, shares={"macs": 0.4})) == 0.4


def test_the_front() -> None:
    trials = [trial(0.5, 20), trial(0.6, 19), trial(0.7, 30), trial(0.2, 5), trial(0.2, 4)]
    assert HALF.front(trials) == [trials[3], trials[0], trials[2]]
    blind = replace(HALF, metric="")
    assert blind.front([trial(0.5), replace(trial(0.5), shares={"size": 0.6})]) == [trial(0.5)]
