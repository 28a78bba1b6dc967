"""What choosing and repairing with data costs: time as a multiple of plain inference, and memory.

    python -m tests.measure.recovery_cost [--network ts/tv_resnet50 ...] [--samples 256] [--macs 50%] [--profile 20]
                                          [--picture docs/pictures/cost.svg]

Needs the folder of shared graphs (see tests/graphs/shared.py); a network without a folder is one of its models, as
`cifar_resnet20_ts_op11`. Inputs are random: what they show does not change the work. Plain inference is one run of
every sample through the original in ONNX Runtime, in batches as calibration runs them. Multiples are of processor
seconds, which other work on the machine changes least; the clock is beside them. With `--profile`, the functions that
took most time are listed, with all that they called; `--picture` draws the calls of choosing and repairing.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

from onnxprune import calibration, criteria
from onnxprune.allocation import Options
from onnxprune.allocation.fit_budgets import fit
from onnxprune.model import Model, load
from onnxprune.recovery import recover
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Session
from onnxprune.tracing import trace
from tests.graphs import shared
from tests.measure import flames

NETWORKS = ("ts/tv_resnet50", "ts/tv_mobilenet_v2", "ts/tv_vit_b_16", "ts/hf_bert_base")
# Sizes of axes that the graphs leave open.
SIZES = {"seq": 128}
Made = TypeVar("Made")


class Stages:
    """Rows of a table, a stage each; the first is what the others are multiples of."""

    def __init__(self, profile: int) -> None:
        """List so many functions of every stage."""
        self._profile, self._plain = profile, 0.0
        self.stacks: dict[str, Counter[flames.Stack]] = {}
        print("| | processor | of plain inference | clock | peak memory |\n|---|---|---|---|---|")

    def run(self, stage: str, work: Callable[[], Made]) -> Made:
        """Do the work of a stage, and print its row."""
        profiler = cProfile.Profile() if self._profile else nullcontext()
        start, clock = time.process_time(), time.perf_counter()
        with profiler, flames.watched() as self.stacks[stage]:
            made = work()
        taken, waited = time.process_time() - start, time.perf_counter() - clock
        self._plain = self._plain or taken
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"| {stage} | {taken:.1f} s | {taken / self._plain:.1f} x | {waited:.1f} s | {peak:.2f} GiB |", flush=True
        )
        if isinstance(profiler, cProfile.Profile):
            pstats.Stats(profiler).sort_stats("cumtime").print_stats("onnxprune|built-in", self._profile)
        return made


def measure(model: Model, given: argparse.Namespace, sizes: Mapping[str, int]) -> None:
    """Print the table of a model."""
    runs = calibration.read("random", model, samples=given.samples, sizes=sizes)
    stages = Stages(given.profile)

    def plain() -> None:
        with Session(model) as session:
            for feeds in runs:
                session.run(feeds)

    stages.run("plain inference", plain)
    groups = trace(model, sizes=sizes)
    scores = stages.run("scores (`obs`, weighed between groups)", lambda: criteria.score(groups, "obs", 0, runs))
    chosen = fit(groups, scores, Options(criterion="obs", macs=given.macs))
    removal = Removal(groups, removed_classes(groups, chosen.removed))
    small = rewrite(groups, removal.removed_classes)
    stages.run("repair (`least-squares`, in sequence)", lambda: recover(removal, small, runs))
    if given.picture:
        given.picture.write_text(flames.drawn([*stages.stacks.items()][1:]))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--macs", default="50%")
    parser.add_argument("--profile", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    for name in given.network or NETWORKS:
        with shared.materialised(shared.entry(name if "/" in name else f"models/{name}")) as path:
            model = load(str(path))
            known = {d.dim_param for v in model.proto.graph.input for d in v.type.tensor_type.shape.dim}
            print(f"\n{name}, {given.samples} samples, {model.nbytes / 2**30:.2f} GiB of weights\n", flush=True)
            measure(model, given, {axis: size for axis, size in SIZES.items() if axis in known})


if __name__ == "__main__":
    main()
