"""The part of `docs/operators.md` on gradients."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
PASSED, NO_RULE, NO_RUN, WRONG = "exact", "no rule", "does not run", "wrong"
NOTHING, NO_MEASURE = "nothing to differentiate", "not comparable"
SHOWN = (PASSED, NO_MEASURE, NO_RULE, NO_RUN)
START, END = "<!-- gradients -->", "<!-- end -->"

HEAD = """## Gradients

The gradient of every float input of the same tests, under the same definitions, held against central differences
(`python -m tests.measure.gradients --history --write` writes this part alone; ONNX Runtime's fused operators and the
variants of recurrent layers are cases of our own). The outputs of the training graph are compared with those of the
operator first. {summary}

* *exact*: the slope in random directions is that of the differences, to their precision in 32 bits.
* *not comparable*: differences say nothing there, for the reason given below.
* *no rule*: the gradient is refused, with the reason; nothing is passed on in silence.
* *does not run*: ONNX Runtime has no kernel, or refuses the test itself.
* The other tests have nothing to differentiate: no float input, or only outputs that are no floats, or constant nearly
  everywhere.

| operator | definitions | exact | not comparable | no rule | does not run |
|---|---|---|---|---|---|"""


def section(rows: Sequence[Row]) -> str:
    """The part of the page, from the outcomes of all tests."""
    by_op: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_op[row["operator"]].append(row)
    lines = [HEAD.format(summary=summary(rows))]
    for op, found in sorted(by_op.items()):
        counts = Counter(r["status"] for r in found)
        if any(counts[status] for status in SHOWN) or counts[WRONG]:
            versions = ", ".join(str(v) for v in sorted({version_of(r) for r in found}))
            lines.append(f"| {op} | {versions} | " + " | ".join(str(counts[s] or "") for s in SHOWN) + " |")
    for status, title in ((NO_MEASURE, "Not comparable"), (NO_RULE, "No rule"), (NO_RUN, "Does not run")):
        lines += ["", f"### {title}", "", "| operator | tests | why |", "|---|---|---|"]
        lines += grouped(r for r in rows if r["status"] == status)
    nothing = sorted(op for op, found in by_op.items() if all(r["status"] == NOTHING for r in found))
    lines += ["", "### Nothing to differentiate", "", ", ".join(nothing)]
    return "\n".join([START, *lines, END])


def summary(rows: Sequence[Row]) -> str:
    """The figures of all tests."""
    counts = Counter(r["status"] for r in rows)
    exact = {r["operator"] for r in rows if r["status"] == PASSED}
    return (
        f"{len(rows):,} tests: **{counts[PASSED]:,} exact (of {len(exact)} operators), {counts[NO_MEASURE]} not "
        f"comparable, {counts[NO_RULE]} without a rule, {counts[NO_RUN]} that do not run, {counts[WRONG]} wrong**."
    )


def grouped(rows: Iterable[Row]) -> list[str]:
    """Tests of an operator with one reason in a row; few are named."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        groups[row["operator"], short(row["detail"])].append(row["case"].split(" ")[0].removeprefix("test_"))
    lines = []
    for (op, why), names in sorted(groups.items()):
        unique = sorted(set(names))
        told = ", ".join(unique) if len(unique) <= 3 else f"{len(unique)}, {unique[0]} among them"
        lines.append(f"| {op} | {told} | {why} |")
    return lines


def short(why: str) -> str:
    """A reason without the node, what it blocks, and the runtime's codes."""
    why = re.sub(r"; it blocks the gradients of .*", "", why)
    why = re.sub(r"^\w+ '?[^':]+'?: ", "", why)
    why = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", why)
    return why.replace("|", "/")[:160]


def version_of(row: Row) -> int:
    """The opset version in the name of a case."""
    return int(row["case"].rpartition("(")[2].rstrip(")"))


def replaced(page: str, rows: Sequence[Row]) -> str:
    """The page with another part on gradients; behind the rest if it has none."""
    part = section(rows)
    if START not in page:
        return f"{page.rstrip()}\n\n{part}\n"
    return re.sub(f"{START}.*?{END}", lambda _: part, page, flags=re.DOTALL)
