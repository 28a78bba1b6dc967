"""Steps carried out from Python give what the verbs give; budgets are shares of the original."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import GoalMissed
from onnxprune.model import Model, file_size, load, to_proto
from onnxprune.pipelines.auto_recipes import ModelFacts, Recipe, VerbStep
from onnxprune.pipelines.auto_steps import StepContext, amounts_of, carry_out_recipe, facts_of
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.runtime.bench import Place
from tests.cli.conftest import DIGITS, MODELS
from tests.pipelines.test_prune_drop import faint, inputs

DATA = str(MODELS / "digits_calibration.npz")


@pytest.fixture
def context() -> StepContext:
    return StepContext(load(DIGITS), RunInputs(DATA, 48), Place(), lambda stage: None)


def same(one: Model, other: object) -> bool:
    return to_proto(one) == to_proto(load(other))


def test_a_step_gives_what_its_verb_gives(context: StepContext) -> None:
    made = carry_out_recipe(context.original, Recipe("p", (VerbStep("prune"),), dial=0), 0.5, "macs", context)
    assert same(made.model, onnxprune.prune(DIGITS, macs="50%", data=DATA, samples=48).model)
    assert made.steps == (VerbStep("prune", {"macs": "50.0000%"}),)
    products = Recipe("p", (VerbStep("compress", {"allow_slower": True}),), dial=0)
    made = carry_out_recipe(context.original, products, 0.6, "params", context)
    wanted = onnxprune.compress(DIGITS, params="60%", allow_slower=True, data=DATA, samples=48)
    assert same(made.model, wanted.model)


def test_a_share_is_one_of_the_original_whatever_came_before(context: StepContext) -> None:
    recipe = Recipe("d", (VerbStep("drop", {"count": 1}), VerbStep("prune")), dial=1)
    made = carry_out_recipe(context.original, recipe, 0.3, "params", context)
    before = amounts_of(context.original, context)
    assert 0.25 < amounts_of(made.model, context)["params"] / before["params"] <= 0.3
    enough = carry_out_recipe(context.original, recipe, 0.99, "params", context)
    assert [step.verb for step in enough.steps] == ["drop"], "the block alone is enough"


def test_amounts_are_those_of_the_file_and_the_graph(context: StepContext) -> None:
    amounts = amounts_of(context.original, context)
    assert amounts["size"] == file_size(context.original)
    assert amounts["params"] == sum(
        int(np.prod(t.dims)) for t in context.original.initializers.values() if t.data_type == 1
    )
    assert amounts["latency"] == amounts["macs"] > 0


def test_training_learns_the_original(context: StepContext) -> None:
    recipe = Recipe("t", (VerbStep("prune"), VerbStep("train", {"steps": 2, "rate": 1e-3})), dial=0)
    made = carry_out_recipe(context.original, recipe, 0.5, "macs", context)
    small = onnxprune.prune(DIGITS, macs="50%", data=DATA, samples=48).model
    assert same(made.model, onnxprune.train(small, DATA, 2, teacher=DIGITS, samples=48, rate=1e-3).model)


def test_whole_numbers_and_zeros(context: StepContext) -> None:
    made = carry_out_recipe(
        context.original, Recipe("q", (VerbStep("quantize", {"weights": "uint8"}),)), None, "size", context
    )
    assert file_size(made.model) < 0.4 * file_size(context.original)
    zeros = Recipe("z", (VerbStep("sparsify", {"storage": "sparse", "method": "magnitude"}),), dial=0)
    made = carry_out_recipe(context.original, zeros, 0.5, "size", context)
    assert file_size(made.model) <= 0.5 * file_size(context.original)


@pytest.mark.long
def test_widths_and_bits_within_a_size(context: StepContext) -> None:
    recipe = Recipe("w", (VerbStep("quantize", {"form": "qdq"}),), dial=0)
    made = carry_out_recipe(context.original, recipe, 0.1, "size", context)
    assert made.steps == (VerbStep("quantize", {"form": "qdq", "size": "10.0000%"}),)
    assert file_size(made.model) <= 0.1 * file_size(context.original)
    assert same(made.model, onnxprune.quantize(DIGITS, form="qdq", size="10%", data=DATA, samples=48).model)


def test_a_rotation_that_finds_nothing_is_no_recipe(context: StepContext) -> None:
    recipe = Recipe("p", (VerbStep("prune", {"rotate": True}),), dial=0)
    with pytest.raises(GoalMissed, match="no group can be rotated"):
        carry_out_recipe(context.original, recipe, 0.5, "macs", context)


def test_blocks_go_with_units_or_there_is_no_recipe(context: StepContext) -> None:
    recipe = Recipe("b", (VerbStep("prune", {"drop": True}),), dial=0)
    given = StepContext(load(faint()), RunInputs(inputs(), 256), Place(), lambda stage: None)
    made = carry_out_recipe(given.original, recipe, 0.55, "params", given)
    wanted = onnxprune.prune(faint(), params="55%", drop=True, data=inputs())
    assert wanted.report.dropped is not None and same(made.model, wanted.model)
    with pytest.raises(GoalMissed, match="no block"):
        carry_out_recipe(context.original, recipe, 0.5, "macs", context)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("digits", ModelFacts(blocks=1)),
        ("mobilenet_v2", ModelFacts(linear=True, blocks=2)),
        ("llama", ModelFacts(linear=True, heads=True, blocks=2, products=True)),
    ],
)
def test_facts(name: str, facts: ModelFacts) -> None:
    assert facts_of(load(str(MODELS / f"{name}.onnx")), {}, data=True) == facts


def test_stages_are_told_with_the_verb(context: StepContext) -> None:
    told: list[str] = []
    given = StepContext(context.original, context.inputs, context.place, told.append)
    carry_out_recipe(context.original, Recipe("p", (VerbStep("prune"),), dial=0), 0.5, "macs", given)
    assert "prune: proving" in told
