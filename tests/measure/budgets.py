"""How close budgets are hit: the tables in docs/budgets.md.

    python -m tests.measure.budgets [--model GLOB ...] [--allocation uniform] [--left 75,50,25] [--write
    docs/budgets.md] python -m tests.measure.budgets --speed

Needs the folder of shared models (see tests/graphs/shared.py). For every trained model and each of params, bytes and
MACs the budget is a share of the original. What is reached is that of the model as it is written; *one unit* is the
least that giving a unit back to a group would add. A budget is hit if it holds and less than one unit is left over.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune import criteria
from onnxprune.allocation import BudgetResult, Options, Selection, kinds
from onnxprune.allocation.fit_budgets import fit
from onnxprune.allocation.strategies import STRATEGIES, Limit, Problem, allocate
from onnxprune.cost import AxisLengths, functions
from onnxprune.cost.axis_lengths import units_in_order
from onnxprune.errors import OnnxPruneError
from onnxprune.model import load
from onnxprune.tracing import Groups, trace
from tests.graphs import shared

KINDS = ("params", "size", "macs")
HEADER = "| model | budget | asked | reached | one unit | |\n|---|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Row:
    """One budget on one model; shares are of the original."""

    model: str
    kind: str
    asked: float
    reached: float
    unit: float
    verdict: str

    def __str__(self) -> str:
        cells = (f"{self.asked:.0%}", f"{self.reached:.2%}", f"{self.unit:.2%}", self.verdict)
        return f"| {self.model} | {self.kind} | {' | '.join(cells)} |"


def rows(name: str, allocation: str, shares: list[float]) -> Iterator[Row]:
    """Every budget on one model."""
    with shared.materialised(shared.entry(name)) as path:
        groups = trace(load(str(path)))
    try:
        scores = criteria.score(groups, "l2")
        for kind in KINDS:
            for share in shares:
                options = Options(**{kind: f"{100 * share:g}%"}, allocation=allocation)
                found = fit(groups, scores, options)
                goal, unit = found.goals[0], one_unit(groups, scores, found)
                yield Row(
                    name, kind, share, goal.reached / goal.before, unit / goal.before, verdict(groups, goal, unit)
                )
    except OnnxPruneError as error:
        yield Row(name, "-", 0, 1, 0, error.message)


def one_unit(groups: Groups, scores: np.ndarray, found: Selection) -> float:
    """The least that giving one unit back would add; nothing if no group lost any."""
    widths = AxisLengths(groups, {g.name: units_in_order(g, scores) for g in groups.groups})
    counts = np.array([len(found.removed.get(g.name, ())) * g.units // len(g.classes) for g in groups.groups])
    measure = kinds.KINDS[found.goals[0].kind].cost(widths)
    now = measure.total(counts)
    added = [measure.along(counts, g, counts[g : g + 1] - 1)[0] - now for g in np.flatnonzero(counts)]
    return float(min(added, default=0.0))


def verdict(groups: Groups, goal: BudgetResult, unit: float) -> str:
    """What to say of a budget."""
    spare = goal.most - goal.reached
    if goal.met:
        return "hit" if spare < max(unit, 1.0) else f"{spare / unit:.1f} units left"
    held, total = groups.prunable
    reason = f"{1 - held / max(total, 1):.0%} of the weights are locked, no group loses over 90 %"
    if goal.kind == "size":
        reason += f", {1 - groups.model.nbytes / goal.before:.0%} of the file are no weights"
    return f"the least that can be reached: {reason}"


def speed() -> Iterator[str]:
    """Seconds to allocate on a made-up chain of groups: hundreds of groups, tens of widths and thousands of units."""
    yield "| groups | units each | strategy | seconds |\n|---|---|---|---|"
    for count, units in ((100, 64), (300, 64), (300, 1024)):
        problem = _chain(count, units)
        for name in STRATEGIES:
            start = time.perf_counter()
            counts = allocate(problem, name)
            seconds = time.perf_counter() - start
            assert problem.holds(counts)
            yield f"| {count} | {units} | {name} | {seconds:.2f} |"


def _chain(count: int, units: int) -> Problem:
    """A chain of layers between groups, with a budget of half of its products."""
    from tests.graphs.net import Net

    net = Net()
    x, size = net.input([1, 8]), 8
    for _ in range(count):
        x, size = net.add("Relu", net.add("MatMul", x, net.weight(size, units))), units
    net.output(net.add("MatMul", x, net.weight(size, 4)))
    groups = trace(load(net.proto()))
    scores = criteria.score(groups, "l2")
    order = {g.name: units_in_order(g, scores) for g in groups.groups}
    macs = functions.macs(AxisLengths(groups, order))
    rng = np.random.default_rng(0)
    damage = [np.concatenate([[0.0], np.cumsum(np.sort(rng.random(units)) * rng.lognormal())]) for _ in range(count)]
    limit = Limit(macs, macs.total(np.zeros(count, np.int64)) / 2)
    return Problem(np.full(count, units), [np.arange(units)] * count, [np.diff(d) for d in damage], damage, [limit])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append")
    parser.add_argument("--allocation", default="uniform")
    parser.add_argument("--left", default="75,50,25")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    if given.speed:
        for line in speed():
            print(line, flush=True)
        return
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    shares = [float(share) / 100 for share in given.left.split(",")]
    found: list[Row] = []
    for entry in shared.entries(*(given.model or ["models/*"])):
        for row in rows(entry.name, given.allocation, shares):
            found.append(row)
            print(row, flush=True)
    tried = [row for row in found if row.kind != "-"]
    hit = sum(row.verdict == "hit" for row in tried)
    print(f"{hit} of {len(tried)} budgets hit, {len(found) - len(tried)} models without a group")
    if given.write:
        table = f"{hit} of {len(tried)} budgets are hit.\n\n" + HEADER + "\n".join(map(str, found)) + "\n"
        text = given.write.read_text(encoding="utf-8")
        text = re.sub(r"(?s)(<!-- table -->\n).*?(?=\n## |\Z)", lambda start: start[1] + table, text)
        given.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
