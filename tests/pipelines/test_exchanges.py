"""Exchanges of units between groups: kept where the whole repaired model gets nearer to the original."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import onnxprune
from onnxprune import calibration
from onnxprune.allocation import Selection
from onnxprune.errors import ModelError, UsageError
from onnxprune.model import load
from onnxprune.pipelines import exchanges
from onnxprune.pipelines.clock import Clock
from onnxprune.progress import WorkPart
from onnxprune.recovery import RecoveryOptions, TrainingOptions
from onnxprune.rewriting import Removal, agreement, removed_classes
from tests.cli.conftest import DIGITS, MODELS

DATA = str(MODELS / "digits_calibration.npz")


def pruned(**options: Any) -> Any:
    return onnxprune.prune(DIGITS, macs="30%", data=DATA, samples=64, **options)


def distance(done: Any) -> float:
    """How far the outputs are from the original's, on the samples that repaired the model."""
    groups = onnxprune.trace(load(DIGITS))
    removal = Removal(groups, removed_classes(groups, done.plan.removed(groups)))
    return agreement(removal, load(done.model), calibration.read(DATA, load(DIGITS), samples=64)).distance


@pytest.fixture(scope="module")
def plain() -> Any:
    return pruned()


@pytest.fixture(scope="module")
def better() -> Any:
    return pruned(exchanges=6)


def test_outputs_come_nearer_at_no_more_cost(plain: Any, better: Any) -> None:
    assert better.report.verdict.ok
    assert better.report.after.macs <= 0.3 * better.report.before.macs
    (goal,) = better.report.goals
    assert goal.reached == better.report.after.macs
    assert distance(better) < distance(plain)
    assert [len(step.remove) for step in better.plan.steps] != [len(step.remove) for step in plain.plan.steps]


def test_the_plan_replays_it(better: Any) -> None:
    again = onnxprune.apply(DIGITS, better.plan, data=DATA, samples=64)
    assert again.SerializeToString() == better.model.SerializeToString()


def test_an_exchange_that_brings_nothing_is_not_kept(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Same:
        distance = 1.0

    monkeypatch.setattr(exchanges, "agreement", lambda *given: Same())
    assert pruned(exchanges=3).model.SerializeToString() == plain.model.SerializeToString()


def test_an_exchange_that_no_node_can_follow_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are still tried."""

    class Fitter:
        options = onnxprune.Options(macs="50%", exchanges=5)
        kinds: Any = None
        groups: Any = None

        def exchanges(self, selection: Selection) -> Any:
            return iter([((0, 1), Selection({}, counts=[1])), ((1, 0), Selection({}, counts=[2]))])

    def attempt(selection: Any) -> Any:
        if selection.counts == [1]:
            raise ModelError("no such sizes")
        return SimpleNamespace(removal=None, model=selection.counts[0], rolled_back=())

    monkeypatch.setattr(exchanges, "reached", lambda *given: ())
    monkeypatch.setattr(exchanges, "original_outputs", lambda *given: [])
    monkeypatch.setattr(exchanges, "agreement", lambda removal, model, *given: SimpleNamespace(distance=1 / model))
    begun: Any = (Selection({}), SimpleNamespace(removal=None, model=1, rolled_back=()))
    given: Any = (begun, Fitter(), attempt, attempt)
    selection, finished, done = exchanges.with_exchanges(*given, runs=[], clock=Clock())
    assert selection.counts == [2] and finished.model == 2
    assert done is not None and (done.tried, done.kept) == (2, 1)


def test_every_exchange_is_told() -> None:
    told: list[str] = []
    pruned(exchanges=2, progress=told.append)
    parts = [stage for stage in told if isinstance(stage, WorkPart) and stage.whole == "exchange"]
    assert [(part.done, part.total) for part in parts] == [(0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"macs": "50%", "data": None}, "needs inputs as the model gets them"),
        ({"macs": "50%", "data": "random"}, "needs inputs as the model gets them"),
        ({"ratio": 0.5, "data": DATA}, "keeps what budgets allow"),
        ({"macs": "50%", "data": DATA, "exchanges": -1}, "must be a whole number from 0"),
    ],
)
def test_what_it_needs_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        onnxprune.prune(DIGITS, **({"exchanges": 2} | given))


def test_it_does_not_go_with_training_in_which_units_are_chosen() -> None:
    training = TrainingOptions(2, while_training="soft")
    with pytest.raises(UsageError, match="does not go with training"):
        exchanges.check_exchanges(onnxprune.Options(macs="50%", exchanges=2), RecoveryOptions(train=training), DATA)


def test_a_plan_alone_has_no_exchanges() -> None:
    with pytest.raises(UsageError, match="--exchanges is planned as it is carried out"):
        onnxprune.make_plan(DIGITS, macs="50%", data=DATA, exchanges=2)
