"""The figures of docs/robustness.md: `python -m tests.robustness graphs|files|kills [--count N] [--write]`."""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import strategies as st

from onnxprune.errors import OnnxPruneError
from tests import fuzz, kills, random_graphs, test_random_graphs

PAGE = Path(__file__).parents[1] / "docs" / "robustness.md"
COUNTS = {"graphs": 10_000, "files": 2_000, "kills": 200}


def table(head: list[str], rows: list[list[object]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(map(str, row)) + " |"


def graphs(count: int) -> Iterator[str]:
    """Random graphs, a third of each family; every one that is pruned is checked as the tests do."""
    rows = []
    for name, strategy in random_graphs.FAMILIES.items():
        found, operators = Counter[str](), set[str]()
        share = count // len(random_graphs.FAMILIES)

        cases = fuzz.drawn(st.tuples(strategy(), random_graphs.options()), share)
        for proto, chosen in cases:
            operators.update(node.op_type for node in proto.graph.node)
            try:
                found[test_random_graphs.check(proto, chosen)] += 1
            except (AssertionError, OnnxPruneError) as error:
                found["failed"] += 1
                print("failed:", name, chosen, str(error)[:200], flush=True)
        rows.append([name, len(cases), found["pruned"], found["nothing"], found["failed"], len(operators)])
    yield from table(["family", "graphs", "pruned and proven", "nothing to prune", "failed", "operators"], rows)


def files(count: int) -> Iterator[str]:
    """Damaged files, as many of each mutation."""
    with tempfile.TemporaryDirectory(prefix="onnxprune-fuzz-") as folder:
        tallies = fuzz.fuzz(range(count), Path(folder))
    outcomes = ["refused", "nothing pruned", "does not run", "pruned", fuzz.NATIVE]
    rows: list[list[object]] = []
    for name, tally in tallies.items():
        bad = sum(tally.counts[f] for f in fuzz.FAILURES)
        rows.append([name, tally.files, *(tally.counts[o] for o in outcomes), bad, f"{tally.seconds:.1f}"])
    sums = [sum(int(str(row[i])) for row in rows) for i in range(1, len(outcomes) + 3)]
    rows.append(["**all**", *sums, f"{max(t.seconds for t in tallies.values()):.1f}"])
    yield from table(["damage", "files", *outcomes, "**broken**", "longest CPU s"], rows)
    yield f"\nLargest resident memory of a worker: {max(t.peak for t in tallies.values())} MiB."
    for offence in fuzz.summary(tallies):
        print(offence, flush=True)


def killed(count: int) -> Iterator[str]:
    """Writers that are killed at random moments; an output that is neither old, absent nor complete raises."""
    rows = []
    for kind in kills.KINDS:
        found = kills.at_random_moments(kind, count // len(kills.KINDS), seed=1)
        steps = kills.at_every_step(kind)
        states = [found[s] for s in ("absent", "older", "complete")]
        rows.append([kind, found["killed"], sum(states), *states, len(steps) - 1])
    head = ["output", "killed", "runs", "absent", "older one", "complete", "steps killed at, one by one"]
    yield from table(head, rows)


SECTIONS: dict[str, Callable[[int], Iterator[str]]] = {"graphs": graphs, "files": files, "kills": killed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the table into docs/robustness.md")
    given = parser.parse_args()
    start = time.perf_counter()
    text = "\n".join(SECTIONS[given.section](given.count or COUNTS[given.section]))
    text += f"\n\nMeasured in {(time.perf_counter() - start) / 60:.1f} minutes."
    print(text)
    if given.write:
        pattern = re.compile(rf"(<!-- {given.section} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = PAGE.read_text(encoding="utf-8")
        assert pattern.search(page)
        PAGE.write_text(pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
