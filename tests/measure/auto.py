"""`auto` against single verbs at the same budget: the table in docs/auto.md.

    python -m tests.measure.auto [--time 180] [--network NAME ...] [--costs size,latency] [--latency 60%]

The budget on the file is what `prune` leaves with its defaults (half of the units of every group), that on the time of
a run is given. All get the same 256 samples without labels (32 texts of the language model); what is shown is measured
on others: accuracy, or nats per token. Needs the folder of shared models and data (see tests/graphs/shared.py).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnxprune
from onnxprune.errors import OnnxPruneError
from onnxprune.model import Model, file_size, load
from onnxprune.runtime.bench import Place
from onnxprune.sparsity import measured_speed
from tests.graphs import shared
from tests.measure import labelled
from tests.measure.accuracy_text import NAME, cost, logits, stories

NETWORKS = (
    "mlperf_resnet8_cifar10",
    "cifar_resnet20_ts_op11",
    "mlperf_kws_dscnn",
    "marabou_selfattn_mnist",
    NAME,
)


@dataclass(frozen=True)
class Subject:
    """One network, what calibrates it, and how good a model is on other data.

    Attributes:
        source: the network.
        data: inputs without labels.
        measure: accuracy, or nats per token.
    """

    source: Model
    data: Any
    measure: Callable[[Model], float]


def subject(name: str, pictures: int, parser: argparse.ArgumentParser) -> Subject:
    """The network of this name."""
    if name == NAME:
        source, entry, calibrating, texts = stories(parser)
        return Subject(source, [{entry: calibrating}], lambda model: cost(logits(model, entry, texts), texts))
    source = load(str(shared.entry(f"models/{name}").path))
    data = labelled.of(name, source, 256, pictures)
    return Subject(source, data.feeds, data.accuracy)


def singles(kind: str, budget: str) -> Mapping[str, Callable[[Subject], Any]]:
    """Every verb alone, at a budget."""
    found: dict[str, Callable[[Subject], Any]] = {
        "prune": lambda of: onnxprune.prune(of.source, data=of.data, **{kind: budget}),
        "quantize": lambda of: onnxprune.quantize(of.source, data=of.data),
    }
    if kind == "size":
        found["compress"] = lambda of: onnxprune.compress(of.source, data=of.data, size=budget, allow_slower=True)
        found["sparsify"] = lambda of: onnxprune.sparsify(of.source, data=of.data, size=budget, storage="sparse")
    return found


def row(of: Subject, kind: str, what: str, make: Callable[[], Any]) -> str:
    """One line of the table."""
    begun = time.perf_counter()
    try:
        model = load(make().model)
    except OnnxPruneError as error:
        return f"| {kind} | {what} | {error.message[:60]} | | | {time.perf_counter() - begun:.0f} |"
    seconds = time.perf_counter() - begun
    size = file_size(model) / file_size(of.source)
    speed = measured_speed(of.source, model, Place()).ratio.value
    return f"| {kind} | {what} | {of.measure(model):.4f} | {size:.1%} | {speed:.1%} | {seconds:.0f} |"


def compare(name: str, of: Subject, given: argparse.Namespace) -> None:
    """Print what `auto` and single verbs give."""
    print(f"\n{name}: {of.measure(of.source):.4f}\n\n| budget | by | measured | file | time of a run | seconds |")
    print("|---|---|---|---|---|---|")
    default = onnxprune.prune(of.source, data=of.data)
    budgets = {"size": f"{file_size(load(default.model)) / file_size(of.source):.2%}", "latency": given.latency}
    print(row(of, "", "prune, by default", lambda: default), flush=True)
    for kind in given.costs.split(","):
        budget = budgets[kind]

        def search(kind: str = kind, budget: str = budget) -> Any:
            found = onnxprune.auto(of.source, of.data, time=given.time, **{kind: budget})
            for t in found.report.trials if given.trials else ():
                told = {name: round(t.values[name], 3) for name in ("top1", "sqnr") if name in t.values}
                cost = round(t.shares.get(kind, 1.0), 3)
                print(f"    {t.recipe} {t.share} n={t.samples} {t.training} {cost} {told} {t.seconds:.1f} {t.problem}")
            print(f"    {found.report.chosen.recipe}: {found.recipe}", flush=True)
            return found

        print(row(of, f"{kind} {budget}", "auto", search), flush=True)
        for verb, make in singles(kind, budget).items() if given.singles else ():
            print(row(of, f"{kind} {budget}", verb, lambda make=make: make(of)), flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", type=float, default=180)
    parser.add_argument("--network", action="append", choices=NETWORKS)
    parser.add_argument("--costs", default="size,latency")
    parser.add_argument("--latency", default="60%")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--no-singles", dest="singles", action="store_false", help="only `auto` and `prune` by default")
    parser.add_argument("--trials", action="store_true", help="print every trial")
    given = parser.parse_args()
    for name in given.network or NETWORKS:
        compare(name, subject(name, given.pictures, parser), given)


if __name__ == "__main__":
    main()
