"""Weights that become products: proven, replayed, within their budgets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnxprune
from onnxprune.allocation.ranks import LowRankOptions, multiple_for
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import load, to_proto
from onnxprune.pipelines.low_rank import factorised, factors_carried_out
from onnxprune.pipelines.sparsify import RunInputs
from onnxprune.proof.factorised import FactorClaim, prove_factors
from onnxprune.rewriting import Plan
from onnxprune.rewriting.factorise import Factors, factorisable, with_factors
from onnxprune.tracing import trace
from tests.graphs.net import Net, run, shapes_of
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


SPLITS = {
    "MatMul": ((2, 3, 8), lambda net, x: net.add("MatMul", x, net.weight(8, 6))),
    "MatMul from the left": ((8, 3), lambda net, x: net.add("MatMul", net.weight(6, 8), x)),
    "Gemm": ((3, 8), lambda net, x: net.add("Gemm", x, net.weight(8, 6), net.weight(6), alpha=0.5, beta=2.0)),
    "Gemm, turned": (
        (8, 3),
        lambda net, x: net.add("Gemm", x, net.weight(6, 8), net.weight(3, 6), transA=1, transB=1, alpha=-1.5),
    ),
    "Einsum": ((2, 8, 3), lambda net, x: net.add("Einsum", x, net.weight(6, 8), equation="bit,oi->bto")),
    "Einsum over two axes": (
        (2, 4, 3),
        lambda net, x: net.add("Einsum", net.weight(3, 7, 4), x, equation="kol,blk->bo"),
    ),
    "Conv": (
        (1, 8, 7, 7),
        lambda net, x: net.add("Conv", x, net.weight(6, 8, 3, 3), net.weight(6), pads=[1] * 4, strides=[2, 2]),
    ),
    "Conv along one axis": (
        (1, 8, 9),
        lambda net, x: net.add("Conv", x, net.weight(6, 8, 3), auto_pad="SAME_LOWER"),
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_product_of_full_rank_gives_what_the_weight_gives(name):
    shape, build = SPLITS[name]
    net = Net()
    net.output(build(net, net.input(shape)))
    model = net.model()
    groups = trace(model)
    (weight,) = factorisable(groups)
    matrix = weight.as_matrix(model.array(weight.name))
    assert matrix.shape == weight.sizes
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((6 if matrix.shape[1] < 7 else 7,) * 2))[0]
    split = with_factors(groups, [Factors(weight, matrix @ rotation, rotation.T)])
    assert len(split.proto.graph.node) == len(model.proto.graph.node) + 1
    onnx.checker.check_model(to_proto(split), full_check=True)
    for one, other in zip(run(model).values(), run(split).values(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_a_wrong_factor_is_refused():
    done = factorised(load(DIGITS), HALF)
    groups = done.groups
    for wrong in (1.5, -1.0):
        proto = to_proto(done.model)
        tensor = next(t for t in proto.graph.initializer if t.name == "fc.weight_first")
        value = onnx.numpy_helper.to_array(tensor).copy()
        value[np.unravel_index(np.abs(value).argmax(), value.shape)] *= wrong
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        claim = FactorClaim(done.plan.factors, load(proto), load(proto))
        assert not prove_factors(groups, claim).ok


def test_the_second_moment_says_which_directions_matter():
    """Inputs that vary in two directions: a product of rank 2 loses nothing on them, and much by the weights alone."""
    net = Net()
    net.output(net.add("MatMul", net.input(("batch", 12)), net.weight(12, 12, name="w")), ["batch", 12])
    rng = np.random.default_rng(0)
    data = [{"x": (rng.standard_normal((64, 2)) @ rng.standard_normal((2, 12))).astype(np.float32)[None][0]}]
    lost = {}
    for method in ("whitened", "scaled", "plain"):
        options = LowRankOptions(ranks={"w": 2}, method=method, allow_slower=True, recover=False)
        done = factorised(net.model(), options, RunInputs(data, 64))
        assert done.verdict is not None and done.verdict.ok
        small, whole = run(done.model, feeds=data[0]), run(net.model(), feeds=data[0])
        (one,), (other,) = small.values(), whole.values()
        lost[method] = float(np.square(one - other).sum() / np.square(other).sum())
    assert lost["whitened"] < 1e-6 < 0.02 < min(lost["scaled"], lost["plain"])


def test_data_make_it_better_and_a_fit_in_sequence_better_still():
    judged = {}
    for name, options in {
        "plain": {"method": "plain", "recover": False},
        "whitened": {"recover": False},
        "fitted": {},
    }.items():
        chosen = LowRankOptions(ratio=0.7, round_to=1, allow_slower=True, **options)
        done = factorised(load(DIGITS), chosen, RunInputs(DATA, 256))
        assert done.judged is not None
        judged[name] = done.judged.error
    assert judged["fitted"] < judged["whitened"] < judged["plain"]


@pytest.mark.parametrize("kind", ["params", "macs", "size"])
def test_budgets_hold(kind):
    done = factorised(load(DIGITS), LowRankOptions(**{kind: "60%"}, round_to=1, allow_slower=True))
    (goal,) = done.goals
    assert goal.met and goal.reached > 0.4 * goal.before


def test_a_budget_that_no_rank_holds_is_missed():
    options = LowRankOptions(params="1%", round_to=4, allow_slower=True)
    (goal,) = factorised(load(DIGITS), options).goals
    assert not goal.met


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


def test_products_that_are_slower_are_not_taken(monkeypatch):
    monkeypatch.setattr("onnxprune.pipelines.low_rank.slower_products", lambda weights, ranks, place: ["fc.weight"])
    options = {"round_to": 1, "ratio": 0.3}
    report = onnxprune.compress(DIGITS, **options).low_rank
    assert report is not None and report.left["fc.weight"] == "the two products are slower than the one"
    assert "fc.weight" not in {w.name for w in report.weights}
    slow = lambda weights, ranks, place: [w.name for w in weights]  # noqa: E731
    monkeypatch.setattr("onnxprune.pipelines.low_rank.slower_products", slow)
    with pytest.raises(GoalMissed, match="slower"):
        onnxprune.compress(DIGITS, **options)


def test_time_of_products_is_measured():
    """A product of rank 1 is far faster than a wide weight, and one of nearly full rank is slower."""
    net = Net()
    net.output(net.add("MatMul", net.input((256, 512)), net.weight(512, 512, name="w")))
    assert onnxprune.compress(net.proto(), ranks={"w": 16}).low_rank.weights[0].rank == 16
    with pytest.raises(GoalMissed, match="slower"):
        tiny = Net()
        tiny.output(tiny.add("MatMul", tiny.input((1, 16)), tiny.weight(16, 16, name="w")))
        onnxprune.compress(tiny.proto(), ranks={"w": 7})


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
