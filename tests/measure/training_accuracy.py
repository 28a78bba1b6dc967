"""What gradient steps give back after a cut and its repair: the table of training in docs/accuracy.md.

    python -m tests.measure.training_accuracy [--network NAME ...] [--removed 30,50,70] [--samples 256,2000]
                             [--steps 300] [--seeds 0] [--augment flip,shift] [--rate R] [--temperature T]
                             [--loss cross-entropy] [--pictures 10000] [--kept FOLDER]

Needs the folder of shared models and data (see tests/graphs/shared.py, and tests/measure/labelled.py for what trains
and what judges). A budget on MACs says how much goes; criterion, allocation and repair are the defaults. The original
teaches, without labels; with `--loss cross-entropy` labels do. `--kept` keeps cut models, so that trainings can be
compared on the same cut.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

from onnxprune.allocation import Options
from onnxprune.model import Model, load, save
from onnxprune.pipelines import prune
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.recovery.training_options import TrainingOptions
from tests.graphs import shared
from tests.measure import labelled

NETWORKS = ("cifar_resnet20_ts_op11", "mlperf_resnet8_cifar10")


def cut(name: str, source: Model, data: labelled.Labelled, removed: float, kept: Path | None) -> Model:
    """The model without a share of its MACs, repaired."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
    path = None if kept is None else kept / f"{name}_{removed:g}_{len(data.calibration)}.onnx"
    if path is not None and path.exists():
        return load(path)
    samples = len(data.calibration)
    small = prune.run(source, Options(macs=f"{100 - removed:g}%"), data=data.feeds, samples=samples, verify=False).model
    if path is not None:
        save(small, path)
    return small


def examples_of(data: labelled.Labelled, teacher: Model, loss: str) -> TrainingData:
    """The calibration inputs, with what a loss learns from: the original's outputs, or labels."""
    if loss == "cross-entropy":
        given = [{data.entry: data.calibration, "label": data.classes}]
        return TrainingData(given, samples=len(data.calibration), labels="label")
    return TrainingData(data.feeds, samples=len(data.calibration), teacher=teacher)


def rows(name: str, given: argparse.Namespace) -> None:
    """Print a row per share, number of samples and seed."""
    source = load(str(shared.entry(f"models/{name}").path))
    for samples, removed in itertools.product(map(int, given.samples.split(",")), map(float, given.removed.split(","))):
        data = labelled.of(name, source, samples, given.pictures)
        whole, small = data.accuracy(source), cut(name, source, data, removed, given.kept)
        before = data.accuracy(small)
        for seed in map(int, given.seeds.split(",")):
            augment = [a for a in given.augment.split(",") if a]
            options = TrainingOptions(
                given.steps,
                loss=given.loss,
                optimizer=given.optimizer,
                rate=given.rate,
                batch=given.batch,
                augment=augment,
                temperature=given.temperature,
                seed=seed,
                threads=given.threads,
            )
            start = time.process_time()
            examples = examples_of(data, source, given.loss)
            model, done = learn(small, examples, options, progress=lambda said: print(said, flush=True))
            seconds, after = time.process_time() - start, data.accuracy(model)
            cells = (f"{removed:g} %", str(samples), f"{before:.2%} ({before / whole:.1%})")
            cells += (f"**{after:.2%} ({after / whole:.1%})**", f"{done.rate:g}", f"{done.best} of {done.steps}")
            print(f"| {name} | {' | '.join(cells)} | {seed} | {seconds:.0f} s |", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append")
    parser.add_argument("--removed", default="30,50,70")
    parser.add_argument("--samples", default="256,2000")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--augment", default="flip,shift")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--optimizer")
    parser.add_argument("--loss", default="distil")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=10000)
    parser.add_argument("--kept", type=Path)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    for name in given.network or NETWORKS:
        rows(name, given)


if __name__ == "__main__":
    main()
