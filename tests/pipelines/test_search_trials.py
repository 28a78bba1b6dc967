"""Trials: made once, kept, and judged as the model is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxprune.allocation import Options
from onnxprune.model import load
from onnxprune.pipelines import Evaluation
from onnxprune.pipelines.search import search
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.search_trials import SearchConfig
from onnxprune.recovery import RecoveryOptions as Recovery
from onnxprune.rewriting import Plan
from tests.cli.conftest import DIGITS
from tests.pipelines.test_search import (
    BARE,
    DATA,
    KEPT,
    L2,
    accuracy,
    cache,  # noqa: F401 - a fixture
    macs_left,
)


def test_no_model_is_tried_twice():
    settings = SearchConfig((QualityConstraint("value", 0.5),), Evaluation(macs_left), BARE, trials=30, verify=False)
    trials = search(load(DIGITS), L2, settings).trials
    assert len({t.macs for t in trials}) == len(trials) < 30


def test_the_model_is_the_one_that_was_tried():
    settings = SearchConfig((QualityConstraint("sqnr", 6.0),), recovery=Recovery("bias"), trials=2, samples=48)
    found = search(load(DIGITS), L2, settings, DATA)
    best = min((t for t in found.trials if t.good), key=lambda t: t.macs)
    assert found.values == pytest.approx(best.values, rel=1e-4)
    assert Plan.from_json(best.plan).steps == Plan.from_json(found.outcome.plan.to_json()).steps


@pytest.mark.parametrize("allocation", ["auto", "global", "uniform"])
def test_trials_and_the_model_are_chosen_by_the_same_scores(allocation):
    """Scores that are to be compared between groups are made another way than those that are not."""
    settings = SearchConfig((QualityConstraint("sqnr", 3.0),), recovery=BARE, trials=3, samples=64, verify=False)
    found = search(load(DIGITS), Options(allocation=allocation), settings, DATA)
    best = min((t for t in found.trials if t.good), key=lambda t: t.macs)
    assert Plan.from_json(best.plan).steps == Plan.from_json(found.outcome.plan.to_json()).steps


def plain(found) -> list[tuple]:
    return [(t.share, t.reached, t.macs, t.values, t.good, t.plan) for t in found.trials]


def test_a_search_goes_on_where_it_was(tmp_path):
    """Whatever line it ended at: it asks for nothing twice, and finds the same."""
    asked = []

    def counted(path) -> float:
        asked.append(path)
        return macs_left(path)

    settings, journal = replace(KEPT, evaluation=Evaluation(counted)), tmp_path / "c.jsonl"
    first = search(load(DIGITS), L2, settings, cache=journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 5 and first.known == 0  # the original, and the trials
    for count in (0, 1, 3, 6):
        journal.write_bytes(b"".join(lines[:count]))
        asked.clear()
        again = search(load(DIGITS), L2, settings, cache=journal)
        assert plain(again) == plain(first)
        assert len(asked) == 6 - count + 1  # what was found is measured once more
        assert again.known == max(0, count - 1)


def test_trials_serve_other_targets_but_no_other_question(tmp_path):
    journal = tmp_path / "c.jsonl"
    assert search(load(DIGITS), L2, KEPT, cache=journal).known == 0
    stricter = search(load(DIGITS), L2, replace(KEPT, targets=(QualityConstraint("value", 0.6),)), cache=journal)
    assert stricter.known >= 1 and stricter.met
    assert [t.good for t in stricter.trials] == [t.values["value"] >= 0.4 for t in stricter.trials]

    for options, settings in (
        (replace(L2, keep=("fc.weight",)), KEPT),
        (replace(L2, criterion="l1"), KEPT),
        (L2, replace(KEPT, cost="params")),
        (L2, replace(KEPT, sizes={"batch": 2})),
        (L2, replace(KEPT, evaluation=Evaluation(accuracy), targets=(QualityConstraint("value", 0.9),))),
    ):
        assert search(load(DIGITS), options, settings, cache=journal).known == 0
    assert search(load(DIGITS), L2, KEPT, cache=journal).known == 5
