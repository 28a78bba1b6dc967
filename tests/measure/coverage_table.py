"""The page that `python -m tests.measure.coverage --write` makes of its results."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Result = dict[str, Any]

# Graphs of which a smaller share can be pruned are listed with their reasons.
LITTLE = 0.3
HEAD = """# Coverage

Made by `python -m tests.measure.coverage --write docs/coverage.md`; not written by hand.

Every graph of the shared zoo (graphs of real exporters, with random weights of the original mean, spread and
range) and every shared trained model, pruned at ratio 0.5 (`l2`, uniform, heads allowed) with proof. *Error* is the
largest difference from the masked reference, over the largest reference output. *Zeroed* is the difference from the
original with the removed weights set to zero, an independent check that holds where all removed groups are exact,
with all optimisations of ONNX Runtime on. *Prunable* is the share of float weights that some group holds. Every
written file passes ONNX's full checker and strict shape inference if its original does. The last column says what
share of the weights lies at positions that a reason locks: a weight whose input side is locked can still shrink on
its output side, so these shares add up to more than what is not prunable.
"""
COLUMNS = (
    "graph",
    "exporter",
    "opset",
    "nodes",
    "groups",
    "prunable",
    "params",
    "MACs",
    "bytes",
    "error",
    "zeroed",
    "result",
    "what is locked most, and why",
)


def table(results: Mapping[str, Result]) -> str:
    """The whole page."""
    rows = sorted(results.values(), key=lambda r: r["graph"])
    trained = [r for r in rows if r["graph"].startswith("models/")]
    zoo = [r for r in rows if not r["graph"].startswith("models/")]
    parts = [HEAD, "\n## Summary\n\n", summary(zoo, trained)]
    parts += ["\n## Zoo\n\n", listing(r for r in zoo if not r.get("scope"))]
    parts += ["\n## Trained models\n\n", _TRAINED, listing(r for r in trained if not r.get("scope"))]
    parts += ["\n## Out of scope for now\n\n", _SCOPE, listing((r for r in rows if r.get("scope")), True)]
    parts += ["\n## Graphs of which little can be removed\n\n", share_text(rows), little(rows)]
    parts += ["\n## Weights of which nothing can be removed\n\n", _WHOLE, whole(r for r in rows)]
    parts += ["\n## Axes that cannot be pruned, by reason\n\n", _AXES, axes(r for r in rows if not r.get("scope"))]
    return "".join(parts)


_TRAINED = """Outputs on sample inputs (photographs where the model takes pictures, else as the model's recipe says)
stay finite for every one of them.

"""
_SCOPE = """These contain quantised, fused, control-flow, classical or custom operators, which are
barriers in this version. What is prunable around them is pruned and proven all the same.

"""
_WHOLE = """Weights of Conv, ConvTranspose, Gemm, MatMul and Einsum that no group holds on any axis.

"""
_AXES = """Every axis of such a weight, kernel axes aside, of which some position is in no group, counted by reason, for
the graphs in scope. An axis with several reasons is counted at each of them.

"""


def summary(zoo: Sequence[Result], trained: Sequence[Result]) -> str:
    """Counts and figures."""
    sets: list[tuple[str, list[Result]]] = [
        ("zoo, in scope", [r for r in zoo if not r.get("scope")]),
        ("zoo, with barriers", [r for r in zoo if r.get("scope")]),
        ("trained, in scope", [r for r in trained if not r.get("scope")]),
        ("trained, with barriers", [r for r in trained if r.get("scope")]),
    ]
    head = ("", "graphs", "proven", "rolled back", "nothing to prune", "does not run", "failed", "smaller")
    head += ("prunable", "params left", "MACs left", "largest error", "largest zeroed", "median seconds")
    return markdown(head, [_counts(name, rows) for name, rows in sets if rows])


def _counts(name: str, rows: Sequence[Result]) -> list[str]:
    by = Counter(r["status"] for r in rows)
    good = [r for r in rows if r["status"] in ("proven", "rolled back")]
    bad = len(rows) - sum(by[s] for s in ("proven", "rolled back", "nothing", "unrunnable"))
    smaller = sum(r["bytes_after"] < r["bytes_before"] and r["params"][1] < r["params"][0] for r in good)
    return [
        name,
        str(len(rows)),
        *(str(by[s]) for s in ("proven", "rolled back", "nothing", "unrunnable")),
        str(bad),
        str(smaller),
        _middle([r["held"] / r["weights"] for r in rows if r.get("weights")], lambda x: f"{100 * x:.1f} %"),
        _middle([r["params"][1] / r["params"][0] for r in good if r["params"][0]], lambda x: f"{x:.2f}"),
        _middle([r["macs"][1] / r["macs"][0] for r in good if r["macs"][0]], lambda x: f"{x:.2f}"),
        _largest(r.get("error") for r in good if r.get("tolerance", 1) < 1e-3),
        _largest(r.get("zeroed_error") for r in good if r.get("tolerance", 1) < 1e-3),
        _middle([r["seconds"] for r in rows if "seconds" in r], lambda x: f"{x:.1f}"),
    ]


def _middle(values: Sequence[float], show: Callable[[float], str]) -> str:
    return show(sorted(values)[len(values) // 2]) if values else "-"


def _largest(values: Iterable[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{max(known):.1e}" if known else "-"


def listing(rows: Iterable[Result], kinds: bool = False) -> str:
    """One line per graph."""
    head = (*COLUMNS, "kinds") if kinds else COLUMNS
    return markdown(head, [[*_row(r), ", ".join(r["scope"])] if kinds else _row(r) for r in rows])


def _row(result: Result) -> list[str]:
    held = f"{100 * result['held'] / result['weights']:.1f} %" if result.get("weights") else "-"
    return [
        result["graph"],
        result["exporter"],
        str(result.get("opset", "-")),
        str(result.get("nodes", "-")),
        str(result.get("groups", "-")),
        held,
        _pair(result.get("params")),
        _pair(result.get("macs")),
        _pair([result["bytes_before"], result["bytes_after"]]) if "bytes_after" in result else "-",
        "-" if result.get("error") is None else f"{result['error']:.1e}",
        "-" if result.get("zeroed_error") is None else f"{result['zeroed_error']:.1e}",
        outcome(result),
        reasons(result),
    ]


def outcome(result: Result) -> str:
    """The status with what explains it."""
    words = {"nothing": "nothing to prune", "unrunnable": "not run: the original does not run"}
    text = words.get(result["status"], result["status"])
    if result["status"] == "rolled back":
        text += f" ({len(result['rolled_back'])} groups)"
    elif result["status"] not in ("proven", "nothing", "unrunnable"):
        text += f": {result.get('problem', '')}"
    return text


def reasons(result: Result, count: int = 3) -> str:
    """The reasons that lock most."""
    weights = result.get("weights") or 1
    top = list(result.get("barriers", {}).items())[:count]
    return "; ".join(f"{text} ({100 * params / weights:.1f} %)" for text, params in top)


def share_text(rows: Sequence[Result]) -> str:
    """The prunable share over all graphs."""
    shares = [100 * r["held"] / r["weights"] for r in rows if r.get("weights")]
    whole = sum(share >= 99.5 for share in shares)
    return (
        f"Of {len(shares)} graphs with weights, {whole} can be pruned as good as whole; the prunable share is\n"
        f"{statistics.median(shares):.1f} % in the median, {statistics.mean(shares):.1f} % in the mean. Those below"
        f" {100 * LITTLE:.0f} %:\n\n"
    )


def little(rows: Iterable[Result]) -> str:
    """The graphs with the smallest prunable shares, and why."""
    few = [r for r in rows if r.get("weights") and r["held"] < LITTLE * r["weights"]]
    lines = [[r["graph"], f"{100 * r['held'] / r['weights']:.1f} %", reasons(r)] for r in few]
    return markdown(("graph", "prunable", "what is locked most, and why"), lines)


def whole(rows: Iterable[Result]) -> str:
    """Weights of which nothing can go."""
    lines = []
    for result in rows:
        by_reason: dict[tuple[str, ...], list[list[Any]]] = {}
        for row in result.get("untouched", ()):
            by_reason.setdefault((row[1], *row[3]), []).append(row)
        for (op, *why), found in by_reason.items():
            elements = sum(r[2] for r in found)
            lines.append([result["graph"], f"{len(found)} {op}", f"{elements:,}", found[0][0], "; ".join(why)])
    return markdown(("graph", "weights", "elements", "first", "reasons by axis"), lines)


def axes(rows: Iterable[Result]) -> str:
    """Locked axes by reason."""
    counts: Counter[str] = Counter()
    graphs: dict[str, set[str]] = {}
    example: dict[str, str] = {}
    for result in rows:
        for name, op, axis, size, locked, why in result.get("locked_axes", ()):
            for reason in why:
                counts[reason] += 1
                graphs.setdefault(reason, set()).add(result["graph"])
                example.setdefault(reason, f"{result['graph']}: {op} {name} axis {axis}, {locked} of {size}")
    lines = [[r, str(n), str(len(graphs[r])), example[r]] for r, n in counts.most_common()]
    return markdown(("reason", "axes", "graphs", "for example"), lines)


def _pair(values: Sequence[float] | None) -> str:
    """Before and after, in a unit that fits."""
    if not values:
        return "-"
    scale, letter = next((u for u in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if values[0] >= u[0]), (1, ""))
    return f"{values[0] / scale:.3g} → {values[1] / scale:.3g}{letter}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |\n" for line in lines)
