"""Halving against a clock that the test turns: who goes on, and when it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from onnxprune.pipelines.auto_goal import AutoGoal
from onnxprune.pipelines.auto_recipes import Recipe, VerbStep
from onnxprune.pipelines.auto_rungs import Halving, TimeLeft
from onnxprune.pipelines.auto_trials import STOPPED, AutoTrial, Bid
from onnxprune.pipelines.search_targets import QualityConstraint

GOAL = AutoGoal("size", 0.5, None, {}, "sqnr")
LOSSLESS = Recipe("lossless", ())
INT8 = Recipe("int8", (VerbStep("quantize"),))
FOUR = [Recipe(name, (VerbStep("prune", {"criterion": name}),), dial=0) for name in ("a", "b", "c", "d")]
# How good each recipe is, and what it takes on a sample.
QUALITY = {"lossless": 99.0, "int8": 40.0, "a": 10.0, "b": 20.0, "c": 15.0, "d": 5.0}


@dataclass
class Stage:
    """Stands for the machine: its clock, what trials take on it, and what they give.

    Attributes:
        second: of a trial, for every sample.
        now: the time.
        fails: recipes that fail.
        rounded: the share of the cost that whole numbers leave.
        done: all bids, in order.
    """

    second: float
    now: float = 0.0
    fails: Sequence[str] = ()
    rounded: float = 0.3
    done: list[Bid] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def perform(self, bids: Sequence[Bid]) -> Iterator[tuple[int, AutoTrial]]:
        for index, bid in enumerate(bids):
            self.done.append(bid)
            seconds = self.second * bid.samples * (1 + bid.training / 32)
            self.now += seconds
            yield index, self._trial(bid, seconds)

    def _trial(self, bid: Bid, seconds: float) -> AutoTrial:
        name = bid.recipe.name.removesuffix(" + train")
        cost = (1.0 if bid.share is None else bid.share) * (self.rounded if "int8" in name else 1.0)
        quality = QUALITY[name.partition(" + ")[0]] + bid.samples / 100 + bid.training / 100
        return AutoTrial(
            bid.recipe.name,
            steps=bid.recipe.steps,
            share=bid.share,
            samples=bid.samples,
            training=bid.training,
            shares={"size": cost, "macs": cost},
            values={"sqnr": quality},
            seconds=seconds,
            problem="no" if name in self.fails else "",
        )


def halving(stage: Stage, seconds: float, goal: AutoGoal = GOAL, samples: int = 256) -> Halving:
    return Halving(goal, TimeLeft(seconds, stage.clock), samples)


def samples_of(stage: Stage, name: str) -> list[int]:
    return [bid.samples for bid in stage.done if bid.recipe.name == name]


def test_with_little_time_the_best_go_on_and_all_are_tried() -> None:
    stage = Stage(0.02)
    search = halving(stage, 25.0)
    search.run(stage.perform, [LOSSLESS], FOUR)
    assert all(samples_of(stage, recipe.name)[0] == 64 for recipe in FOUR)
    assert max(samples_of(stage, "b")) == 256, "the best sees all samples"
    assert max(samples_of(stage, "d")) < 256, "the worst does not"
    assert stage.now <= 25.0 + 0.02 * 256


def test_with_much_time_all_see_all_samples() -> None:
    stage = Stage(0.02)
    halving(stage, 10_000.0).run(stage.perform, [LOSSLESS], FOUR)
    assert all(samples_of(stage, recipe.name)[:2] == [64, 256] for recipe in FOUR), "at once"


@pytest.mark.parametrize("seconds", [1.0, 5.0, 20.0, 100.0, 500.0])
def test_the_time_is_kept(seconds: float) -> None:
    """What a recipe takes is known after its first trial: no later trial begins that the time does not allow."""
    stage = Stage(0.02)
    search = halving(stage, seconds)
    search.run(stage.perform, [LOSSLESS, INT8], FOUR)
    first = 6 * 0.02 * 64
    assert stage.now <= max(seconds, first) + 0.02 * 256
    assert search.trials


def test_a_recipe_that_fails_is_not_tried_again() -> None:
    stage = Stage(0.01, fails=("b",))
    search = halving(stage, 1000.0)
    search.run(stage.perform, [LOSSLESS], FOUR)
    assert samples_of(stage, "b") == [64]
    best = min((t for t in search.trials if not t.problem), key=GOAL.rank)
    assert best.recipe.startswith("c")


def test_whole_numbers_are_combined_where_they_do_not_do_alone() -> None:
    stage = Stage(0.01)
    halving(stage, 1000.0).run(stage.perform, [LOSSLESS, INT8], FOUR)
    assert not any(" + int8" in bid.recipe.name for bid in stage.done), "a third of the size is enough"
    stage, quarter = Stage(0.01), AutoGoal("size", 0.15, None, {}, "sqnr")
    halving(stage, 1000.0, quarter).run(stage.perform, [LOSSLESS, INT8], FOUR)
    combined = [bid for bid in stage.done if bid.recipe.name == "b + int8"]
    assert combined[0].share == pytest.approx(0.5), "int8 alone leaves 0.3, half of which is asked for"


def test_gradient_steps_come_last_and_grow_while_the_time_does() -> None:
    stage = Stage(0.001)
    halving(stage, 10_000.0).run(stage.perform, [LOSSLESS], FOUR)
    steps = [bid.training for bid in stage.done if bid.recipe.name == "b + train"]
    assert steps == [32, 128, 512, 2048]
    assert not any(bid.training for bid in stage.done[-2:]), "the front gets what is left"
    trained = [bid for bid in stage.done if bid.training]
    assert {bid.recipe.name for bid in trained} == {"a + train", "b + train", "c + train"}
    stage = Stage(0.02)
    halving(stage, 60.0).run(stage.perform, [LOSSLESS], FOUR)
    assert max(bid.training for bid in stage.done) < 2048


def test_without_samples_there_is_one_stage_and_no_training() -> None:
    stage = Stage(0.0)
    halving(stage, 100.0, samples=0).run(stage.perform, [LOSSLESS], FOUR)
    assert {bid.samples for bid in stage.done} == {0} and not any(bid.training for bid in stage.done)
    assert len(samples_of(stage, "a")) == 1


def test_nothing_is_tried_twice() -> None:
    stage = Stage(0.001)
    halving(stage, 10_000.0).run(stage.perform, [LOSSLESS, INT8], FOUR)
    bids = [(bid.recipe.name, bid.share, bid.samples, bid.training) for bid in stage.done]
    assert len(set(bids)) == len(bids)


def test_a_smallest_is_searched_for_where_there_is_no_budget() -> None:
    """A recipe keeps 20 dB down to four tenths of the cost: that is found."""

    class Falling(Stage):
        def _trial(self, bid: Bid, seconds: float) -> AutoTrial:
            made = super()._trial(bid, seconds)
            quality = 99.0 if bid.share is None else 20.0 + 50 * (bid.share - 0.4)
            return AutoTrial(**{**made.__dict__, "values": {"sqnr": quality}})

    stage = Falling(0.001)
    goal = AutoGoal("size", None, QualityConstraint("sqnr", 20.0), {}, "sqnr")
    search = halving(stage, 10_000.0, goal)
    search.run(stage.perform, [LOSSLESS], FOUR)
    best = min(search.trials, key=goal.rank)
    assert 0.4 <= goal.cost_of(best) <= 0.46


def test_what_is_stopped_counts_for_nothing() -> None:
    stage = Stage(0.001)

    def stopped(bids: Sequence[Bid]) -> Iterator[tuple[int, AutoTrial]]:
        yield from ((index, AutoTrial(bid.recipe.name, problem=STOPPED)) for index, bid in enumerate(bids))

    search = halving(stage, 1.0)
    search.run(stopped, [LOSSLESS], FOUR)
    assert all(trial.problem for trial in search.trials)
    assert search.predicted(Bid(FOUR[0], 0.5, 64)) == 0.0


def test_time_left() -> None:
    now = [5.0]
    left = TimeLeft(10.0, lambda: now[0])
    assert left.left == 10.0
    now[0] = 12.0
    assert left.left == 3.0
    now[0] = 99.0
    assert left.left == 0.0
