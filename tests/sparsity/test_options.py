"""Options of sparsity: what contradicts, what they say of a weight, and which weights they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune import api
from onnxprune.errors import UsageError
from onnxprune.sparsity import SparsifyOptions, contraction_weights
from onnxprune.sparsity.options import pattern_checks, selected

DIGITS = str(Path(__file__).parents[2] / "models" / "digits.onnx")


@pytest.fixture(scope="module")
def weights() -> list[Any]:
    return contraction_weights(api.trace(DIGITS))[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sparsity": 1.0}, "--sparsity: 1 is not at least 0"),
        ({"sparsity": -0.1}, "--sparsity"),
        ({"floor": 1.0}, "--floor"),
        ({"ratios": {"fc*": 1.5}}, r"fc\*: 1.5"),
        ({"per": "row"}, "--per: 'row'"),
        ({"storage": "zip"}, "--storage: 'zip'"),
        ({"sparsity": 0.5, "params": "50%"}, "--sparsity and --params"),
        ({"size": "50%"}, "--size: zeros make a file smaller only"),
        ({"pattern": "2:4", "sparsity": 0.5}, "2:4 says how many"),
        ({"pattern": "2:4", "per": "global"}, "2:4 says how many"),
        ({"method": "threshold:0.1", "params": "50%"}, "threshold:0.1 says how many"),
        ({"method": "threshold:0.1", "pattern": "2:4"}, "--method threshold:0.1 and --pattern 2:4 both say"),
        ({"pattern": "3:2"}, "3:2"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        _ = SparsifyOptions(**options).zeros


def test_what_is_asked_for() -> None:
    plain = SparsifyOptions()
    assert (plain.share, plain.budgets, plain.how_many_fixed, plain.is_threshold) == (0.5, {}, False, False)
    assert SparsifyOptions(sparsity=0.0).share == 0.0, "zero is a share"
    budget = SparsifyOptions(params="50%", size=1000, storage="sparse")
    assert budget.budgets == {"params": "50%", "size": 1000}
    assert SparsifyOptions(pattern="1:4").zeros.share == 0.75 and SparsifyOptions(pattern="1:4").how_many_fixed
    assert SparsifyOptions(method="threshold:1std").is_threshold


def test_the_method_goes_by_the_data() -> None:
    assert SparsifyOptions().chosen(data=True).name == "alps"
    assert SparsifyOptions().chosen(data=False).name == "magnitude"
    with pytest.raises(UsageError, match="--recover fits to what the model computes"):
        SparsifyOptions(recover=True).chosen(data=False)
    assert SparsifyOptions(masks={}).chosen(data=False).name == "given"


def test_the_last_ratio_that_matches_wins(weights: list[Any]) -> None:
    options = SparsifyOptions(ratios={"*": 0.1, "fc.*": 0.9})
    shares = {w.name: options.share_of(w) for w in weights}
    assert shares["fc.weight"] == 0.9 and shares["conv.weight"] == 0.1
    assert SparsifyOptions().share_of(weights[0]) is None


def test_globs_choose_weights(weights: list[Any]) -> None:
    def names(**options: Any) -> set[str]:
        return {w.name for w in selected(weights, SparsifyOptions(**options))}

    every = {w.name for w in weights}
    assert names() == every and names(keep=["fc.weight"]) == every - {"fc.weight"}
    assert names(only=["conv*"]) == {n for n in every if n.startswith("conv")}
    assert names(only=["conv*"], keep=["conv.weight"]) == {n for n in every if n.startswith("conv_")}
    assert names(masks={"fc.weight": np.ones(1, bool)}, keep=["fc.weight"]) == {"fc.weight"}
    with pytest.raises(UsageError, match="--only: no weight or node matches 'nothing'"):
        names(only=["nothing"])


def test_stored_weights_are_checked_for_n_of_m(weights: list[Any]) -> None:
    assert pattern_checks(weights, SparsifyOptions()) == {}
    checks = pattern_checks(weights, SparsifyOptions(pattern="2:4"))
    (weight,) = [w for w in weights if w.name == "fc.weight"]
    mask = np.zeros((weight.groups, weight.width, weight.outputs // weight.groups), bool)
    mask[:, ::2] = True
    assert checks["fc.weight"](weight.tensor(mask))
    mask[:, 1] = True
    assert not checks["fc.weight"](weight.tensor(mask))


def test_a_plan_tells_how_it_was_made() -> None:
    told = SparsifyOptions(sparsity=0.25, seed=3).as_json()
    assert told["sparsity"] == 0.25 and told["seed"] == 3 and "masks" not in told
