"""Recipes as data: budgets that are turned, steps in their order, and files that `onnxprune run` takes."""

from __future__ import annotations

import tomllib

import pytest

from onnxprune.names import AUTO_BUDGETS
from onnxprune.pipelines.auto_recipes import (
    ModelFacts,
    Recipe,
    VerbStep,
    fixed_recipes,
    is_roundable,
    is_rounded,
    recipe_text,
    turned_recipes,
)

PRUNE = Recipe("prune", (VerbStep("prune", {"rotate": True}),), dial=0)
INT8 = Recipe("int8", (VerbStep("quantize", {"weights": "int8"}),))


@pytest.mark.parametrize("cost", AUTO_BUDGETS)
@pytest.mark.parametrize("data", [True, False])
def test_what_is_turned_has_a_budget_and_what_is_fixed_has_none(cost: str, data: bool) -> None:
    facts = ModelFacts(data=data, linear=True, heads=True, blocks=3, products=True)
    fixed, turned = fixed_recipes(cost, facts), turned_recipes(cost, facts)
    assert all(recipe.dial is None for recipe in fixed)
    for recipe in turned:
        assert recipe.dial is not None and recipe.dial_kind(cost) in (cost, "macs")
    names = [recipe.name for recipe in (*fixed, *turned)]
    assert len(set(names)) == len(names) and names[0] == "lossless" and "prune" in names
    assert any(map(is_rounded, fixed)) == (cost in ("size", "latency")), "whole numbers change no counts"
    assert any("rotate" in step.options for r in turned for step in r.steps) == data
    assert any(step.verb == "sparsify" for r in turned for step in r.steps) == (cost == "size")


def test_what_a_model_lacks_is_not_tried() -> None:
    names = {recipe.name for recipe in (*fixed_recipes("size", ModelFacts()), *turned_recipes("size", ModelFacts()))}
    assert names == {"lossless", "int8", "uint8", "prune", "products", "zeros", "widths and bits"}
    assert "drop + prune" in {recipe.name for recipe in turned_recipes("size", ModelFacts(blocks=1))}


def test_widths_and_bits_are_for_files_and_need_data() -> None:
    within = {
        (cost, data): [r for r in turned_recipes(cost, ModelFacts(data=data)) if is_rounded(r)]
        for cost in AUTO_BUDGETS
        for data in (True, False)
    }
    assert [key for key, recipes in within.items() if recipes] == [("size", True)]
    (recipe,) = within["size", True]
    assert recipe.dial_kind("size") == "size" and recipe.trained(8).steps[-1].verb == "train"


def test_a_time_is_lowered_by_products_through_what_stands_for_it() -> None:
    products = next(r for r in turned_recipes("latency", ModelFacts()) if r.name == "products")
    assert products.dial_kind("latency") == "macs" and "allow_slower" not in products.steps[0].options


def test_training_comes_behind_what_is_cut_and_before_what_is_rounded() -> None:
    whole = PRUNE.then(INT8)
    assert whole.name == "prune + int8" and whole.dial == 0
    assert [step.verb for step in whole.trained(8).steps] == ["prune", "train", "quantize"]
    assert whole.trained(8).steps[1].options == {"steps": 8} and whole.trained(0) is whole
    assert INT8.trained(8) is INT8 and not is_rounded(PRUNE)
    assert is_roundable(PRUNE) and not is_roundable(Recipe("zeros", (VerbStep("sparsify"),), dial=0))
    assert not is_roundable(INT8)


def test_options_of_one_step() -> None:
    changed = PRUNE.then(INT8).with_options(0, {"size": "40%"})
    assert changed.steps[0].options == {"rotate": True, "size": "40%"}
    assert PRUNE.steps[0].options == {"rotate": True}


def test_a_file_of_steps() -> None:
    steps = (
        VerbStep("prune", {"head_dims": True, "size": "40.5%"}),
        VerbStep("quantize", {"bits": 8}),
        VerbStep("compress"),
    )
    assert tomllib.loads(recipe_text(steps))["step"] == [
        {"run": "prune", "head-dims": True, "size": "40.5%"},
        {"run": "quantize", "bits": 8},
        {"run": "compress"},
    ]
