"""Units that are chosen while the model trains: masks, what returns, budgets, and the proof."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.autodiff import write_back
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model, load
from onnxprune.pipelines.dynamic_units import reordered
from onnxprune.pipelines.iterative import CarriedWeights, units_to_go
from onnxprune.recovery import RecoveryOptions, TrainingOptions
from onnxprune.rewriting import Removal

MODELS = Path(__file__).parents[2] / "models"
DIGITS, DATA = MODELS / "digits.onnx", MODELS / "digits_calibration.npz"
QUICK = {"rate": 1e-3, "batch": 32, "threads": 1}


def test_scores_are_dealt_out_in_another_order() -> None:
    groups = api.trace(DIGITS)
    rng = np.random.default_rng(0)
    scores, order = rng.random((2, groups.classes.count))
    going = units_to_go(groups, scores, Options(macs="40%", criterion="l2"), None, lambda said: None)
    found = reordered(going, scores, order)
    for group in groups.groups:
        assert sorted(found[group.classes]) == sorted(scores[group.classes])
        assert np.argsort(found[group.classes]).tolist() == np.argsort(order[group.classes]).tolist()
    again = units_to_go(groups, found, Options(macs="40%", criterion="l2"), None, lambda said: None)
    assert again.counts == going.counts and going.counts


@pytest.mark.parametrize("criterion", ["auto", "l2", "fisher", "movement"])
def test_pruned_while_training(criterion: str) -> None:
    recovery = RecoveryOptions(train=TrainingOptions(40, while_training="soft", patience=0, **QUICK))
    options = Options(macs="40%", criterion=criterion)
    outcome = api.run(load(DIGITS), options, data=DATA, recovery=recovery)
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.goals[0].met
    assert outcome.chosen is not None and outcome.training is not None
    assert outcome.chosen.steps + outcome.training.steps == 40
    assert outcome.training.after <= outcome.training.before
    once = api.plan_for(load(DIGITS), options, data=DATA)[1]
    assert [(s.group, len(s.remove)) for s in once.steps] == [(s.group, len(s.remove)) for s in outcome.plan.steps]
    if criterion != "l2":  # magnitudes move less than their differences in so few steps
        assert [s.remove for s in once.steps] != [s.remove for s in outcome.plan.steps], "training chose others"
    cut = onnxprune.apply(DIGITS, outcome.plan)
    assert onnxprune.verify(DIGITS, cut, outcome.plan).ok
    shapes = {t.name: tuple(t.dims) for t in cut.graph.initializer}
    assert shapes == {n: tuple(t.dims) for n, t in outcome.model.initializers.items()}


def test_the_cut_of_the_trained_model_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are carried wrongly are found, and refused."""
    recovery = RecoveryOptions(train=TrainingOptions(8, while_training="soft", **QUICK))
    onto = CarriedWeights.onto

    def wrong(self: CarriedWeights, cut: Removal, small: Model) -> Model:
        made = onto(self, cut, small)
        name = next(n for n, t in made.initializers.items() if len(t.dims) == 4)
        return write_back(made, {name: made.array(name)[::-1]})

    monkeypatch.setattr(CarriedWeights, "onto", wrong)
    with pytest.raises(GoalMissed, match="the cut of the trained model is not proven"):
        api.run(load(DIGITS), Options(ratio=0.5), data=DATA, recovery=recovery)


def test_heads_and_norms_are_chosen_while_training() -> None:
    """Of a transformer, where units are read behind norms, and heads go whole."""
    model, rng = load(MODELS / "vit.onnx"), np.random.default_rng(0)
    (entry,) = model.proto.graph.input
    shape = [d.dim_value or 1 for d in entry.type.tensor_type.shape.dim]
    data = [{entry.name: rng.standard_normal((1, *shape[1:])).astype(np.float32)} for _ in range(12)]
    recovery = RecoveryOptions(train=TrainingOptions(6, while_training="soft", rate=1e-4, threads=1))
    outcome = api.run(model, Options(ratio=0.5, criterion="l2"), data=data, recovery=recovery)
    assert outcome.verdict is not None and outcome.verdict.ok
    assert {g.kind for g in outcome.groups.groups} >= {"head", "channel"}


def test_python_takes_training_options() -> None:
    options = onnxprune.TrainingOptions(8, while_training="soft", **QUICK)
    result = onnxprune.prune(DIGITS, 0.5, data=DATA, train=options)
    assert isinstance(result.model, onnx.ModelProto) and result.report.chosen is not None


@pytest.mark.parametrize(
    ("given", "options", "problem"),
    [
        ({"steps": 3}, {"steps": 2}, "in 2 rounds"),
        ({"steps": 2}, {}, "in so few steps"),
        ({"steps": 8, "while_training": "hard"}, {}, "no way to choose while training is called 'hard'"),
        ({"steps": 8, "every": 0}, {}, "every.* must be at least 1"),
    ],
)
def test_refused(given: dict[str, object], options: dict[str, object], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        training = TrainingOptions(**{"while_training": "soft", **QUICK, **given})  # type: ignore[arg-type]
        onnxprune.prune(DIGITS, 0.5, data=DATA, train=training, **options)  # type: ignore[arg-type]


def test_training_alone_chooses_nothing() -> None:
    with pytest.raises(UsageError, match="training alone removes nothing"):
        onnxprune.train(DIGITS, DATA, 4, teacher=DIGITS, while_training="soft")
