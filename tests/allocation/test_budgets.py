"""Budgets: what people write, what is allocated, and that the model which is written keeps them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnxprune
from onnxprune import api, criteria
from onnxprune.allocation import Options
from onnxprune.allocation.amount import Amount, read_amount
from onnxprune.allocation.blockers import blocking_options
from onnxprune.allocation.fit_budgets import fit
from onnxprune.allocation.kinds import KINDS
from onnxprune.allocation.strategies import STRATEGIES, Limit, Problem, allocate
from onnxprune.cost import AxisLengths, functions
from onnxprune.cost import counts as cost
from onnxprune.cost.axis_lengths import units_in_order
from onnxprune.cost.functions import CostFunction
from onnxprune.criteria.normalize import accumulated
from onnxprune.errors import UsageError
from onnxprune.model import load
from onnxprune.tracing import Groups, trace
from onnxprune.typing import Array
from tests.cli.test_cli import Run, run
from tests.graphs.net import Net

__all__ = ["run"]

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


@pytest.mark.parametrize(
    ("kind", "text", "amount"),
    [
        ("macs", "50%", Amount(0.5, True)),
        ("macs", "2.1G", Amount(2.1e9)),
        ("params", "2m", Amount(2e6)),
        ("params", 12345, Amount(12345.0)),
        ("size", "20MB", Amount(2e7)),
        ("size", "1.5 MiB", Amount(1.5 * 2**20)),
        ("memory", "512KiB", Amount(2.0**19)),
        ("latency", "12ms", Amount(0.012)),
        ("latency", "60 %", Amount(0.6, True)),
        ("latency", 0.25, Amount(0.25)),
        ("latency", np.float32(0.25), Amount(0.25)),
    ],
)
def test_amounts(kind: str, text: Any, amount: Amount) -> None:
    found = read_amount(kind, KINDS[kind].unit, text)
    assert found.relative == amount.relative and found.value == pytest.approx(amount.value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("macs", "lots"), ("macs", "0"), ("macs", "-5"), ("macs", "120%"), ("macs", "12ms"), ("macs", "0.5"),
     ("size", "20"), ("latency", "12"), ("latency", "5MB"), ("size", ""), ("params", "nan"), ("params", float("nan")),
     ("macs", 0.5), ("size", 0.9), ("macs", "1e400"), ("size", "1e300 TiB"), ("latency", float("inf"))],
)  # fmt: skip
def test_what_is_no_amount(kind: str, text: Any) -> None:
    with pytest.raises(UsageError, match=f"{kind}: .* is not an amount") as caught:
        read_amount(kind, KINDS[kind].unit, text)
    assert "50%" in caught.value.hint


# --- allocation -------------------------------------------------------------------------------------------


class Table:
    """A cost that is looked up: any function of the counts."""

    def __init__(self, function: Callable[[Array], float]) -> None:
        self.total = function

    def along(self, counts: Array, group: int, menu: Array) -> Array:
        found = []
        for count in menu:
            other = counts.copy()
            other[group] = count
            found.append(self.total(other))
        return np.array(found)


def problem_of(units: list[int], measure: CostFunction, most: float, damage: list[Array], menus: Any = None) -> Problem:
    menus = menus or [np.arange(n) for n in units]
    values = [np.diff(d) for d in damage]
    return Problem(np.array(units), menus, values, damage, [Limit(measure, most)])


def chain_cost(counts: Array) -> float:
    """Layers between groups of 6, 8 and 5 units: 4 x a + a x b + b x c + c x 3."""
    a, b, c = np.array([6, 8, 5]) - counts
    return float(4 * a + a * b + b * c + c * 3)


def random_damage(rng: np.random.Generator, units: list[int]) -> list[Array]:
    return [np.concatenate([[0.0], np.cumsum(np.sort(rng.random(n)))]) for n in units]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_a_limit_holds_and_no_unit_can_be_given_back(strategy: str, share: float) -> None:
    units, measure = [6, 8, 5], Table(chain_cost)
    for seed in range(10):
        damage = random_damage(np.random.default_rng(seed), units)
        most = share * chain_cost(np.zeros(3))
        counts = allocate(problem_of(units, measure, most, damage), strategy)
        assert (counts >= 0).all() and (counts < units).all()
        assert chain_cost(counts) <= most
        for group in np.flatnonzero(counts):
            fewer = counts.copy()
            fewer[group] -= 1
            assert chain_cost(fewer) > most


def test_least_damage_is_close_to_the_best_there_is() -> None:
    """Against all allocations, over random damage: within a fifth on average, as a convex hull of menus can be."""
    units, most = [6, 8, 5], 0.4 * chain_cost(np.zeros(3))
    every = [np.array(c) for c in itertools.product(*(range(n) for n in units)) if chain_cost(np.array(c)) <= most]
    worse = {name: [] for name in STRATEGIES}
    for seed in range(20):
        damage = random_damage(np.random.default_rng(seed), units)

        def harm(counts: Array, damage: list[Array] = damage) -> float:
            return float(sum(d[n] for d, n in zip(damage, counts, strict=True)))

        best = min(map(harm, every))
        problem = problem_of(units, Table(chain_cost), most, damage)
        for name in STRATEGIES:
            worse[name].append(harm(allocate(problem, name)) / best)
    mean = {name: float(np.mean(found)) for name, found in worse.items()}
    assert mean["sensitivity"] < 1.2 and mean["greedy"] < 1.2
    assert mean["sensitivity"] < mean["uniform"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_menus_are_kept(strategy: str) -> None:
    """Widths that a kernel likes, and a group whose number was named."""
    units = [6, 8, 5]
    menus = [np.array([0, 2, 4]), np.array([3]), np.array([0, 1, 4])]
    damage = random_damage(np.random.default_rng(0), units)
    counts = allocate(problem_of(units, Table(chain_cost), 45, damage, menus), strategy)
    assert all(count in menu for count, menu in zip(counts, menus, strict=True))
    assert chain_cost(counts) <= 45


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_cannot_be_reached_is_as_little_as_can_be(strategy: str) -> None:
    units = [6, 8, 5]
    damage = random_damage(np.random.default_rng(0), units)
    assert allocate(problem_of(units, Table(chain_cost), 1, damage), strategy).tolist() == [5, 7, 4]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_several_limits_hold_together(strategy: str) -> None:
    units = [6, 8, 5]
    damage = random_damage(np.random.default_rng(2), units)
    sizes = Table(lambda counts: float((np.array(units) - counts)[0] * 10 + (np.array(units) - counts)[2]))
    problem = problem_of(units, Table(chain_cost), 70, damage)
    limits = [*problem.limits, Limit(sizes, 34)]
    counts = allocate(Problem(problem.units, problem.menus, problem.values, damage, limits), strategy)
    assert all(limit.holds(limit.measure.total(counts)) for limit in limits)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_half_of_nothing_is_no_limit(strategy: str) -> None:
    """A budget on MACs of a model that has none, alone and beside another."""
    units = [6, 8, 5]
    damage = random_damage(np.random.default_rng(1), units)
    nothing = problem_of(units, Table(lambda counts: 0.0), 0.0, damage)
    assert not allocate(nothing, strategy).any()
    limits = [*nothing.limits, Limit(Table(chain_cost), 45)]
    counts = allocate(replace(nothing, limits=limits), strategy)
    alone = allocate(problem_of(units, Table(chain_cost), 45, damage), strategy)
    assert counts.tolist() == alone.tolist()


def test_budgets_on_a_model_without_macs() -> None:
    net = Net()
    rows = net.add("Gather", net.weight(50, 16), net.input(["N"], dtype=TensorProto.INT64))
    net.output(net.listed("ReduceSum", net.add("Mul", rows, net.weight(16)), [1], since=13, keepdims=0), ["N"])
    for allocation in STRATEGIES:
        report = api.prune(net.model(), macs="50%", size="70%", allocation=allocation).report
        assert [goal.met for goal in report.goals] == [True, True] and report.before.macs == 0


def test_a_limit_that_holds_already_takes_nothing() -> None:
    damage = random_damage(np.random.default_rng(0), [6, 8, 5])
    for name in STRATEGIES:
        assert not allocate(problem_of([6, 8, 5], Table(chain_cost), 1e6, damage), name).any()


def test_damage_adds_up() -> None:
    assert accumulated(np.array([1.0, 3.0]), accumulates=False).tolist() == [0, 0.25, 1]
    assert accumulated(np.array([1.0, 3.0]), accumulates=True).tolist() == [0, 1, 3]
    assert accumulated(np.array([-1.0, 3.0]), accumulates=False).tolist() == [0, 0, 1]
    assert accumulated(np.empty(0), accumulates=False).tolist() == [0]


# --- models -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Groups:
    return trace(load(DIGITS))


@pytest.mark.parametrize("allocation", STRATEGIES)
@pytest.mark.parametrize("kind", ["params", "macs", "size", "memory"])
def test_budgets_are_met_from_below_to_within_one_unit(digits: Groups, kind: str, allocation: str) -> None:
    scores = criteria.score(digits, "l2")
    found = fit(digits, scores, Options(**{kind: "50%"}, allocation=allocation))
    (goal,) = found.goals
    assert goal.met and goal.most == pytest.approx(goal.before / 2)
    widths = AxisLengths(digits, {g.name: units_in_order(g, scores) for g in digits.groups})
    counts = np.array([len(found.removed.get(g.name, ())) * g.units // len(g.classes) for g in digits.groups])
    measure = {"params": functions.params, "macs": functions.macs, "size": functions.size, "memory": functions.memory}[
        kind
    ]
    cost_of = measure(widths)
    off = goal.reached - cost_of.total(counts)
    for group in np.flatnonzero(counts):
        assert cost_of.along(counts, group, counts[group : group + 1] - 1)[0] + off > goal.most


@pytest.mark.parametrize("kind", ["params", "size"])
def test_the_file_keeps_the_budget(kind: str, tmp_path: Path) -> None:
    result = onnxprune.prune(DIGITS, **{kind: "40%"})
    path = tmp_path / "small.onnx"
    onnx.save(result.model, path)
    if kind == "size":
        assert path.stat().st_size <= 0.4 * DIGITS.stat().st_size
    else:
        assert cost.of(load(path)).params <= 0.4 * cost.of(load(DIGITS)).params
    assert result.report.verdict is not None and result.report.verdict.ok


def test_a_bias_that_the_repair_adds_counts(tmp_path: Path) -> None:
    """Layers without a bias get one: the budget still holds for what is written."""
    net = Net()
    x = net.add("Relu", net.add("Conv", net.input([1, 3, 9, 9], name="x"), net.weight(12, 3, 3, 3)))
    for _ in range(3):
        x = net.add("Relu", net.add("Conv", x, net.weight(12, 12, 3, 3)))
    net.output(net.add("Conv", x, net.weight(40, 12, 1, 1)))
    model = load(net.proto())
    data = [{"x": np.random.default_rng(i).normal(size=(1, 3, 9, 9)).astype(np.float32)} for i in range(96)]
    before = cost.of(model).params
    outcome = api.run(model, Options(params=before // 2), data=data)
    (goal,) = outcome.goals
    assert outcome.recovery is not None and outcome.recovery.kept
    assert any(len(n.input) == 3 for n in outcome.model.proto.graph.node if n.op_type == "Conv")
    assert goal.reached == outcome.after.params == cost.of(outcome.model).params
    assert goal.met


def test_a_ratio_and_a_budget_both_hold(digits: Groups) -> None:
    scores = criteria.score(digits, "l2")
    both = fit(digits, scores, Options(ratio=0.25, macs="90%", allocation="global"))
    total = sum(g.units for g in digits.groups)
    assert sum(map(len, both.removed.values())) >= int(0.25 * total)
    tight = fit(digits, scores, Options(ratio=0.25, macs="30%", allocation="global"))
    assert tight.met and sum(map(len, tight.removed.values())) > sum(map(len, both.removed.values()))


def test_rounding_holds_with_a_budget(digits: Groups) -> None:
    found = fit(digits, criteria.score(digits, "l2"), Options(macs="40%", round_to=8))
    assert found.met and found.removed
    assert all(len(found.removed.get(g.name, ())) % 8 == 0 for g in digits.groups if g.units % 8 == 0)


def test_the_plan_of_a_budget_is_what_is_pruned() -> None:
    plan = onnxprune.make_plan(DIGITS, macs="50%")
    assert onnxprune.prune(DIGITS, macs="50%").plan.steps == plan.steps


# --- command line -----------------------------------------------------------------------------------------


def test_prune_to_budgets(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    done = run("prune", str(DIGITS), "-o", str(out), "--macs", "50%", "--size", "300kB", "--json")
    assert done.code == 0, done.err
    found = {b["kind"]: b for b in json.loads(done.out)["budgets"]}
    assert set(found) == {"macs", "size"} and all(b["met"] for b in found.values())
    assert found["size"]["reached"] == out.stat().st_size <= 300_000


def test_a_budget_that_cannot_be_met_is_written_and_said(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    done = run("prune", str(DIGITS), "-o", str(out), "--params", "1k")
    assert done.code == 1
    assert "params: 1.0 k was asked for, the least that can be reached is" in done.err
    assert "--max-ratio" in done.err
    assert "MISSED" in done.out
    assert 1000 < cost.of(load(out)).params < 5000


@pytest.mark.parametrize(
    ("given", "named", "silent"),
    [
        ((), ["with --max-ratio 0.999"], ["--round-to", "--keep"]),
        (("--max-ratio", "0.999"), [], ["--max-ratio", "can be reached"]),
        (("--round-to", "32"), ["with --round-to 1"], ["--keep"]),
        (("--keep", "conv_1*"), ["without --keep", "with --max-ratio 0.999"], ["--only"]),
        (("--only", "fc*", "--exact-only"), ["without --only"], ["--exact-only"]),
        (("--ratio-for", "conv_1*=0.1"), ["without --ratio-for"], ["--keep"]),
        (
            ("--round-to", "64", "--max-ratio", "0.1"),
            ["with --round-to 1", "with --max-ratio 0.999"],
            ["without --keep"],
        ),
    ],
)
def test_what_holds_a_budget_up_is_named(run: Run, given: tuple[str, ...], named: list[str], silent: list[str]) -> None:
    """And what is said to be reached without it is."""
    ask = ("plan", str(DIGITS), "--params", "10")
    hint = run(*ask, *given).err.splitlines()[1]
    assert all(text in hint for text in named) and not any(text in hint for text in silent), hint
    assert "of the weights are locked" in hint
    for text in named:
        how, option, *_ = text.split()
        kept = given[: given.index(option)] + given[given.index(option) + 2 :] if option in given else given
        reached = re.search(r"\(([0-9.]+) ?%\)", run(*ask, *kept, *(text.split()[1:] if how == "with" else ())).err)
        figure = re.search(rf"([0-9.]+) ?% can be reached {text}", hint)
        assert figure and reached and abs(float(figure[1]) - float(reached[1])) < 0.2


def test_options_that_only_together_hold_a_budget_up_are_named_together() -> None:
    groups = onnxprune.trace(DIGITS)
    options = Options(params="1k", round_to=512, max_ratio=0.01)
    assert set(blocking_options(groups, options, "params")) == {("round_to", "max_ratio")}


def test_a_plan_says_which_budget_is_missed(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    done = run("plan", str(DIGITS), "-o", str(out), "--params", "1k")
    assert done.code == 1
    assert "params: 1.0 k was asked for, the least that can be reached is" in done.err
    assert "MISSED" in done.out
    assert "budget" in run("plan", str(DIGITS), "-o", str(out), "--params", "50%", "--force").out
    assert run("apply", str(DIGITS), str(out), "-o", str(tmp_path / "small.onnx")).code == 0


def test_a_budget_is_read_before_any_work() -> None:
    with pytest.raises(UsageError, match="macs: 'lots' is not an amount"):
        Options(0.5, macs="lots")


def test_a_budget_that_is_no_amount(run: Run, tmp_path: Path) -> None:
    done = run("prune", str(DIGITS), "-o", str(tmp_path / "o.onnx"), "--size", "20")
    assert done.code == 2
    assert "size: '20' is not an amount" in done.err and "20MB" in done.err
