"""What criteria, allocations and repairs leave of the accuracy of trained networks: the tables in docs/accuracy.md.

    python -m tests.measure.accuracy [--network NAME ...] [--criteria l2,obs] [--recover none,least-squares]
                             [--removed 30,50,70] [--samples 256] [--random] [--allocation uniform,sensitivity]
                             [--pictures 10000]

Needs the folder of shared models and data (see tests/graphs/shared.py, and tests/measure/labelled.py for what
calibrates and what judges; `--pictures` judges by fewer, drawn with seed 0). A budget on MACs says how much goes.
Without samples (0) the repair is that without data; with --random the samples are random numbers, which
BatchNormalization's statistics are matched to.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence

from onnxprune import calibration, criteria
from onnxprune.allocation import Options
from onnxprune.allocation.fit_budgets import fit
from onnxprune.layers import bn_matching
from onnxprune.model import Model, load
from onnxprune.recovery import RecoveryOptions, recover, recover_without_data
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import Groups, trace
from onnxprune.typing import Feeds
from tests.graphs import shared
from tests.measure import labelled

NETWORKS = ("cifar_resnet20_ts_op11", "cifar_resnet32_ts_op13_bn", "cifar_resnet56_dynamo_op20")


def repaired(removal: Removal, small: Model, runs: Sequence[Feeds], matched: Groups, method: str) -> Model:
    """The model after a repair, with data or without."""
    if method == "none":
        return small
    if runs:
        return recover(removal, small, runs, RecoveryOptions(method), matched=matched)[0]
    return recover_without_data(removal, small, method)


def rows(name: str, given: argparse.Namespace) -> None:
    """Print a row per criterion, allocation, share and repair; without samples there is no repair."""
    source = load(str(shared.entry(f"models/{name}").path))
    data = labelled.of(name, source, given.samples, given.pictures)
    inputs = "random" if given.random else data.feeds
    runs = calibration.read(inputs, source, samples=given.samples) if given.samples else []
    groups = trace(source)
    matched = bn_matching.stand_in(groups, runs) if given.random else groups
    whole = data.accuracy(source)
    print(f"{name}: {whole:.2%}", flush=True)
    for criterion in given.criteria.split(","):
        scores = criteria.score(matched, criterion, 0, runs)
        for allocation, share in itertools.product(given.allocation.split(","), map(float, given.removed.split(","))):
            chosen = fit(groups, scores, Options(criterion=criterion, allocation=allocation, macs=f"{100 - share}%"))
            goal, removal = chosen.goals[0], Removal(groups, removed_classes(groups, chosen.removed))
            small = rewrite(groups, removal.removed_classes)
            for method in given.recover.split(","):
                start = time.perf_counter()
                model = repaired(removal, small, runs, matched, method)
                seconds = time.perf_counter() - start
                found = data.accuracy(model)
                removed = 1 - goal.reached / goal.before
                cells = (f"{removed:.1%}", f"{found:.2%}", f"{found / whole:.1%}", f"{seconds:.0f} s")
                print(f"| {name} | {criterion} | {allocation} | {method} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append")
    parser.add_argument("--criteria", default="l2,obs")
    parser.add_argument("--recover", default="none,least-squares")
    parser.add_argument("--removed", default="30,50,70")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--random", action="store_true", help="random numbers, not pictures")
    parser.add_argument("--allocation", default="uniform,sensitivity")
    parser.add_argument("--pictures", type=int, default=10000)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    for name in given.network or NETWORKS:
        rows(name, given)


if __name__ == "__main__":
    main()
