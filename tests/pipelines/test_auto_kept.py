"""Trials that are kept: what was done is found again, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.model import load
from onnxprune.pipelines.auto_goal import AutoGoal
from onnxprune.pipelines.auto_kept import KeptTrials, model_file
from onnxprune.pipelines.auto_recipes import Recipe, VerbStep
from onnxprune.pipelines.auto_rungs import Halving, TimeLeft
from onnxprune.pipelines.auto_trials import STOPPED, AutoContext, AutoTrial, Bid
from onnxprune.pipelines.evaluate import EvaluationData
from onnxprune.pipelines.probe import PicklableModel
from onnxprune.runtime.bench import Place
from tests.cli.conftest import DIGITS

MODEL = PicklableModel(load(DIGITS))
CONTEXT = AutoContext(MODEL, MODEL, (), [], [], EvaluationData(data=()), "size", Place(), {})
SEARCH = Halving(AutoGoal("size", 0.5, None, {}, ""), TimeLeft(60, lambda: 0.0))
BIDS = [Bid(Recipe(name, (VerbStep("prune"),), dial=0), share, 16) for name, share in (("a", 0.5), ("b", 0.25))]


def crew_of(asked: list[str], **problems: str) -> Any:
    """What makes a model of every bid, but for those with a problem, the last bid first."""

    def crew(jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for place, (bid, _) in reversed(list(enumerate(jobs))):
            asked.append(bid.recipe.name)
            problem = problems.get(bid.recipe.name, "")
            trial = AutoTrial(bid.recipe.name, bid.recipe.steps, shares={"size": 0.4}, problem=problem)
            yield place, (trial, None if problem else MODEL)

    return crew


def done(folder: Path, context: AutoContext = CONTEXT, bids: Sequence[Bid] = BIDS, **problems: str) -> tuple[Any, ...]:
    """What a new process does with a folder: (names that were made, trials, how many were found, what is told)."""
    asked, told = list[str](), list[str]()
    kept = KeptTrials(folder, context)
    trials = dict(kept.performing(crew_of(asked, **problems), SEARCH, told.append)(bids))
    return asked, trials, kept.resumed, told


def test_what_was_done_is_found_again(tmp_path: Path) -> None:
    asked, made, resumed, told = done(tmp_path)
    assert asked == ["b", "a"] and resumed == 0 and [made[i].recipe for i in (0, 1)] == ["a", "b"]
    assert len(told) == 2 and "b: 40 % of the size" in str(told[0])
    assert model_file(tmp_path, made[0]).read_bytes() == Path(DIGITS).read_bytes()
    assert done(tmp_path) == ([], made, 2, [])


def test_what_lacks_its_model_is_made_again(tmp_path: Path) -> None:
    _, made, *_ = done(tmp_path)
    model_file(tmp_path, made[1]).unlink()
    asked, again, resumed, _ = done(tmp_path)
    assert asked == ["b"] and again == made and resumed == 1


def test_a_failure_is_kept_but_not_one_that_the_time_caused(tmp_path: Path) -> None:
    _, made, *_ = done(tmp_path, a=STOPPED, b="it does not fit")
    assert [made[i].problem for i in (0, 1)] == [STOPPED, "it does not fit"]
    assert not list(tmp_path.glob("*.onnx"))
    asked, again, resumed, _ = done(tmp_path)
    assert asked == ["a"] and not again[0].problem and again[1].problem and resumed == 1


@pytest.mark.parametrize(
    "other",
    [
        replace(CONTEXT, cost="macs"),
        replace(CONTEXT, sizes={"batch": 2}),
        replace(CONTEXT, fitting=[{"image": np.ones((2, 1, 8, 8), np.float32)}]),
        replace(CONTEXT, wanted=EvaluationData(data=(), labels="label")),
    ],
    ids=["cost", "sizes", "data", "labels"],
)
def test_other_circumstances_are_other_trials(tmp_path: Path, other: AutoContext) -> None:
    done(tmp_path)
    assert done(tmp_path, other)[0] == ["b", "a"]


def test_another_bid_is_another_trial(tmp_path: Path) -> None:
    done(tmp_path)
    assert done(tmp_path, bids=[replace(BIDS[0], training=8)])[0] == ["a"]
