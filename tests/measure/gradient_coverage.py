"""Gradients of every shared graph and trained model: which weights get one, and whether it is right.

    python -m tests.measure.gradient_coverage [--json results.json] [--write] [--largest MIB] [GLOB ...]

The training graph of each one is built for all float weights, in a process of its own with a time limit. Graphs of at
most `--largest` MiB also run: every gradient is finite, and the slope of the outputs' random projection along the
gradient is compared with central differences. With `--json`, what an earlier run found is kept
for the graphs that this run leaves out; `--write` writes the table into docs/gradients.md.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.autodiff import GradientSession, TrainingGraph, build_vjp
from onnxprune.errors import OnnxPruneError, RunError
from onnxprune.model import Model, load
from onnxprune.model.shapes.infer import infer
from onnxprune.model.shapes.symbols import candidate_sizes, symbolic_dims
from onnxprune.runtime import Setting
from onnxprune.runtime.random_inputs import random_feeds
from tests.graphs import shared

PAGE = Path(__file__).parents[2] / "docs" / "gradients.md"
SECONDS = 900
LARGEST_MIB = 200
MARK = "@result "
DISTANCES = (1e-2, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
# Error above which weights are looked at one by one, and about how many of them.
CURVED, SINGLE = 1e-2, 8
# Of a loss in single precision, as a share of it.
ROUNDING = 1e-6
# Error above which a graph is named.
UNCLEAR = 0.05
ALL, SOME, NONE, FAILED = "every weight", "not every weight", "no float weight", "failed"
NOTHING_TO_TRAIN = ("no parameter of the model reaches", "no float output")

Result = dict[str, Any]


def examine(entry: shared.Entry, largest: float) -> Result:
    """Build the training graph of one model, and run it if it is small enough."""
    with shared.materialised(entry) as path:
        model = load(path)
        start = time.perf_counter()
        try:
            graph, feeds = built(model, shared.sample_inputs(entry.path.stem, 1) if entry.trained else [])
        except OnnxPruneError as error:
            nothing = any(text in error.message for text in NOTHING_TO_TRAIN)
            why = {error.message.splitlines()[0].partition(": /project")[0]: ["all"]}
            return {"status": NONE if nothing else FAILED, "why": why}
        result: Result = {"seconds": round(time.perf_counter() - start, 2), "nodes": len(graph.model.graph.node)}
        result["mib"] = round(model.nbytes / 2**20, 1)
        result["weights"], result["gradients"] = len(graph.parameters), len(graph.gradients)
        why: dict[str, list[str]] = {}
        for name in graph.parameters.keys() - graph.gradients.keys():
            why.setdefault(graph.frozen.get(name, "the outputs do not depend on it"), []).append(name)
        result["status"], result["why"] = (SOME if why else ALL), why
        if result["mib"] <= largest:
            result |= checked(graph, feeds)
        return result


Feeds = Mapping[str, np.ndarray]


def built(model: Model, samples: Sequence[Feeds]) -> tuple[TrainingGraph, Feeds]:
    """The training graph for a sample, or at the first sizes of the free axes at which the model runs."""
    failure: OnnxPruneError | None = None
    for feeds in (*samples, *random_samples(model)):
        try:
            return build_vjp(model, feeds, freeze=True), feeds
        except RunError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def random_samples(model: Model) -> Iterator[Feeds]:
    """Random inputs of the sizes that a model most likely runs at."""
    for sizes in (None, *(s for s, _ in candidate_sizes(symbolic_dims(model.proto.graph), {}))):
        yield random_feeds(model, infer(model, sizes), np.random.default_rng(0))


def checked(graph: TrainingGraph, feeds: Mapping[str, np.ndarray]) -> Result:
    """Whether gradients are finite, and how far the slope along them is from central differences."""
    rng = np.random.default_rng(1)
    extra = {n: rng.standard_normal(shape).astype(kind) for n, (shape, kind) in graph.targets.items()}
    fed = {**feeds, **extra}
    with GradientSession(graph, Setting(threads=1)) as session:
        start = time.perf_counter()
        found = session.evaluate(fed, {})
        result: Result = {"step_seconds": round(time.perf_counter() - start, 3)}
        odd = [n for n, g in found.gradients.items() if not np.isfinite(g).all()]
        if odd or not np.isfinite(found.loss):
            return result | {"not_finite": odd or ["the loss"]}
        error = slope_error(session, fed, found.gradients)
        if error > CURVED:  # along all weights at once the slope changes within the distances: one by one, then
            some = list(found.gradients)[:: max(1, len(found.gradients) // SINGLE)]
            alone = [slope_error(session, fed, {n: found.gradients[n]}) for n in some]
            error = max((e for e in alone if not math.isnan(e)), default=math.nan)
        return result if math.isnan(error) else result | {"error": error}


def slope_error(session: GradientSession, fed: Feeds, gradients: Feeds) -> float:
    """Relative error of the slope along the signs of gradients, at the best of some distances; nan where it drowns."""
    start = session.graph.parameters
    steps = {n: np.sign(g) * float(np.abs(start[n]).mean() or 1) for n, g in gradients.items()}
    slope = sum(float((g.astype(np.float64) * steps[n]).sum()) for n, g in gradients.items())
    if not slope:
        return 0.0

    def loss(distance: float) -> float:
        return session.loss(fed, {n: np.asarray(start[n] + distance * s, start[n].dtype) for n, s in steps.items()})

    rounding = ROUNDING * abs(loss(0.0))
    measured = [((loss(d) - loss(-d)) / (2 * d), rounding / d) for d in DISTANCES]
    errors = [max(abs(m - slope) - r, 0) / max(abs(m), abs(slope)) for m, r in measured if r < abs(slope)]
    return min(errors, default=math.nan)


def examined(name: str, largest: float) -> Result:
    """Examine a graph in a process of its own."""
    command = [sys.executable, "-m", "tests.measure.gradient_coverage", "--worker", name, "--largest", str(largest)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"status": FAILED, "why": {f"not finished after {SECONDS} s": ["all"]}}
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if lines:
        found: Result = json.loads(lines[-1].removeprefix(MARK))
        return found
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return {"status": FAILED, "why": {f"the process ended with {done.returncode}: {last}"[:300]: ["all"]}}


# --- the table ---------------------------------------------------------------------------------------------


def table(results: Mapping[str, Result]) -> str:
    """The share of graphs by exporter, and every graph whose weights do not all get a gradient."""
    folders: dict[str, Counter[str]] = {}
    for name, result in results.items():
        folders.setdefault(name.partition("/")[0], Counter())[result["status"]] += 1
    total = sum(folders.values(), Counter())
    trainable = total[ALL] + total[SOME] + total[FAILED]
    errors = sorted(r["error"] for r in results.values() if "error" in r) or [math.nan]
    unclear = ", ".join(f"{n} ({r['error']:.0e})" for n, r in sorted(results.items()) if r.get("error", 0) > UNCLEAR)
    lines = [
        f"{len(results)} graphs; {total[NONE]} have no float weight that an output depends on smoothly. Of the other "
        f"{trainable}, **{total[ALL]} ({total[ALL] / max(trainable, 1):.1%}) get a gradient for every weight**.",
        "",
        f"| graphs | {ALL} | {SOME} | {FAILED} | {NONE} |",
        "|---|---|---|---|---|",
        *(f"| {f} | {c[ALL]} | {c[SOME]} | {c[FAILED]} | {c[NONE]} |" for f, c in sorted(folders.items())),
        "",
        f"The slope along the gradient against central differences in single precision, {len(errors)} graphs: median "
        f"{np.median(errors):.0e}, 95 % below {np.quantile(errors, 0.95):.0e}; above {UNCLEAR:g}: {unclear or 'none'}.",
        "",
        "| graph | weights | with a gradient | why |",
        "|---|---|---|---|",
    ]
    for name, result in sorted(results.items()):
        if result["status"] in (SOME, FAILED):
            why = "; ".join(f"{reason} ({len(names)})" for reason, names in result["why"].items()).replace("|", "/")
            lines.append(f"| {name} | {result.get('weights', '')} | {result.get('gradients', '')} | {why} |")
    return "\n".join(lines)


def line_of(name: str, result: Result) -> str:
    """One result as a line of a log."""
    numbers = {k: v for k, v in result.items() if k not in ("status", "why")}
    why = "; ".join(f"{reason} ({len(names)}: {names[0]})" for reason, names in result["why"].items())
    return f"{name:<44} {result['status']:<17} {numbers} {why}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("globs", nargs="*", help="names such as 'ts/tv_*'; everything if none is given")
    parser.add_argument("--json", type=Path, help="file with all results, updated by every run")
    parser.add_argument("--write", action="store_true", help="write the table into docs/gradients.md")
    parser.add_argument("--only-write", action="store_true", help="write the table from --json, run nothing")
    parser.add_argument("--largest", type=float, default=LARGEST_MIB, help="MiB of weights up to which a graph runs")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(MARK + json.dumps(examine(shared.entry(given.worker), given.largest)), flush=True)
        return 0
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    results: dict[str, Result] = {}
    if given.json and given.json.is_file():
        results = json.loads(given.json.read_text(encoding="utf-8"))
    names = [] if given.only_write else [e.name for e in shared.entries(*given.globs)]
    for name in names:
        results[name] = examined(name, given.largest)
        print(line_of(name, results[name]), flush=True)
        if given.json:
            given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if given.write or given.only_write:
        pattern = re.compile("(<!-- coverage -->\n).*?(<!-- end -->)", re.DOTALL)
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(pattern.sub(lambda mark: f"{mark[1]}{table(results)}\n{mark[2]}", page), encoding="utf-8")
    else:
        print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
