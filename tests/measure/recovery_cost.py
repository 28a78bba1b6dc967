"""What choosing and repairing with data costs: time as a multiple of plain inference, and memory.

    python -m tests.measure.recovery_cost [--network ts/tv_resnet50] [--samples 256] [--macs 50%]

Needs the folder of shared graphs (see tests/graphs/shared.py). Inputs are random: what they show does not change the
work. Plain inference is one run of every sample through the original in ONNX Runtime, one at a time, as calibration
runs it.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from onnxprune import calibration, criteria
from onnxprune.allocation import Options
from onnxprune.allocation.fit_budgets import fit
from onnxprune.model import load
from onnxprune.recovery import recover
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Session
from onnxprune.tracing import trace
from tests.graphs import shared


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="ts/tv_resnet50")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--macs", default="50%")
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    with shared.materialised(shared.entry(given.network)) as path:
        model = load(str(path))
        (entry,) = [v for v in model.proto.graph.input if v.name not in model.initializers]
        shape = [d.dim_value or 1 for d in entry.type.tensor_type.shape.dim][1:]
        rng = np.random.default_rng(0)
        images = rng.standard_normal((given.samples, *shape), np.float32)
        runs = calibration.read([{entry.name: images}], model, samples=given.samples)
        start = time.perf_counter()
        with Session(model) as session:
            for feeds in runs:
                session.run(feeds)
        plain = time.perf_counter() - start

        def told(stage: str, started: float) -> None:
            seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"| {stage} | {seconds:.1f} s | {seconds / plain:.1f} x | {peak:.2f} GiB |", flush=True)

        print(f"{given.network}, {given.samples} samples\n")
        print("| | time | of plain inference | peak memory |\n|---|---|---|---|")
        told("plain inference", start)
        groups, start = trace(model), time.perf_counter()
        scores = criteria.score(groups, "obs", 0, runs)
        told("scores (`obs`)", start)
        chosen = fit(groups, scores, Options(criterion="obs", macs=given.macs))
        removal = Removal(groups, removed_classes(groups, chosen.removed))
        small, start = rewrite(groups, removal.removed_classes), time.perf_counter()
        recover(removal, small, runs)
        told("repair (least squares, in sequence)", start)


if __name__ == "__main__":
    main()
