"""When units are chosen, at the same number of steps: the table of `--while-training` in docs/training.md.

    python -m tests.measure.while_training [--network NAME] [--removed 70] [--samples 256] [--steps 300]
                             [--ways once,rounds,soft,...] [--augment flip,shift] [--rate R] [--pictures 10000]

Needs the folder of shared models and data (see tests/graphs/shared.py). A budget on MACs says how much goes; the
original teaches, without labels. `once` cuts and repairs before all steps, `rounds` in three rounds of a third of them.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from onnxprune.allocation import Options
from onnxprune.model import load
from onnxprune.pipelines import prune
from onnxprune.recovery import RecoveryOptions, TrainingOptions
from tests.graphs import shared
from tests.measure import labelled

ROUNDS = 3


def row(way: str, given: argparse.Namespace) -> str:
    """One row of the table: a way, `way:criterion` with another criterion than the default one."""
    source = load(str(shared.entry(f"models/{given.network}").path))
    data = labelled.of(given.network, source, given.samples, given.pictures)
    name, _, criterion = way.partition(":")
    augment = [a for a in given.augment.split(",") if a]
    training = TrainingOptions(given.steps, rate=given.rate, augment=augment, patience=0, threads=given.threads)
    options = Options(macs=f"{100 - given.removed:g}%", **({"criterion": criterion} if criterion else {}))
    if name == "rounds":
        training, options = replace(training, steps=given.steps // ROUNDS), replace(options, steps=ROUNDS)
    elif name != "once":
        training = replace(training, while_training=name)
    start = time.process_time()
    outcome = prune.run(
        source, options, data=data.feeds, samples=given.samples, recovery=RecoveryOptions(train=training)
    )
    seconds, whole = time.process_time() - start, data.accuracy(source)
    found = data.accuracy(outcome.model)
    assert outcome.training is not None
    rates = "" if outcome.chosen is None else f"{outcome.chosen.rate:g}, "
    cells = (f"{outcome.training.before:.3g}", f"{outcome.training.after:.3g}", f"{rates}{outcome.training.rate:g}")
    return f"| `{way}` | {' | '.join(cells)} | {found:.2%} ({found / whole:.1%}) | {seconds:.0f} s |"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="cifar_resnet20_ts_op11")
    parser.add_argument("--removed", type=float, default=70)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--ways", default="once,rounds,soft,soft:l2,soft:movement,group-lasso,growing")
    parser.add_argument("--augment", default="flip,shift")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=10000)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    for way in given.ways.split(","):
        print(row(way, given), flush=True)


if __name__ == "__main__":
    main()
