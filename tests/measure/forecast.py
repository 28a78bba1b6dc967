"""What `inspect --what-if --time` expects, against models that were made and timed: a table in docs/budgets.md.

    python -m tests.measure.forecast [--model NAME ...] [--ratios 30,50,70] [--busy]

Needs the folder of shared models (see tests/graphs/shared.py), and a machine that does nothing else; with --busy, the
time is what the processor spends on one thread, which is near enough where others work, too. The shares of the time
that ratios leave are forecast; then models are pruned by them, and timed in turn with the original.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from onnxprune.allocation import Options
from onnxprune.allocation.forecast import forecast
from onnxprune.model import Model, load
from onnxprune.pipelines.prune import run
from onnxprune.runtime import Setting, paired_timing
from onnxprune.runtime.bench import Place, candidate, feeds_of
from onnxprune.tracing import trace
from tests.graphs import shared
from tests.measure.latency import count_own_time

NETWORKS = (
    *("models/cifar_resnet20_ts_op11", "models/cifar_resnet56_dynamo_op20", "models/mlperf_resnet8_cifar10"),
    *("models/keras_mobilenetv1_025_224", "models/ultraface_rfb320", "dynamo/tv_mobilenet_v2"),
    *("dynamo/tv_resnet18", "ts/hf_deit_tiny"),
)
HEAD = "| network | original | {} | largest error |"


def measured(model: Model, small: Model, place: Place) -> float:
    """The share of the original's time that a model takes."""
    feeds = feeds_of(model, place)
    candidates = [candidate(one, place.setting, feeds) for one in (model, small)]
    return paired_timing.compare_timings(candidates, seconds=1.0).ratio(1).value


def row(name: str, model: Model, ratios: Sequence[float], place: Place) -> str:
    """What was expected and measured of one network."""
    whole, *expected = forecast(trace(model), ratios, place, lambda stage: None)
    assert whole.seconds is not None
    cells, worst = [], 0.0
    for ratio, left in zip(ratios, expected, strict=True):
        assert left.seconds is not None
        small = run(model, Options(ratio=ratio, criterion="l2"), verify=False).model
        told, found = left.seconds / whole.seconds, measured(model, small, place)
        worst = max(worst, abs(told / found - 1))
        cells.append(f"{100 * told:.1f} %, {100 * found:.1f} %")
    return f"| {name.partition('/')[2]} | {1e3 * whole.seconds:.2f} ms | {' | '.join(cells)} | {100 * worst:.1f} % |"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append")
    parser.add_argument("--ratios", default="30,50,70")
    parser.add_argument("--busy", action="store_true")
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    if given.busy:
        count_own_time()
    ratios = [float(text) / 100 for text in given.ratios.split(",")]
    print(HEAD.format(" | ".join(f"{ratio:.0%} removed" for ratio in ratios)), flush=True)
    for name in given.model or NETWORKS:
        with shared.materialised(shared.entry(name)) as path:
            print(row(name, load(str(path)), ratios, Place(Setting(threads=1))), flush=True)


if __name__ == "__main__":
    main()
