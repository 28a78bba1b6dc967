"""Accuracy against measured time, and against MACs, for every allocation: the tables in docs/latency.md.

    python -m tests.measure.accuracy_latency [--network NAME ...] [--amounts 70,50,30] [--threads 1] [--write]

Needs the folder of shared models and data (see tests/graphs/shared.py), and a machine that does nothing else. Pictures
and accuracy are those of `python -m tests.measure.accuracy`; scores (obs) and repair (least squares) are the same
everywhere. The time is measured in turn with the original's, whatever the budget is on.
"""

from __future__ import annotations

import argparse
import itertools
import re
from pathlib import Path

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.allocation.strategies import STRATEGIES
from onnxprune.model import load
from onnxprune.runtime import Setting
from onnxprune.runtime.bench import Place
from tests.graphs import shared
from tests.measure import labelled

PAGE = Path(__file__).parents[2] / "docs" / "latency.md"
NETWORKS = ("cifar_resnet20_ts_op11", "mlperf_resnet8_cifar10")
SAMPLES = 256
HEAD = "| network | budget | allocation | time left | MACs left | accuracy |\n|---|---|---|---|---|---|"


def row(name: str, budget: str, allocation: str, threads: int) -> str:
    """A line of the table: one network under one budget such as 'latency 50%'."""
    source = load(str(shared.entry(f"models/{name}").path))
    data = labelled.of(name, source, SAMPLES)
    kind, _, amount = budget.partition(" ")
    done = api.run(
        source,
        Options(allocation=allocation, **{kind: amount}),
        data=data.feeds,
        samples=SAMPLES,
        place=Place(Setting(threads=threads)),
    )
    assert done.timed is not None
    share = done.timed.ratio.value
    found = data.accuracy(done.model)
    left = done.after.macs / done.before.macs
    return f"| {name} | {budget} | `{allocation}` | {share:.1%} | {left:.1%} | {found:.2%} |"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append")
    parser.add_argument("--amounts", default="70,50,30")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    budgets = [f"{kind} {amount}%" for amount in given.amounts.split(",") for kind in ("latency", "macs")]
    rows = [HEAD]
    for name, budget, allocation in itertools.product(given.network or NETWORKS, budgets, STRATEGIES):
        rows.append(row(name, budget, allocation, given.threads))
        print(rows[-1], flush=True)
    if given.write:
        mark, table = "<!-- accuracy -->", "\n".join(rows)
        text = PAGE.read_text(encoding="utf-8")
        text = re.sub(rf"{mark}.*?<!-- end -->", f"{mark}\n{table}\n<!-- end -->", text, flags=re.DOTALL)
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
