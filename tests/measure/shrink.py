"""Plant dead units in real graphs, shrink them, and look for every one: the table in docs/shrink.md.

    python -m tests.measure.shrink [GLOB ...] [--count 40] [--seconds 120] [--write]

In every graph 30 % of the units of random groups are made dead, each in one of five ways (`tests.graphs.planting`).
Those of them whose readers get nothing new from them on random inputs have to be found: a constant in front of a
padding, for example, has to stay. The graphs are taken smallest first, each in a process of its own with a time limit;
graphs in which nothing can be planted are passed over. Outputs are compared with those of the planted model itself, on
inputs that the proof of `shrink` has not seen.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.criteria.bound_rules import Bounds
from onnxprune.criteria.bounds import bounds_of
from onnxprune.criteria.places import Summation, places_of
from onnxprune.model import load, to_proto
from onnxprune.pipelines.shrink import ShrinkOptions, Shrunk, shrink_model
from onnxprune.proof.compare_outputs import differences
from onnxprune.runtime import Session
from onnxprune.runtime.random_inputs import random_feeds
from tests.graphs import shared
from tests.graphs.planting import RANGE, WAYS, Planted, changed, missed, removable
from tests.measure.coverage import MARK, MEMORY_BYTES, first_line

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "shrink.md"
SEED = 14
INPUTS = 3

Result = dict[str, Any]


# --- the worker: one graph, in a process of its own -------------------------------------------------------


def examine(name: str) -> Result:
    """Plant, shrink, and say what was found."""
    with shared.materialised(shared.entry(name)) as path:
        proto = to_proto(load(path))
    planted, units = changed(proto, np.random.default_rng(SEED))
    wanted = removable(planted, units) if units else []
    result: Result = {"planted": len(units), "wanted": Counter(u.way for u in wanted)}
    if not wanted:
        return result
    model = load(planted)
    start = time.perf_counter()
    found = shrink_model(model, ShrinkOptions(ranges={"": RANGE}))
    seconds = time.perf_counter() - start
    left = missed(found, wanted)
    assert found.verdict is not None
    return result | {
        "seconds": round(seconds, 1),
        "missed": Counter(u.way for u in left),
        "reasons": sorted(reasons(found, left)),
        "params": [found.before.params, found.after.params],
        "problem": "" if found.verdict.ok else found.verdict.problem[:200],
        "error": error_of(planted, found),
    }


def reasons(found: Shrunk, left: Sequence[Planted]) -> Iterator[str]:
    """Which planted units stayed, by group and way, and why."""
    by_name = {group.name: group for group in found.groups.groups}
    places = list(places_of(found.groups, ()))
    inputs = {value.name: RANGE for value in found.groups.tracing.model.proto.graph.input}
    bounds = bounds_of(found.groups, inputs, {place.tensor for place in places}) if left else {}

    def reason(unit: Planted) -> str:
        class_id = int(by_name[unit.group].classes[unit.index])
        mine = [place for place in places if class_id in place.classes]
        for place in mine:
            if unit.way in ("constant", "multiple") and not place.folds:
                return f"{place.name} has no weight of its own that could take it over"
        for place in mine:
            own = bounds.get(place.tensor)
            if unit.way == "range" and own is None:
                return f"nothing bounds what {place.name} reads"
            if unit.way == "range" and own is not None and class_id not in known_at(place, own):
                return f"the bounds of what {place.name} reads are too wide, up to {np.abs(own.high).max():.0e}"
        return "unexplained"

    for (group, way, why), count in Counter((u.group, u.way, reason(u)) for u in left).items():
        yield f"{count} {way} of `{group}`: {why}"


def known_at(place: Summation, own: Bounds) -> set[int]:
    """The classes all of whose elements are known at a place."""
    ids, known = np.broadcast_arrays(place.ids, own.known)
    return set(np.setdiff1d(ids, ids[~known]).tolist())


def error_of(planted: onnx.ModelProto, found: Shrunk) -> float:
    """The largest difference of the outputs inside of the range, as a share of the largest number."""
    small = to_proto(found.model)
    onnx.checker.check_model(small, full_check=True)
    error = 0.0
    with (
        Session(load(planted), optimised=False) as one,
        Session(load(small, check=False), optimised=False) as other,
    ):
        for seed in range(100, 100 + INPUTS):
            rng = np.random.default_rng(seed)
            feeds = random_feeds(found.groups.tracing.model, found.groups.static, rng)
            feeds = {
                n: rng.uniform(*RANGE, x.shape).astype(x.dtype) if x.dtype.kind == "f" else x for n, x in feeds.items()
            }
            apart = differences(one.outputs, one.run(feeds), other.run(feeds, one.outputs))
            error = max(error, *apart.values())
    return error


def work(name: str) -> None:
    """Examine one graph and print the result as a line."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        result = examine(name)
    except Exception as error:  # noqa: BLE001 - any exception is a finding
        result = {"planted": 0, "wanted": {}, "problem": first_line(error)}
    print(MARK + json.dumps({"graph": name} | result), flush=True)


