"""What dropping layers costs trained models, and whether real graphs lose their blocks: the tables in docs/drop.md.

    python -m tests.measure.drop text
    python -m tests.measure.drop pictures [--network cifar_resnet20_ts_op11] [--counts 1,2,3]
    python -m tests.measure.drop graphs [--names 'ts/hf_bert*,...'] [--data]
    python -m tests.measure.drop together [--network NAME] [--budgets macs=50%,latency=60%]

`text`: stories260K (Llama, five layers), 32 of its texts calibrate, and what the other 32 cost is measured (nats per
token). `pictures`: accuracy of a CIFAR-10 network against the number of blocks dropped, by criterion, with and
without the repair; 256 pictures calibrate, 10,000 test pictures judge, or `--judging` of them. `graphs`: a quarter of
the blocks of graphs of the zoo, with drawn weights: is the result valid and equal to the reference, and are the
weights gone. `together`: `prune --drop` beside `prune` under the same budgets, for a CIFAR-10 network (accuracy) or for
stories260K (nats per token); the column of time is measured beside the original.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from onnxprune.allocation import Options
from onnxprune.errors import OnnxPruneError
from onnxprune.model import Model, load
from onnxprune.pipelines.drop import drop_blocks
from onnxprune.pipelines.drop_options import DropOptions
from onnxprune.pipelines.dropped import Dropped
from onnxprune.pipelines.run_asked import run_asked
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.runtime.bench import Place
from tests.graphs import shared
from tests.measure import labelled
from tests.measure.accuracy_text import NAME, cost, logits

GRAPHS = (
    "ts/tv_vit_b_16",
    "ts/hf_bert_base",
    "ts/hf_gpt2",
    "ts/hf_llama_gqa",
    "dynamo/hf_llama_kv",
    "ts/tv_resnet50",
    "ts/hf_convnext_tiny",
    "ts/tv_efficientnet_v2_s",
)


def text() -> Iterator[str]:
    """Rows of stories260K: one and two layers, by criterion."""
    folder = shared.folder()
    assert folder is not None, shared.ABSENT
    texts = np.load(folder / "data" / "tinystories" / "self_samples.npy").astype(np.int64)
    source = load(str(shared.entry(f"models/{NAME}").path))
    (entry,) = [v.name for v in source.proto.graph.input if v.name not in source.initializers]
    judging, data = texts[32:], {entry: texts[:32, :-1]}
    yield f"{NAME}: {cost(logits(source, entry, judging), judging):.3f} nats"
    yield "| layers | criterion | dropped | as dropped | repaired | form | seconds |\n|---|---|---|---|---|---|---|"
    for count in (1, 2):
        for criterion in ("influence", "divergence"):
            start, cells = time.perf_counter(), []
            for recover in (False, True):
                options = DropOptions(count=count, criterion=criterion, recover=recover)
                done = drop_blocks(source, options, RunInputs([data], 32))
                cells.append(f"{cost(logits(done.model, entry, judging), judging):.3f}")
            names = ", ".join(b.block.name for b in done.dropped)
            forms = ", ".join(stand.form for stand in done.stand_ins)
            seconds = time.perf_counter() - start
            yield f"| {count} | {criterion} | {names} | {' | '.join(cells)} | {forms} | {seconds:.0f} |"


def pictures(name: str, counts: list[int], count: int) -> Iterator[str]:
    """Rows of a CIFAR-10 network: accuracy by criterion and number of blocks."""
    source = load(str(shared.entry(f"models/{name}").path))
    judge = labelled.of(name, source, 256, count)
    yield f"{name}: {judge.accuracy(source):.2%}"
    heads = " | ".join(f"{number} dropped | repaired" for number in counts)
    yield f"| criterion | {heads} |\n|---|{'---|' * 2 * len(counts)}"
    for criterion in ("random", "parameters", "influence", "divergence"):
        cells = []
        for number in counts:
            for recover in (False, True):
                found = [
                    judge.accuracy(done.model)
                    for done in _drawn(source, criterion, judge.feeds, count=number, recover=recover)
                ]
                cells.append(f"{np.mean(found):.1%}")
        yield f"| {criterion} | {' | '.join(cells)} |"


def _drawn(source: Model, criterion: str, data: Any, **options: Any) -> Iterator[Dropped]:
    """The result of a criterion; of random choices three."""
    for seed in range(3 if criterion == "random" else 1):
        chosen = DropOptions(criterion=criterion, seed=seed, **options)
        yield drop_blocks(source, chosen, RunInputs(data, 256))


def together(name: str, budgets: list[str], count: int) -> Iterator[str]:
    """Rows of one model: units alone, and blocks and units, under the same budgets."""
    source = load(str(shared.entry(f"models/{name}").path))
    if name == NAME:
        folder = shared.folder()
        assert folder is not None, shared.ABSENT
        texts = np.load(folder / "data" / "tinystories" / "self_samples.npy").astype(np.int64)
        (entry,) = [v.name for v in source.proto.graph.input if v.name not in source.initializers]
        data: Any = [{entry: texts[:32, :-1]}]

        def judged(model: Model) -> str:
            return f"{cost(logits(model, entry, texts[32:]), texts[32:]):.3f} nats"
    else:
        judge = labelled.of(name, source, 256, count)
        data = judge.feeds

        def judged(model: Model) -> str:
            return f"{judge.accuracy(model):.1%}"

    yield f"{name}: {judged(source)}"
    yield "| budget | units alone | time | blocks and units | time | blocks | seconds |\n|---|---|---|---|---|---|---|"
    for budget in budgets:
        kind, _, amount = budget.partition("=")
        start, cells = time.perf_counter(), []
        for drop in (False, True):
            options = Options(drop=drop, **{kind: amount})
            done = run_asked(source, options, data=data, samples=256, place=Place())
            assert done.timed is not None and all(goal.met for goal in done.goals), done.goals
            cells += [judged(done.model), f"{done.timed.ratio.value:.2f}"]
        names = ", ".join(step.block for step in done.plan.bypasses) or "none"
        yield f"| {budget} | {' | '.join(cells)} | {names} | {time.perf_counter() - start:.0f} |"


def graphs(names: str, *, data: bool) -> Iterator[str]:
    """Rows of real graphs: a quarter of the blocks."""
    yield "| graph | blocks | params | MACs | proof | seconds |\n|---|---|---|---|---|---|"
    for entry in shared.entries(*names.split(",")):
        start = time.perf_counter()
        try:
            with shared.materialised(entry) as path:
                inputs = RunInputs("random", 16) if data else RunInputs()
                done = drop_blocks(load(str(path)), DropOptions(ratio=0.25, allow_io_changes=True), inputs)
        except OnnxPruneError as error:
            yield f"| {entry.name} | {error.message} | | | | {time.perf_counter() - start:.0f} |"
            continue
        verdict = done.verdict
        assert verdict is not None
        proof = f"{verdict.error:.1e}" if verdict.ok else verdict.problem
        blocks = f"{len(done.dropped)} of {sum(b.block.kind != 'branch' for b in done.blocks)}"
        params, macs = (
            f"{100 * (getattr(done.after, kind) / getattr(done.before, kind) - 1):.1f} %" for kind in ("params", "macs")
        )
        seconds = time.perf_counter() - start
        yield f"| {entry.name} | {blocks} | {params} | {macs} | {proof} | {seconds:.0f} |"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["text", "pictures", "graphs", "together"])
    parser.add_argument("--network", default="cifar_resnet20_ts_op11")
    parser.add_argument("--budgets", default="macs=70%,macs=50%,latency=60%")
    parser.add_argument("--counts", default="1,2,3")
    parser.add_argument("--judging", type=int, default=10_000)
    parser.add_argument("--names", default=",".join(GRAPHS))
    parser.add_argument("--data", action="store_true", help="random inputs choose and repair")
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    lines = {
        "text": text,
        "pictures": lambda: pictures(given.network, [int(n) for n in given.counts.split(",")], given.judging),
        "together": lambda: together(given.network, given.budgets.split(","), given.judging),
        "graphs": lambda: graphs(given.names, data=given.data),
    }
    for line in lines[given.part]():
        print(line, flush=True)


if __name__ == "__main__":
    main()
