"""What training gives back of what rounding took: the tables of training in docs/quantisation.md.

    python -m tests.measure.quantized_training [--bits 4,3] [--network NAME ...] [--samples 2000] [--steps 600]
                                               [--rate R] [--loss distil]
                                               [--nearest] [--texts 256] [--tokens 128] [--pictures 10000]

Classifiers: weights int4, a scale per output, activations uint8, as `onnxprune quantize --weights int4` writes them;
accuracy; trained from the fitted numbers, or with --nearest from the nearest. stories260K: weights symmetric, a scale
per output, trained on texts that the float model writes; nats per token on 32 texts that neither calibrate nor train.
The float original teaches, without labels. Needs the folder of shared models and data (see tests/graphs/shared.py).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from onnxprune.model import Model, load, to_proto
from onnxprune.pipelines.quantize import quantize_model
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.recovery import TrainingOptions
from onnxprune.rewriting import Removal
from onnxprune.tracing import trace
from tests.graphs import shared
from tests.measure import labelled
from tests.measure.accuracy_text import NAME, written
from tests.measure.quantized import of_text

NETWORKS = ("cifar_resnet20_ts_op11", "mlperf_resnet8_cifar10")


def trained(
    start: Model, teacher: Model, feeds: Any, options: TrainingOptions, measure: Callable[[Model], float]
) -> Iterator[tuple[str, float, str]]:
    """What training gives with scales as they are, and learned."""
    samples = len(next(iter(feeds[0].values())))
    for learns in (False, True):
        begin = time.process_time()
        given = TrainingOptions(**{**vars(options), "learn_scales": learns})
        model, done = learn(start, TrainingData(feeds, samples, teacher=teacher), given)
        what = f"trained, scales {'learned' if learns else 'as they are'}"
        yield (
            what,
            measure(model),
            f"rate {done.rate:g}, {done.best} of {done.steps}, {time.process_time() - begin:.0f} s",
        )


def of_classifier(name: str, given: argparse.Namespace) -> Iterator[tuple[str, float, str]]:
    """The rows of a classifier."""
    source = load(str(shared.entry(f"models/{name}").path))
    data = labelled.of(name, source, given.samples, given.pictures)
    yield "float", data.accuracy(source), ""
    for fit in (False,) if given.nearest else (False, True):
        made = quantize_model(
            source, QuantizeOptions(weights="int4", fit=fit), RunInputs(data.feeds, samples=256)
        ).model
        yield f"quantised, {'fitted' if fit else 'nearest numbers'}", data.accuracy(made), ""
    augment = ("flip", "shift") if "cifar" in name else ()
    optimizer = None if given.rate is None else "relative"
    options = TrainingOptions(
        given.steps, loss=given.loss, rate=given.rate, optimizer=optimizer, patience=0, augment=augment, threads=1
    )
    yield from trained(load(to_proto(made)), source, data.feeds, options, data.accuracy)


def of_stories(
    parser: argparse.ArgumentParser, bits: int, given: argparse.Namespace
) -> Iterator[tuple[str, float, str]]:
    """The rows of the language model."""
    corners = of_text(parser, bits)
    groups = trace(corners.source)
    yield "float", corners.measure(corners.source), ""
    nearest = corners.nearest(corners.source)
    yield "quantised, nearest numbers", corners.measure(nearest), ""
    made = nearest
    if not given.nearest:
        made = corners.fitted(Removal(groups, np.zeros(groups.classes.count, bool)), nearest)
        yield "quantised, fitted", corners.measure(made), ""
    (entry,) = corners.runs[0]
    texts = np.concatenate([run[entry] for run in corners.runs])
    feeds = [{entry: written(corners.source, entry, texts[:1, :1], (given.texts, given.tokens))}]
    options = TrainingOptions(given.steps, batch=16, temperature=1.0, patience=0, threads=1)
    yield from trained(load(to_proto(made)), corners.source, feeds, options, corners.measure)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", default="4,3")
    parser.add_argument("--network", action="append")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--loss", default="distil")
    parser.add_argument("--nearest", action="store_true")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--pictures", type=int, default=10_000)
    given = parser.parse_args()
    cases = [(f"{NAME}, {bits} bits", of_stories(parser, int(bits), given)) for bits in given.bits.split(",") if bits]
    cases += [(name, of_classifier(name, given)) for name in given.network or NETWORKS]
    for name, rows in cases:
        for what, value, how in rows:
            print(f"| {name} | {what} | {value:.4f} | {how} |", flush=True)


if __name__ == "__main__":
    main()
