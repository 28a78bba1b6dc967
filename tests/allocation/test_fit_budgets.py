"""Budgets hold for the model that is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import api, criteria
from onnxprune.allocation import Options
from onnxprune.allocation.fit_budgets import fit
from onnxprune.allocation.strategies import STRATEGIES
from onnxprune.cost import AxisLengths, functions
from onnxprune.cost import counts as cost
from onnxprune.cost.axis_lengths import units_in_order
from onnxprune.errors import UsageError
from onnxprune.model import load
from onnxprune.tracing import Groups, trace
from tests.cli.conftest import Run, run
from tests.graphs.net import Net

__all__ = ["run"]

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


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
