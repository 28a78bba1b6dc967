"""A trial: made, sized, judged on what its steps do not see, ended by the clock, and kept as plain data."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from onnxprune.model import file_size, load, to_proto
from onnxprune.pipelines import Evaluation
from onnxprune.pipelines.auto_recipes import Recipe, VerbStep
from onnxprune.pipelines.auto_trials import STOPPED, AutoContext, AutoTrial, Bid, prepare_auto
from onnxprune.pipelines.evaluate import EvaluationData
from onnxprune.pipelines.probe import PicklableModel
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.runtime.bench import Place
from tests.cli.conftest import DIGITS, MODELS

PRUNE = Recipe("prune", (VerbStep("prune"),), dial=0)
LATER = time.time() + 3600


@pytest.fixture(scope="module")
def context() -> AutoContext:
    model = load(DIGITS)
    wanted = EvaluationData(data=(), labels="label")
    inputs = RunInputs(str(MODELS / "digits_test.npz"), 64)
    fitting, judging = inputs.parted(model, also=wanted.label_source(model, wanted.output_of(model)))
    fitting = [{"image": run["image"]} for run in fitting]
    original = PicklableModel(model)
    return AutoContext(original, original, (VerbStep("compress"),), fitting, judging, wanted, "params", Place(), {})


def test_a_trial_is_measured_on_samples_that_its_steps_do_not_see(context: AutoContext) -> None:
    trial, model = prepare_auto(context)((Bid(PRUNE, 0.5, 48), LATER))
    assert model is not None and not trial.problem
    assert [step.verb for step in trial.steps] == ["compress", "prune"]
    assert trial.costs["size"] == file_size(model.model) and trial.shares["params"] <= 0.5
    assert "latency" not in trial.costs, "nobody asked for time"
    session = ort.InferenceSession(to_proto(model.model).SerializeToString())
    images, labels = (np.concatenate([run[name] for run in context.judging]) for name in ("image", "label"))
    found = session.run(None, {"image": images})[0].argmax(axis=1)
    assert trial.values["value"] == pytest.approx((found == labels).mean())
    seen = np.concatenate([run["image"] for run in context.fitting])
    assert not any((seen == image).all(axis=(1, 2, 3)).any() for image in images)


def test_time_is_measured_where_it_is_the_cost(context: AutoContext) -> None:
    trial, _ = prepare_auto(replace(context, cost="latency"))((Bid(Recipe("as it is", ()), None, 48), LATER))
    assert trial.costs["latency"] > 0 and 0.5 < trial.shares["latency"] < 2


def test_a_measure_of_ones_own(context: AutoContext) -> None:
    own = EvaluationData(data=(), evaluation=Evaluation(lambda path: float(load(path).nbytes)))
    without = replace(context, wanted=own, judging=[], fitting=[])
    trial, model = prepare_auto(without)((Bid(PRUNE, 0.5, 0), LATER))
    assert model is not None and trial.values == {"value": model.model.nbytes}


def test_the_clock_ends_a_trial(context: AutoContext) -> None:
    trial, model = prepare_auto(context)((Bid(PRUNE, 0.5, 48), time.time() - 1))
    assert model is None and trial.problem == STOPPED and trial.recipe == "prune"


def test_a_step_that_fails_is_a_trial_with_a_problem(context: AutoContext) -> None:
    bid = Bid(Recipe("drop", (VerbStep("drop", {"count": 9}),)), None, 48)
    trial, model = prepare_auto(context)((bid, LATER))
    assert model is None and "9 blocks are to go" in trial.problem


def test_a_trial_is_plain_data(context: AutoContext) -> None:
    trial = AutoTrial(
        "p", (VerbStep("prune", {"size": "50%"}),), 0.5, 48, 0, {"size": 1.0}, {"size": 0.5}, {"sqnr": 20.0}
    )
    assert AutoTrial.from_json(json.loads(json.dumps(trial.as_json()))) == trial
