"""What exchanges of units between groups give: the table in docs/accuracy.md.

    python -m tests.measure.exchanges [--network NAME ...] [--removed 30,50,70] [--exchanges 0,40] [--samples 256]
                                      [--seeds 0] [--pictures 10000]

Needs the folder of shared models and data (see tests/graphs/shared.py, and tests/measure/labelled.py for what
calibrates and what judges). A seed takes other calibration samples.
"""

from __future__ import annotations

import argparse
import itertools
import time

from onnxprune.allocation import Options
from onnxprune.model import load
from onnxprune.pipelines import prune
from tests.graphs import shared
from tests.measure import labelled

NETWORKS = ("mlperf_resnet8_cifar10", "cifar_resnet20_ts_op11")


def rows(name: str, given: argparse.Namespace) -> None:
    """Print a row per share, seed and number of exchanges."""
    source = load(str(shared.entry(f"models/{name}").path))
    seeds = [int(seed) for seed in given.seeds.split(",")]
    data = labelled.of(name, source, (max(seeds) + 1) * given.samples, given.pictures)
    whole = data.accuracy(source)
    for removed, seed, count in itertools.product(
        map(float, given.removed.split(",")), seeds, map(int, given.exchanges.split(","))
    ):
        start = time.process_time()
        part = data.calibration[seed * given.samples : (seed + 1) * given.samples]
        options = Options(macs=f"{100 - removed:g}%", exchanges=count)
        done = prune.run(source, options, data=[{data.entry: part}], samples=given.samples, verify=False)
        seconds, after = time.process_time() - start, data.accuracy(done.model)
        cells = (f"{removed:g} %", str(seed), str(count), f"{after:.2%}", f"{after / whole:.1%}", f"{seconds:.0f} s")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append")
    parser.add_argument("--removed", default="30,50,70")
    parser.add_argument("--exchanges", default="0,40")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--pictures", type=int, default=10000)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    print("| network | removed | seed | exchanges | accuracy | of the original | CPU seconds |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in given.network or NETWORKS:
        rows(name, given)


if __name__ == "__main__":
    main()
