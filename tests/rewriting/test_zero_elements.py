"""Zeros written into weights, and plans of them."""

from __future__ import annotations

import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.model import load, to_proto
from onnxprune.pipelines.apply import execute
from onnxprune.pipelines.sparsify import sparsified
from onnxprune.rewriting import Plan, ZeroStep
from onnxprune.sparsity import SparsifyOptions
from tests.pipelines.test_sparsify import DIGITS, MODELS


@pytest.mark.parametrize("name", ["digits", "quantized", "control_flow", "constant_weights"])
def test_a_plan_is_carried_out_again(name):
    model = load(MODELS / f"{name}.onnx")
    done = sparsified(model, SparsifyOptions(pattern="2:4"))
    plan = Plan.from_json(done.plan.to_json())
    assert plan.to_json() == done.plan.to_json()
    again = execute(model, plan)
    assert again.verdict is not None and again.verdict.ok
    assert to_proto(again.model) == to_proto(done.model)


def test_a_plan_of_another_model_is_refused():
    plan = sparsified(load(DIGITS), SparsifyOptions()).plan
    with pytest.raises(UsageError, match=r"the model has no weight 'conv\.weight'"):
        onnxprune.apply(MODELS / "mlp.onnx", plan)
    step = plan.zeros[0]
    other = Plan((), zeros=(ZeroStep(step.tensor, step.keep.reshape(-1), step.pattern),))
    with pytest.raises(UsageError, match=r"weight 'conv\.weight' is \[32, 1, 3, 3\] in the model, \[288\] in the plan"):
        onnxprune.apply(DIGITS, other)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        (
            "kind",
            "turn",
            "'turn' is not known, only 'reorder', 'rotate', 'zero', 'bypass', 'factorise' @ $.steps[0].kind",
        ),
        ("tensor", 3, "must be a text @ $.steps[0].tensor"),
        ("shape", [0], "must be a list of positive integers @ $.steps[0].shape"),
        ("shape", [1 << 60], "@ $.steps[0].keep"),
        ("keep", "!!", "@ $.steps[0].keep"),
        ("keep", "AAAA", "@ $.steps[0].keep"),
        ("zeros", 1, "must be the zeros of 'keep' @ $.steps[0].zeros"),
    ],
)
def test_ruined_plans_are_refused(field, value, says):
    import json

    raw = json.loads(sparsified(load(DIGITS), SparsifyOptions()).plan.to_json())
    raw["steps"][0][field] = value
    with pytest.raises(UsageError) as error:
        Plan.from_json(json.dumps(raw))
    assert says in error.value.message