# --- the parent -------------------------------------------------------------------------------------------


def examined(name: str, limit: int) -> Result:
    """What came of one graph."""
    nothing: Result = {"graph": name, "planted": 0, "wanted": {}}
    command = [sys.executable, "-m", "tests.measure.shrink", "--worker", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return nothing | {"problem": f"not finished after {limit} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if lines:
        return json.loads(lines[-1].removeprefix(MARK))
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return nothing | {"problem": f"the process ended with {done.returncode}: {last}"[:200]}


HEADER = ("graph", "planted", "to be found", *WAYS, "largest error", "parameters left", "seconds")


def row(result: Result) -> str:
    """A row of the table."""
    cells = [result["graph"], result["planted"], sum(result["wanted"].values())]
    cells += [share(result["wanted"], result["missed"], way) for way in WAYS]
    before, after = result["params"]
    cells += [f"{result['error']:.0e}", f"{after / before:.0%}", f"{result['seconds']:.1f}"]
    return f"| {' | '.join(map(str, cells))} |"


def share(wanted: Mapping[str, int], left: Mapping[str, int], way: str) -> str:
    """Found of those that were to be found."""
    count = wanted.get(way, 0)
    return f"{count - left.get(way, 0)} of {count}" if count else "-"


def page(results: Sequence[Result]) -> Iterator[str]:
    """The table, and what is to be said of it."""
    done = [r for r in results if "error" in r]
    yield from (f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}", *map(row, done))
    wanted, left = (sum((Counter(r[key]) for r in done), Counter[str]()) for key in ("wanted", "missed"))
    ways = ", ".join(f"{way} {share(wanted, left, way)}" for way in WAYS)
    yield ""
    yield f"{len(done)} graphs, {sum(r['planted'] for r in done)} units planted, of which {wanted.total()} can go"
    yield f"without loss; found: {wanted.total() - left.total()} ({ways}). Largest error"
    yield f"{max((r['error'] for r in done), default=0.0):.0e}. {sum(r['seconds'] for r in done):.0f} seconds in all."
    lines = [f"* {r['graph']}: {reason}" for r in done for reason in r["reasons"]]
    lines += [f"* {r['graph']}: {r['problem']}" for r in results if r.get("problem")]
    yield from ("", "Not found, or not finished:", "", *lines) if lines else ("", "Nothing was missed.")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("globs", nargs="*", help="names such as 'ts/tv_*'; all graphs if none is given")
    parser.add_argument("--count", type=int, default=40, help="graphs in which units are planted")
    parser.add_argument("--seconds", type=int, default=120, help="time limit of one graph")
    parser.add_argument("--write", action="store_true", help="put the table into docs/shrink.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker)
        return 0
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    results: list[Result] = []
    for entry in (e for e in shared.entries(*given.globs) if not e.trained):
        if sum("error" in r for r in results) >= given.count:
            break
        results.append(examined(entry.name, given.seconds))
        print(json.dumps(results[-1]), flush=True)
    text = "\n".join(page(results))
    print(text)
    if given.write:
        pattern = re.compile(r"(<!-- planted -->\n).*?(<!-- end -->)", re.DOTALL)
        old = PAGE.read_text(encoding="utf-8")
        assert pattern.search(old)
        PAGE.write_text(pattern.sub(lambda mark: f"{mark[1]}{text}\n{mark[2]}", old), encoding="utf-8")
    return int(any(r.get("problem") or r.get("reasons") for r in results))


if __name__ == "__main__":
    sys.exit(main())
