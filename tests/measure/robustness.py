"""The figures of docs/robustness.md: `python -m tests.measure.robustness graphs|files|kills [--count N] [--write]`.

A long run may be done in parts: with `--progress FILE --minutes M` it stops after so many minutes, and goes on where it
stopped when it is called again. The table comes with the last part.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.graphs import mutations, random_graphs
from tests.measure import fuzz, kills
from tests.random import test_graphs

PAGE = Path(__file__).parents[2] / "docs" / "robustness.md"
BATCH = 200  # graphs


def table(head: list[str], rows: list[list[object]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(map(str, row)) + " |"


# --- random graphs ----------------------------------------------------------------------------------------


def graph_batches(count: int) -> list[list[Any]]:
    """(family, seed, number of graphs), a third of each family."""
    share = -(-count // len(random_graphs.FAMILIES))
    sizes = [min(BATCH, share - start) for start in range(0, share, BATCH)]
    return [[name, seed, size] for seed, size in enumerate(sizes) for name in random_graphs.FAMILIES]


def graphs(family: str, seed: int, count: int) -> dict[str, Any]:
    """Random graphs of one family; every one that is pruned is checked as the tests do."""
    found, operators = Counter[str](), set[str]()
    cases = fuzz.drawn(st.tuples(random_graphs.FAMILIES[family](), random_graphs.options()), count, seed)
    for index, (proto, chosen) in enumerate(cases):
        operators.update(node.op_type for node in proto.graph.node)
        try:
            found[test_graphs.check(proto, chosen)] += 1
        except Exception:  # noqa: BLE001 whatever it is, it is counted
            found["failed"] += 1
            print("failed:", family, seed, index, chosen, traceback.format_exc()[-400:], flush=True)
    return {"family": family, "counts": found, "operators": sorted(operators)}


def graphs_table(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    rows: list[list[object]] = []
    for family in random_graphs.FAMILIES:
        mine = [r for r in results if r["family"] == family]
        found = sum((Counter(r["counts"]) for r in mine), Counter[str]())
        operators = {op for r in mine for op in r["operators"]}
        counts = [found[kind] for kind in ("pruned", "nothing", "failed")]
        rows.append([family, sum(counts), *counts, len(operators)])
    yield from table(["family", "graphs", "pruned and proven", "nothing to prune", "failed", "operators"], rows)


# --- damaged files ----------------------------------------------------------------------------------------


def file_batches(count: int) -> list[list[Any]]:
    """Numbers of files, one of each mutation."""
    step = len(mutations.names())
    return [[start, min(start + step, count)] for start in range(0, count, step)]


def files(start: int, stop: int) -> dict[str, Any]:
    """Damaged files."""
    with tempfile.TemporaryDirectory(prefix="onnxprune-fuzz-") as folder:
        tallies = fuzz.fuzz(range(start, stop), Path(folder))
    for offence in fuzz.summary(tallies):
        print(offence, flush=True)
    return {name: vars(tally) for name, tally in tallies.items()}


def files_table(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    outcomes = ["refused", "nothing pruned", "does not run", "pruned", fuzz.NATIVE]
    rows: list[list[object]] = []
    for name in mutations.names():
        counts = sum((Counter(r[name]["counts"]) for r in results), Counter[str]())
        bad = sum(counts[f] for f in fuzz.FAILURES)
        longest = max(r[name]["seconds"] for r in results)
        rows.append([name, counts.total(), *(counts[o] for o in outcomes), bad, f"{longest:.1f}"])
    sums = [sum(int(str(row[i])) for row in rows) for i in range(1, len(outcomes) + 3)]
    rows.append(["**all**", *sums, max((str(row[-1]) for row in rows), key=float)])
    yield from table(["damage", "files", *outcomes, "**broken**", "longest CPU s"], rows)
    yield f"\nLargest resident memory of a worker: {max(t['peak'] for r in results for t in r.values())} MiB."


# --- killed writers ---------------------------------------------------------------------------------------


def kill_batches(count: int) -> list[list[Any]]:
    """Place in `kills.KINDS`, number of kills."""
    return [[index, count // len(kills.KINDS)] for index in range(len(kills.KINDS))]


def killed(index: int, count: int) -> list[object]:
    """Writers that are killed at random moments; an output that is neither old, absent nor complete raises."""
    kind = kills.KINDS[index]
    found = kills.at_random_moments(kind, count, seed=1)
    steps = kills.at_every_step(kind)
    states = [found[s] for s in ("absent", "older", "complete")]
    return [str(kind), found["killed"], sum(states), *states, len(steps) - 1]


def kills_table(results: Sequence[list[object]]) -> Iterator[str]:
    head = ["output", "killed", "runs", "absent", "older one", "complete", "steps killed at, one by one"]
    yield from table(head, list(results))


# --- all of them ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A table of the page.

    Attributes:
        count: the full number.
        batches: of a number: the arguments of `run`, one part each.
        run: one part; what it returns can be written as JSON.
        table: the lines of the table, from the results of all parts.
    """

    count: int
    batches: Callable[[int], list[list[Any]]]
    run: Callable[..., Any]
    table: Callable[[Sequence[Any]], Iterator[str]]


SECTIONS = {
    "graphs": Section(10_000, graph_batches, graphs, graphs_table),
    "files": Section(2_000, file_batches, files, files_table),
    "kills": Section(200, kill_batches, killed, kills_table),
}


def measured(section: Section, count: int, progress: Path | None, minutes: float) -> list[dict[str, Any]] | None:
    """What came of every part, and the seconds each took; None if the time was over before."""
    known = [json.loads(line) for line in progress.read_text().splitlines()] if progress and progress.exists() else []
    done, begun = {json.dumps(k["batch"]): k for k in known}, time.monotonic()
    for batch in section.batches(count):
        if json.dumps(batch) in done:
            continue
        if time.monotonic() - begun > minutes * 60:
            return None
        start = time.perf_counter()
        result = section.run(*batch)
        done[json.dumps(batch)] = entry = {
            "batch": batch,
            "seconds": time.perf_counter() - start,
            "result": json.loads(json.dumps(result)),
        }
        if progress:
            with progress.open("a") as log:
                print(json.dumps(entry), file=log)
    return [done[json.dumps(batch)] for batch in section.batches(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the table into docs/robustness.md")
    parser.add_argument("--progress", type=Path, help="what has been done so far")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these; needs --progress")
    given = parser.parse_args()
    section = SECTIONS[given.section]
    results = measured(section, given.count or section.count, given.progress, given.minutes)
    if results is None:
        print("not done yet: the same command goes on")
        return
    text = "\n".join(section.table([r["result"] for r in results]))
    text += f"\n\nMeasured in {sum(r['seconds'] for r in results) / 60:.1f} minutes."
    print(text)
    if given.write:
        pattern = re.compile(rf"(<!-- {given.section} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = PAGE.read_text(encoding="utf-8")
        assert pattern.search(page)
        PAGE.write_text(pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
