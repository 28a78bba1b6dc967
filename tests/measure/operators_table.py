"""The page of what was proven per operator: `docs/operators.md`."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
MOST = 3  # reasons in a row of the table


def merged(rows: Iterable[Row]) -> list[Row]:
    """One row per axis: what is wrong or proven, whichever way the other inputs are given; else that with constants."""
    rank = {"wrong": 0, "proven": 1, "barrier": 2, "not runnable": 2}
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = (row["case"], row["op"], row["version"], row["slot"], row["axis"])
        known = best.get(key)
        if known is None or (rank[row["status"]], not row["constant"]) < (rank[known["status"]], not known["constant"]):
            best[key] = row
    return list(best.values())


def summary(rows: Sequence[Row]) -> str:
    """The figures of all axes, in a paragraph."""
    count = Counter(r["status"] for r in rows)
    allowed = [r for r in rows if r["allowed"]]
    proven = sum(r["status"] == "proven" for r in allowed)
    beyond = count["proven"] - proven
    return (
        f"{len(rows):,} axes of {len({r['case'] for r in rows}):,} node tests, under "
        f"{len({(r['op'], r['version']) for r in rows})} definitions of {len({r['op'] for r in rows})} operators: "
        f"**{count['proven']:,} proven, {count['barrier']:,} barriers, {count['not runnable']:,} not runnable, "
        f"{count['wrong']:,} wrong**. An independent reading of the definitions (`tests/graphs/readings.py`) lets "
        f"{len(allowed):,} axes lose positions: **{proven:,} of them ({proven / max(1, len(allowed)):.1%}) are proven**"
        + (f"; {beyond} are proven that it does not name." if beyond else "; no other axis loses any.")
    )


def page(rows: Sequence[Row]) -> str:
    """The page, from the merged rows."""
    by_op: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_op[row["op"]].append(row)
    passing = {op: found for op, found in by_op.items() if any(r["status"] == "proven" for r in found)}
    lines = [HEAD.format(summary=summary(rows)), TABLE_HEAD]
    lines += [_line(op, found) for op, found in sorted(passing.items())]
    lines += [GAPS_HEAD, *_gaps(rows), WHOLE_HEAD, *_whole({o: f for o, f in by_op.items() if o not in passing})]
    return "\n".join(lines) + "\n"


def _line(op: str, rows: Sequence[Row]) -> str:
    versions = ", ".join(str(v) for v in sorted({r["version"] for r in rows}))
    allowed = [r for r in rows if r["allowed"]]
    proven = [r for r in rows if r["status"] == "proven"]
    inputs = ", ".join(str(s) for s in sorted({r["slot"] for r in proven}))
    good = sum(r["status"] == "proven" for r in allowed)
    kind = "" if all(r["exact"] for r in proven) else "approximate along some"
    return f"| {op} | {versions} | {inputs} | {good} / {len(allowed)} | {kind} | {_reasons(rows)} |"


def _reasons(rows: Sequence[Row]) -> str:
    found = Counter(_short(r["why"]) for r in rows if r["status"] == "barrier")
    return "; ".join(text for text, _ in found.most_common(MOST))


def _short(why: str) -> str:
    """The first reason, without versions and what the runtime says in detail."""
    why = why.split("; ")[0].split(": [ONNX")[0]
    return re.sub(r" for operator \w+| at opset \d+", "", why).replace("|", "/")[:90]


def _gaps(rows: Sequence[Row]) -> list[str]:
    """Axes that the reading allows and that are not proven, most first."""
    found = Counter((r["op"], r["slot"], r["status"], _short(r["why"])) for r in rows if _is_gap(r))
    return [f"| {op} | {slot} | {n} | {status}: {why} |" for (op, slot, status, why), n in found.most_common()]


def _is_gap(row: Row) -> bool:
    return bool(row["allowed"]) and row["status"] != "proven"


def _whole(by_op: Mapping[str, Sequence[Row]]) -> list[str]:
    """Operators that let nothing through, by reason."""
    groups: dict[str, list[str]] = defaultdict(list)
    for op, rows in sorted(by_op.items()):
        first = Counter((r["status"] != "barrier", _short(r["why"])) for r in rows)
        groups[min(first, key=lambda k: (k[0], -first[k]))[1].replace(f" {op.split('.')[-1]}", "")].append(op)
    return [f"| {why} | {', '.join(ops)} |" for why, ops in sorted(groups.items(), key=lambda g: (-len(g[1]), g[0]))]


HEAD = """# Operators

Written by `python -m tests.measure.operators --write docs/operators.md`.

{summary}

For every input axis of at least two positions of every node test that the `onnx` package ships (and of a few cases
with more channels than those have, `tests/graphs/own_cases.py`), under every definition of the operator since opset 7
that can express the test: a matrix product makes the input along that axis, in the range of the test's own values or by
choice among them, until what goes makes a difference; every axis of every output is contracted with a weight. Half of
the positions is pruned under every policy of every split, and the result equals the masked reference; where ONNX
Runtime has no kernel, `onnx.reference` runs both. The other inputs are constants, and under the newest definition
inputs of the graph too; the better of the two counts.

* *proven*: positions go, and what remains computes the same.
* *barrier*: the axis stays whole, for the reason given.
* *not runnable*: no kernel, text, or values that say nothing (in 16 draws all outputs the same, or not finite).

## What lets channels through

*allowed* are the axes on which the independent reading lets positions go. *inputs* are those with a proven axis."""
TABLE_HEAD = """
| operator | definitions | inputs | proven / allowed | | axes that stay whole: why |
|---|---|---|---|---|---|"""
GAPS_HEAD = """
## Allowed, and not proven

| operator | input | axes | what stands against it |
|---|---|---|---|"""
WHOLE_HEAD = """
## What stays whole

| why | operators |
|---|---|"""
