"""The search as a whole: a goal is reached, kept trials are found again, and what cannot be is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import file_size, load
from onnxprune.pipelines import auto_search as auto
from onnxprune.pipelines.auto_kept import model_file
from onnxprune.pipelines.auto_recipes import Recipe, VerbStep
from onnxprune.pipelines.auto_search import AutoOptions, auto_search
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.runtime import Setting
from onnxprune.runtime.bench import Place
from tests.cli.conftest import DIGITS, MODELS

DATA = str(MODELS / "digits_calibration.npz")
PRUNE = Recipe("prune", (VerbStep("prune", {"criterion": "l2"}),), dial=0)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AutoOptions:
    """One recipe, and no training."""
    monkeypatch.setattr(auto, "turned_recipes", lambda cost, facts: [PRUNE])
    monkeypatch.setattr("onnxprune.pipelines.auto_rungs.TRAINING", ())
    place = Place(Setting(threads=1))
    return AutoOptions(budgets={"params": "50%"}, seconds=120, samples=48, folder=tmp_path, place=place)


def test_a_budget_is_reached_and_the_best_is_the_one_that_was_tried(options: AutoOptions) -> None:
    found = auto_search(load(DIGITS), DATA, options)
    assert found.chosen.recipe == "prune" and found.goal.fits(found.chosen)
    assert 0.3 < found.chosen.shares["params"] <= 0.5
    assert found.judged is not None and found.judged.sqnr == pytest.approx(found.chosen.values["sqnr"], abs=1e-3)
    assert file_size(found.model) == found.chosen.costs["size"]
    for trial in found.made:
        assert file_size(found.model_of(trial)) == trial.costs["size"]
    assert found.unknown == [] and not found.interrupted and 0 < found.seconds < 120


def test_trials_are_found_again(options: AutoOptions) -> None:
    first = auto_search(load(DIGITS), DATA, options)
    again = auto_search(load(DIGITS), DATA, options)
    assert again.resumed >= len(first.made) > 0 and first.resumed == 0
    assert {trial.key for trial in first.made} <= {trial.key for trial in again.trials}
    model_file(options.folder, first.chosen).unlink()
    assert auto_search(load(DIGITS), DATA, options).chosen.key == first.chosen.key, "what is missing is made again"
    other = auto_search(load(DIGITS), DATA, replace(options, samples=32))
    assert other.resumed == 0, "other data"


def test_a_floor_is_kept_with_as_little_as_goes(options: AutoOptions) -> None:
    floor = replace(options, budgets={}, floor=QualityConstraint("sqnr", 12.0), smallest="params")
    found = auto_search(load(DIGITS), DATA, floor)
    assert found.judged is not None and found.judged.sqnr >= 12 and found.chosen.shares["params"] < 0.6
    with pytest.raises(GoalMissed, match=r"none of .* models is good enough"):
        auto_search(load(DIGITS), DATA, replace(floor, floor=QualityConstraint("sqnr", 1000.0)))


def test_without_data_it_says_what_it_cannot_know(options: AutoOptions) -> None:
    found = auto_search(load(DIGITS), None, options)
    assert found.chosen.recipe == "prune" and found.goal.fits(found.chosen) and found.judged is None
    assert len(found.unknown) == 2 and "without --data" in found.unknown[0]


def test_two_processes_give_the_same_models(options: AutoOptions, tmp_path: Path) -> None:
    """The recipes are those of the module, since processes see no patches of a test."""
    one = auto_search(load(DIGITS), DATA, options)
    two = auto_search(load(DIGITS), DATA, replace(options, workers=2, folder=tmp_path / "two"))
    both = {trial.key for trial in one.made} & {trial.key for trial in two.made}
    assert both
    for trial in two.made:
        if trial.key in both:
            (other,) = [t for t in one.made if t.key == trial.key]
            assert trial.costs == other.costs and trial.values == pytest.approx(other.values, rel=1e-4)


def test_an_interrupt_gives_the_best_so_far(options: AutoOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def progress(stage: str) -> None:
        told.append(stage)
        if ": prune:" in stage:
            raise KeyboardInterrupt

    found = auto_search(load(DIGITS), DATA, options, progress=progress)
    assert found.interrupted and found.chosen.recipe == "prune"

    def at_once(stage: str) -> None:
        if ": lossless:" in stage:
            raise KeyboardInterrupt

    monkeypatch.setattr(
        auto, "fixed_recipes", lambda cost, facts: [Recipe("lossless", (VerbStep("drop", {"count": 9}),))]
    )
    with pytest.raises(KeyboardInterrupt):
        auto_search(load(DIGITS), DATA, replace(options, folder=options.folder / "new"), progress=at_once)


def test_no_time_makes_no_model(options: AutoOptions) -> None:
    with pytest.raises(GoalMissed, match=r"no model was made in 0\.001 seconds"):
        auto_search(load(DIGITS), DATA, replace(options, seconds=0.001))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budgets": {}}, "nothing says what is to be reached"),
        ({"budgets": {"size": "50%", "macs": "50%"}}, "size, macs: one budget"),
        ({"budgets": {"size": "many"}}, "is not an amount"),
        ({"seconds": 0.0}, "are no time"),
        ({"seconds": float("nan")}, "are no time"),
    ],
)
def test_options_that_are_wrong(given: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AutoOptions(**{"budgets": {"size": "50%"}, **given})


def test_goals_that_nothing_measures(options: AutoOptions) -> None:
    model = load(DIGITS)
    with pytest.raises(UsageError, match="--max-drop needs a measure"):
        auto_search(model, DATA, replace(options, floor=QualityConstraint("value", 0.01)))
    with pytest.raises(UsageError, match="no inputs to compare outputs on"):
        auto_search(model, None, replace(options, floor=QualityConstraint("sqnr", 20.0)))
    with pytest.raises(UsageError, match="random inputs tell nothing"):
        auto_search(model, "random", options)
