"""The account of a search: what people read, and what programs do."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import pytest

import onnxprune
from onnxprune.pipelines.auto_recipes import VerbStep
from onnxprune.pipelines.auto_search import AutoOutcome
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.report import auto as report
from onnxprune.report.charts import charts_of
from onnxprune.runtime import Setting
from onnxprune.runtime.bench import Place
from tests.report.documents import DATA
from tests.report.runs import DIGITS


@functools.cache
def outcome() -> AutoOutcome:
    place = Place(Setting(threads=1))
    return onnxprune.auto(DIGITS, DATA, params="50%", samples=48, time=8, place=place).report


def test_lines() -> None:
    of = outcome()
    lines = report.auto_lines(of)
    assert lines[0].split() == ["recipe", "file", "MACs", "params", "top1"]
    assert lines[1].split()[0] == "original"
    chosen = [line for line in lines if "chosen, *" in line or line.endswith("chosen")]
    assert len(chosen) == 1 and chosen[0].startswith(of.chosen.recipe)
    assert any("over the budget" in line and line.startswith("lossless") for line in lines)
    text = "\n".join(lines)
    assert "asked    params of at most 59.2 k (50.0 %)" in text
    assert f"chosen   {report.recipe_line(of.chosen.steps)}" in text
    assert "dB" in text and "speed" in text and f"{len(of.made)} models in" in text and "unknown" not in text


def test_lines_of_what_is_less_usual() -> None:
    of = outcome()
    floor = replace(of.goal, most=None, floor=QualityConstraint("sqnr", 99.0))
    other = replace(of, goal=floor, unknown=["how good"], interrupted=True, resumed=2)
    text = "\n".join(report.auto_lines(other))
    assert "sqnr of at least 99, as little of the params as goes" in text
    assert "not good enough" in text and "unknown  how good" in text
    assert "ended    before its time" in text and "2 trials had been finished before" in text
    failed = replace(of, trials=(*of.trials, replace(of.chosen, recipe="r", problem="no block")))
    assert report.failed_lines(failed)[-1] == "no model: r: no block"


def test_steps_as_they_are_typed() -> None:
    steps = (VerbStep("prune", {"head_dims": True, "size": "40%"}), VerbStep("quantize", {"bits": 8}))
    assert report.recipe_line(steps) == "prune --head-dims --size 40%, then quantize --bits 8"
    assert report.recipe_line(()) == "the model as it is"


def test_data() -> None:
    of = outcome()
    found = json.loads(json.dumps(report.auto_data(of), allow_nan=False))
    assert found["goal"] == {"cost": "params", "most": 0.5, "floor": None}
    trials = found["search"]["trials"]
    assert len(trials) == len(of.made) and sum(trial["chosen"] for trial in trials) == 1
    assert [trial["pareto"] for trial in trials].count(True) == len(of.front)
    assert found["chosen"]["steps"][0]["run"] == of.chosen.steps[0].verb
    assert found["after"]["params"] == of.chosen.costs["params"] and found["outputs"]["sqnr"] > 0
    assert found["damage"] == {"ruined": False} or not found["damage"]["ruined"]


def test_the_front_is_drawn_with_what_was_chosen() -> None:
    (chart,) = (c for c in charts_of(report.auto_data(outcome())) if c.title == "Models that were tried")
    assert chart.bound is None and chart.y == "top1"
    (spot,) = (spot for spot in chart.spots if spot.kind == "chosen")
    assert spot.x == pytest.approx(100 * outcome().chosen.shares["params"])
