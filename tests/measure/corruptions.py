"""How many wrong weights a proof refuses: `python -m tests.measure.corruptions random|shared [--count N] [--seconds
S]`.

Every graph is pruned, then the result is spoiled, one weight at a time: an element is multiplied by 1.5, or two kept
positions of a weight that was cut are swapped. What is accepted although a tensor inside changes is *missed*.
`--largest MB` leaves out larger files; `--seconds` stops early and says how far it came, and `--behind N` goes on
behind the N graphs of an earlier run.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice, zip_longest
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import numpy_helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.errors import OnnxPruneError
from onnxprune.model import Model, load, to_proto
from onnxprune.proof import layerwise, prove
from onnxprune.proof.compare_outputs import difference
from onnxprune.rewriting import Removal
from onnxprune.rewriting.io_changes import feeds, in_range
from onnxprune.runtime import Session
from onnxprune.runtime.random_inputs import random_feeds
from tests.graphs import random_graphs, shared
from tests.measure import fuzz

KINDS = ("multiplied by 1.5", "positions swapped")


def random_models(count: int) -> Iterator[tuple[str, Model, Options]]:
    """Random graphs of all families in turn, each with random options."""
    share = -(-count // len(random_graphs.FAMILIES))
    drawn = [
        [(name, *case) for case in fuzz.drawn(st.tuples(make(), random_graphs.options()), share, 77)]
        for name, make in random_graphs.FAMILIES.items()
    ]
    for several in zip_longest(*drawn):
        yield from ((name, load(proto), Options(**chosen)) for name, proto, chosen in filter(None, several))


def shared_models(globs: list[str], largest: float) -> Iterator[tuple[str, Model, Options]]:
    """The shared graphs and models, smallest file first."""
    found = [e for e in shared.entries(*globs) if e.path.stat().st_size <= largest * 1e6]
    for entry in sorted(found, key=lambda e: e.path.stat().st_size):
        with shared.materialised(entry) as path:
            yield entry.name, load(path), Options(ratio=0.5)


def spoiled(outcome: api.Outcome, kind: str, rng: np.random.Generator) -> Model | None:
    """The smaller model with one weight that is wrong; None where none of this kind can be."""
    proto = onnx.ModelProto()
    proto.CopyFrom(to_proto(outcome.model))  # with what lies in other files
    masks = Removal(outcome.groups, outcome.plan.removed(outcome.groups)).masks()
    before = {t.name: tuple(t.dims) for t in outcome.groups.tracing.model.proto.graph.initializer}
    floats = [t for t in proto.graph.initializer if numpy_helper.to_array(t).dtype.kind == "f" and 0 not in t.dims]
    for index in rng.permutation(len(floats))[:20]:
        tensor = floats[index]
        value = numpy_helper.to_array(tensor).copy()
        if kind == KINDS[0]:
            places = np.flatnonzero(value)
            if not places.size:
                continue
            value.reshape(-1)[rng.choice(places)] *= 1.5
        else:
            old = before.get(tensor.name, value.shape)
            axes = [a for a, (n, m) in enumerate(zip(old, value.shape, strict=True)) if n != m and m > 1]
            if tensor.name not in masks or not axes:
                continue
            axis = int(rng.choice(axes))
            one, other = rng.choice(value.shape[axis], 2, replace=False)
            order = np.arange(value.shape[axis])
            order[[one, other]] = order[[other, one]]
            turned = np.take(value, order, axis)
            if np.array_equal(turned, value):
                continue
            value = np.ascontiguousarray(turned)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        return load(proto)
    return None


def is_seen_inside(outcome: api.Outcome, bad: Model) -> bool:
    """Whether any tensor of the main graph changes on the proof's inputs."""
    groups, values = outcome.groups, []
    removal = Removal(groups, outcome.plan.removed(groups))
    given = random_feeds(groups.tracing.model, groups.static, np.random.default_rng(0))
    given = feeds(removal, in_range(removal, given))
    for model in (outcome.model, bad):
        names = sorted({o for node in model.proto.graph.node for o in node.output if o})
        with Session(layerwise.tapped(model, names), optimised=False) as session:
            arrays = [n for n in names if n in session.arrays]
            values.append(session.run(given, arrays))
    return any(difference(a, b) > 0 for a, b in zip(*values, strict=True))


def tried(model: Model, options: Options, count: int, rng: np.random.Generator) -> Counter[tuple[str, str]]:
    """(kind, "refused", "missed" or "unseen") -> how often, for one model."""
    found = Counter[tuple[str, str]]()
    outcome = api.run(model, options)
    if outcome.verdict is None or not outcome.verdict.ok:
        return found
    away = outcome.plan.removed(outcome.groups)
    for number in range(count):
        kind = KINDS[number % 2]
        bad = spoiled(outcome, kind, rng)
        if bad is None:
            continue
        verdict = prove.check(outcome.groups, away, bad)
        result = "refused" if not verdict.ok else "missed" if is_seen_inside(outcome, bad) else "unseen"
        found[kind, result] += 1
        if not verdict.ok:
            found[kind, "by a run" if "differs" in verdict.problem else "by the stored weight alone"] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", choices=("random", "shared"))
    parser.add_argument("globs", nargs="*")
    parser.add_argument("--count", type=int, default=2000, help="random graphs")
    parser.add_argument("--each", type=int, default=2, help="wrong weights per graph")
    parser.add_argument("--largest", type=float, default=1e6, metavar="MB")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--behind", type=int, default=0, metavar="N", help="leave out the first N graphs")
    given = parser.parse_args()
    models: Any = random_models(given.count) if given.source == "random" else shared_models(given.globs, given.largest)
    rng, begun, seen = np.random.default_rng(0), time.monotonic(), Counter[str]()
    sums = Counter[tuple[str, str]]()
    for name, model, options in islice(models, given.behind, None):
        if time.monotonic() - begun > given.seconds:
            break
        seen["graphs"] += 1
        with suppress(OnnxPruneError):
            found = tried(model, options, given.each, rng)
            seen["with wrong weights"] += bool(found)
            sums += found
            if any(result == "missed" for _, result in found):
                print("missed:", name, flush=True)
    print(f"{seen['graphs']} graphs, {seen['with wrong weights']} of them pruned and spoiled")
    print("| wrong weights | refused | by a run | by the stored weight alone | missed | no tensor changes |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind in KINDS:
        results = ("refused", "by a run", "by the stored weight alone", "missed", "unseen")
        print(f"| {kind} | " + " | ".join(str(sums[kind, result]) for result in results) + " |")


if __name__ == "__main__":
    main()
