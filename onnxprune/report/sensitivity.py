"""What cutting each group costs, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.report import numbers
from onnxprune.report.text import entry, table

if TYPE_CHECKING:
    from onnxprune.pipelines import Curve, Point, Sensitivity

MEANING = {
    "error": "squared output error, relative to the deviation of the outputs",
    "sqnr": "signal to noise of the outputs, dB",
    "cosine": "cosine between the outputs",
    "kl": "divergence of the class probabilities, nats",
    "top1": "same class as the original",
    "value": "value of --eval",
}


def sensitivity_lines(of: Sensitivity) -> list[str]:
    """A row per group: the value at each ratio, and what the options remove."""
    names = [f"{ratio:.0%}" for ratio in sorted(of.ratios)]
    rows = [
        (c.group, f"{c.units:,}", *(_cell(of, c.at(r)) for r in sorted(of.ratios)), _share(of.chosen.get(c.group)))
        for c in of.curves
    ]
    numeric = ("units", *names, "chosen")
    total = sum(len(c.points) for c in of.curves)
    account = f"{numbers.plural(total, 'cut')}, {of.measured:,} measured now in {numbers.seconds(of.seconds)}"
    made = [*table(("group", "units", *names, "chosen"), rows, numeric), ""]
    made.append(entry("values", f"{MEANING[of.metric]}, with that share of one group's units removed"))
    if of.whole:
        made.append(entry("original", f"{of.whole['value']:.6g}"))
    made.append(entry("fragile", ", ".join(c.group for c in fragile(of)[:3])))
    return [*made, entry("measured", account)]


def fragile(of: Sensitivity) -> list[Curve]:
    """The groups, the one with the largest mean damage per share removed first."""
    return sorted(of.curves, key=lambda c: -sum(of.damage(p) / p.ratio for p in c.points) / len(c.points))


def value(of: Sensitivity, point: Point) -> str:
    """A measurement as people read it."""
    found = of.value(point)
    if of.metric == "top1":
        return numbers.percent(found)
    return f"{found:.1f}" if of.metric == "sqnr" else f"{found:.4g}" if of.metric == "value" else f"{found:.3g}"


def _cell(of: Sensitivity, point: Point | None) -> str:
    return "-" if point is None else value(of, point)


def _share(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.0%}"
