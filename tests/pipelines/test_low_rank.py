"""Weights that become products: proven, replayed, within their budgets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.allocation.ranks import LowRankOptions, multiple_for
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import load, to_proto
from onnxprune.pipelines.low_rank import factorised, factors_carried_out
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.rewriting import Plan
from onnxprune.rewriting.factorise import factorisable
from onnxprune.tracing import trace
from tests.graphs.net import run, shapes_of
from tests.graphs.random_graphs import FAMILIES
from tests.random.test_graphs import quick

MODELS = Path(__file__).parents[2] / "models"
DIGITS, DATA = MODELS / "digits.onnx", MODELS / "digits_calibration.npz"
RUNNING = sorted(p.name for p in MODELS.glob("*.onnx") if p.stem not in ("bfloat16_compute", "custom_op"))
HALF = LowRankOptions(ratio=0.5, round_to=1, allow_slower=True)


@pytest.mark.parametrize("name", RUNNING)
def test_every_model_gets_products_that_are_proven(name):
    model = load(MODELS / name)
    if not factorisable(trace(model)):
        pytest.skip("all of its weights are shared, stored otherwise, or in groups")
    done = factorised(model, HALF)
    assert done.verdict is not None and done.verdict.ok, done.verdict.problem
    assert done.verdict.strength is not None and done.verdict.strength.tried
    assert done.after.params < done.before.params and done.weights
    for weight in done.weights:
        assert weight.elements[1] < weight.elements[0]
    assert done.after.params - done.before.params == sum(w.elements[1] - w.elements[0] for w in done.weights)


def test_ranks_and_globs():
    options = LowRankOptions(ranks={"fc*": 8, "/fc_1/*": 4}, allow_slower=True)
    done = factorised(load(DIGITS), options)
    assert {w.name: w.rank for w in done.weights} == {"fc.weight": 8, "fc_1.weight": 4}
    kept = factorised(load(DIGITS), LowRankOptions(ratio=0.4, keep=["fc*"], round_to=1, allow_slower=True))
    assert kept.weights and not any(w.name.startswith("fc") for w in kept.weights)
    for weight in factorised(load(DIGITS), LowRankOptions(ratio=0.4, allow_slower=True)).weights:
        inner, outer = int(np.prod(weight.shape)) // weight.shape[0], weight.shape[0]
        assert weight.rank % multiple_for((inner * outer - 1) // (inner + outer), None) == 0
    assert [multiple_for(largest, None) for largest in (200, 64, 40, 9, 3)] == [16, 16, 8, 2, 1]


@pytest.mark.parametrize("data", [None, DATA])
def test_a_plan_is_replayed(data):
    model, inputs = load(DIGITS), RunInputs(data, 64)
    done = factorised(model, HALF, inputs)
    plan = Plan.from_json(done.plan.to_json())
    again = factors_carried_out(model, plan, inputs)
    assert again.verdict is not None and again.verdict.ok
    assert shapes_of(again.model) == shapes_of(done.model)
    for one, other in zip(run(done.model).values(), run(again.model).values(), strict=True):
        np.testing.assert_allclose(other, one, atol=2e-3 * float(np.abs(one).max()))
    with pytest.raises(UsageError, match="does not fit"):
        factors_carried_out(load(MODELS / "mlp.onnx"), plan, RunInputs())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ratio": 1.0}, "--ratio"),
        ({"ranks": {"*": 0}}, "--rank"),
        ({"round_to": 0}, "--round-to"),
        ({"method": "magic"}, "magic"),
        ({"params": "many"}, "not an amount"),
    ],
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(UsageError, match=says):
        LowRankOptions(**options)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_graphs(family):
    count = 0

    @quick(12)
    @given(FAMILIES[family](), st.sampled_from([0.2, 0.5, 0.9]))
    def check(proto: onnx.ModelProto, ratio: float) -> None:
        nonlocal count
        before = proto.SerializeToString(deterministic=True)
        try:
            done = factorised(load(proto), LowRankOptions(ratio=ratio, round_to=1, allow_slower=True))
        except GoalMissed as missed:
            assert missed.message.startswith("nothing to change")
            return
        count += 1
        assert done.verdict is not None and done.verdict.ok, done.verdict.problem
        assert done.after.params < done.before.params
        assert [v.SerializeToString() for v in to_proto(done.model).graph.output] == [
            v.SerializeToString() for v in proto.graph.output
        ]
        assert proto.SerializeToString(deterministic=True) == before

    check()
    assert count > 3, "next to nothing became a product"
