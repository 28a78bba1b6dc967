"""What is drawn of a document: points, lines and bars as plain data, for the page and for pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxprune.report import numbers
from onnxprune.report.tables import cell, records_at

Document = Mapping[str, Any]
# Lines that are named; the others are grey, so that a model of a hundred groups can be read.
NAMED = 8


@dataclass(frozen=True)
class Spot:
    """A point of a plot.

    Attributes:
        x: its place.
        y: its place.
        told: what there is to say of it.
        kind: "good", "bad" or "chosen"; empty for a point of a line.
        number: of a trial, from 1; 0 for none.
    """

    x: float
    y: float
    told: tuple[str, ...] = ()
    kind: str = ""
    number: int = 0


@dataclass(frozen=True)
class LinePlot:
    """Lines and points over two axes.

    Attributes:
        title: what is shown.
        x: what the first axis is.
        y: what the second axis is.
        lines: name -> points, from left to right; the first `NAMED` of them matter most.
        spots: points that belong to no line.
        bound: a limit on y, and its name.
        is_log: whether y is drawn by its logarithm.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, tuple[Spot, ...]] = field(default_factory=dict)
    spots: tuple[Spot, ...] = ()
    bound: tuple[float, str] | None = None
    is_log: bool = False

    @property
    def all_spots(self) -> list[Spot]:
        """Every point."""
        return [*(spot for line in self.lines.values() for spot in line), *self.spots]


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: what it stands for.
        before: its length in the first model.
        after: its length in the second model; of a single model, the same.
        told: what there is to say of it.
        locked: why it cannot be shorter; empty if nothing stands against it.
    """

    name: str
    before: float
    after: float
    told: tuple[str, ...] = ()
    locked: str = ""


@dataclass(frozen=True)
class BarPlot:
    """Bars, one below the other.

    Attributes:
        title: what is shown.
        measure: what the lengths are.
        bars: from top to bottom.
        write: a length as people read it.
        names: what the two lengths of a bar are.
    """

    title: str
    measure: str
    bars: tuple[Bar, ...]
    write: Callable[[float], str] = numbers.count
    names: tuple[str, str] = ("before", "after")

    @property
    def compares(self) -> bool:
        """Whether the bars have two lengths."""
        return any(bar.before != bar.after for bar in self.bars)


@dataclass(frozen=True)
class HeatPlot:
    """Damage by row and column.

    Attributes:
        title: what is shown.
        x: what the columns are.
        rows: their names.
        columns: their names.
        cells: damage; 0 where nothing was measured.
        marks: row -> the place of its mark between columns, 0 for the first column, and what it says.
    """

    title: str
    x: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[float, ...], ...]
    marks: Mapping[int, tuple[float, str]]

    @property
    def levels(self) -> list[list[float]]:
        """The decimal logarithms; no damage counts as the least that there is."""
        least = min((x for row in self.cells for x in row if x > 0), default=1e-12)
        return [[math.log10(max(x, least)) for x in row] for row in self.cells]

    @property
    def shares(self) -> list[list[float]]:
        """The levels as shares of their range."""
        low, high = (end(x for row in self.levels for x in row) for end in (min, max))
        return [[(x - low) / (high - low) if high > low else 0.0 for x in row] for row in self.levels]


Chart = LinePlot | BarPlot | HeatPlot


def charts_of(document: Document) -> list[Chart]:
    """Find what can be drawn of a document.

    Args:
        document: what a command prints with `--json`.

    Returns:
        The charts, the most telling first.
    """
    makers = (_search, _curves, _layers, _courses, _times, _scores, _groups, _blocks)
    return [chart for make in makers for chart in make(document)]


# --- layers ----------------------------------------------------------------------------------------------


def _layers(of: Document) -> Iterator[Chart]:
    """Widths, parameters and multiply-accumulates of every layer in two models."""
    layers = records_at(of, "layers")
    if not layers:
        return
    locks, fits = locks_of(of), {fit["node"]: fit for fit in records_at(of.get("repair") or {}, "fits")}
    for measure, name in (("width", "Widths"), ("params", "Parameters"), ("macs", "Multiply-accumulates")):
        bars = [_bar(x, measure, locks.get(x["weight"], ""), fits.get(x["name"])) for x in layers if any(x[measure])]
        if bars:
            write = "{:g}".format if measure == "width" else numbers.count
            yield BarPlot(f"{name} of the layers", measure, tuple(bars), write)


def _bar(layer: Document, measure: str, locked: str, fit: Document | None) -> Bar:
    shapes = [cell("shape", layer[side]) for side in ("before", "after")]
    told = [layer["op"], f"weight {' -> '.join(dict.fromkeys(shapes))}" if layer["after"] else "gone"]
    if layer["new_name"] not in (None, layer["name"]):
        told.append(f"called {layer['new_name']} in the second model, matched by {layer['matched']}")
    for field_, name in (("params", "params"), ("macs", "MACs")):
        old, new = layer[field_]
        told.append(f"{name} {numbers.count(old)} -> {numbers.count(new)} ({numbers.change(old, new)})")
    if fit is not None:
        told.append(f"error behind the cut {cell('', fit['before'])}, {cell('', fit['after'])} once re-fitted")
    before, after = layer[measure]
    return Bar(layer["name"] or layer["weight"], before, after, tuple(told), locked)


def locks_of(of: Document) -> dict[str, str]:
    """Why axes of weights are locked, by weight."""
    found: dict[str, list[str]] = {}
    for barrier in records_at(of, "barriers"):
        for member in barrier["members"]:
            found.setdefault(member["tensor"], []).append(f"axis {member['axis']}: {barrier['reason']}")
    return {tensor: "; ".join(dict.fromkeys(whys)) for tensor, whys in found.items()}


# --- sensitivity -----------------------------------------------------------------------------------------


def _curves(of: Document) -> Iterator[Chart]:
    """What cutting each group costs; the cut that was chosen is marked where it lies on its curve."""
    curves = records_at(of, "curves")
    if not curves:
        return
    from onnxprune.report.sensitivity import MEANING

    metric = of["metric"]
    lines = {c["group"]: tuple(_measured(c, p, metric) for p in c["points"]) for c in curves}
    order = sorted(lines, key=lambda name: -_steepness(lines[name], metric, of["whole"].get(metric, 0.0)))
    chosen = [
        Spot(100 * share, _between(lines[name], 100 * share), (name, f"{share:.0%} removed: the chosen cut"), "chosen")
        for name, share in of["chosen"].items()
        if name in lines
    ]
    is_log = metric in ("error", "kl") and any(s.y > 0 for line in lines.values() for s in line)
    told = f"What cutting each group costs: {MEANING[metric]}"
    yield LinePlot(
        told, "units of one group removed, %", metric, {n: lines[n] for n in order}, tuple(chosen), is_log=is_log
    )
    yield _heat(of, metric)


def _heat(of: Document, metric: str) -> HeatPlot:
    """Damage of every group at every ratio, with the cut that was chosen."""
    from onnxprune.pipelines import METRICS

    ratios, whole = sorted(of["ratios"]), of["whole"].get(metric, 0.0)
    cells, marks = [], {}
    for row, curve in enumerate(of["curves"]):
        within = [[p for p in curve["points"] if p["ratio"] <= ratio + 1e-9][-1:] for ratio in ratios]
        cells.append(tuple(max(0.0, METRICS[metric](p[0]["values"][metric], whole)) if p else 0.0 for p in within))
        if (share := of["chosen"].get(curve["group"])) is not None:
            marks[row] = float(np.interp(share, ratios, range(len(ratios)))), f"{share:.0%}"
    columns = tuple(f"{100 * ratio:g} %" for ratio in ratios)
    names = tuple(curve["group"] for curve in of["curves"])
    return HeatPlot(
        title="Damage of every cut",
        x="removed; x marks the chosen cut",
        rows=names,
        columns=columns,
        cells=tuple(cells),
        marks=marks,
    )


def _measured(curve: Document, point: Document, metric: str) -> Spot:
    value = point["values"][metric]
    told = f"{point['removed']:,} of {curve['units']:,} units removed: {metric} {value:.4g}"
    return Spot(100 * point["ratio"], value, (curve["group"], told))


def _steepness(line: Sequence[Spot], metric: str, whole: float) -> float:
    """Mean damage per share removed."""
    from onnxprune.pipelines import METRICS

    return sum(max(0.0, METRICS[metric](s.y, whole)) / s.x for s in line) / max(1, len(line))


def _between(line: Sequence[Spot], x: float) -> float:
    """The height of a line at a place; beyond its ends, that of the end."""
    return float(np.interp(x, [s.x for s in line], [s.y for s in line]))


# --- search ----------------------------------------------------------------------------------------------


def _search(of: Document) -> Iterator[Chart]:
    """All models that were tried, their Pareto front and the bound."""
    if not (search := of.get("search")):
        return
    kind, target = search["cost"], search["targets"][0]
    trials = [(n, t) for n, t in enumerate(search["trials"], 1) if target["metric"] in t["values"]]
    if not (spots := [_trial(n, t, kind, target["metric"]) for n, t in trials]):
        return
    front = [s for s, (_, t) in zip(spots, trials, strict=True) if t["pareto"]]
    good = sorted((s for s in spots if s.kind == "good"), key=lambda s: s.x)
    named = [s for s, (_, t) in zip(spots, trials, strict=True) if t.get("chosen")]
    told = ("the one that was chosen" if named else "the smallest that is good enough",)
    chosen = [replace(s, told=told, kind="chosen", number=0) for s in (named or good)[:1]]
    yield LinePlot(
        "Models that were tried",
        f"{kind}, % of the original",
        target["metric"],
        {"Pareto front": tuple(Spot(s.x, s.y) for s in sorted(front, key=lambda s: s.x))},
        (*spots, *chosen),
        bound=None if target["bound"] is None else (target["bound"], "asked for"),
    )


def _trial(number: int, of: Document, kind: str, metric: str) -> Spot:
    good = "good enough" if of["good"] else "not good enough"
    told = (
        f"trial {number}: {good}",
        f"{numbers.percent(of['reached'])} of the {kind}: {numbers.count(of['params'])} params, "
        f"{numbers.count(of['macs'])} MACs",
        *(f"{name} {cell(name, value)}" for name, value in of["values"].items()),
    )
    return Spot(100 * of["reached"], of["values"][metric], told, "good" if of["good"] else "bad", number)


# --- training, times, groups -----------------------------------------------------------------------------


def _courses(of: Document) -> Iterator[Chart]:
    """How the loss went while training."""
    for place, training in (("", of), ("training", of.get("training")), ("choosing", of.get("choosing"))):
        course = records_at(training, "course") if isinstance(training, Mapping) else ()
        if not course:
            continue
        lines = {
            name: tuple(_step(p, key, name) for p in course if p[key] is not None)
            for key, name in (("held", "held-out samples"), ("loss", "batches"))
        }
        title = "Loss while choosing" if place == "choosing" else "Loss while training"
        is_log = all(spot.y > 0 for line in lines.values() for spot in line)
        yield LinePlot(title, "step", "loss", {n: line for n, line in lines.items() if line}, is_log=is_log)


def _step(of: Document, key: str, name: str) -> Spot:
    return Spot(of["step"], of[key], (f"step {of['step']}", f"{name} {of[key]:.4g}"))


def _times(of: Document) -> Iterator[Chart]:
    """What runs take, with the 95th percentile."""
    bars = [_timed(m, t) for m in records_at(of, "models") for t in records_at(m, "timings")]
    if bars:
        yield BarPlot("Time of a run", "time", tuple(bars), numbers.duration, ("95th percentile", "median"))


def _timed(model: Document, timing: Document) -> Bar:
    ratio = timing["ratio"]
    compared = f"{ratio['value']:.3f} of the first ({ratio['low']:.3f} to {ratio['high']:.3f})"
    told = (
        f"{timing['throughput']:,.1f} samples a second",
        compared if ratio["differs"] else "no difference measured from the first",
        f"{timing['runs']:,} runs",
    )
    return Bar(f"{model['name']}, batch {timing['batch']}", timing["p95"], timing["median"], told)


def _scores(of: Document) -> Iterator[Chart]:
    """What models score, beside the first of them."""
    first, *others = records_at(of, "models") or [{}]
    for name, value in (first.get("metrics") or {}).items():
        scores = [(m["model"], m["metrics"].get(name)) for m in (first, *others)]
        bars = tuple(Bar(model, value or 0.0, score) for model, score in scores if score is not None)
        if bars:
            yield BarPlot(f"Score: {name}", name, bars, "{:.4g}".format, ("the first", "score"))


def _blocks(of: Document) -> Iterator[Chart]:
    """What blocks hold, and which of them are dropped."""
    blocks = [b for b in records_at(of, "blocks") if b["params"]]
    if blocks:
        bars = [Bar(b["name"], b["params"], 0 if b["dropped"] else b["params"], _held(b), b["stays"]) for b in blocks]
        yield BarPlot("Parameters of the blocks", "params", tuple(bars))


def _held(block: Document) -> tuple[str, ...]:
    held = f"{block['nodes']} nodes, {numbers.count(block['macs'])} MACs"
    return "dropped" if block["dropped"] else block["kind"], held


def _groups(of: Document) -> Iterator[Chart]:
    """What each group of a model holds, where it says so."""
    groups = [g for g in records_at(of, "groups") if "params" in g]
    if not groups:
        return
    bars = [
        Bar(g["name"], g["params"], g["params"], (f"{g['units']:,} units, {g['kind']}", _saved(g)), "") for g in groups
    ]
    yield BarPlot("Parameters that each group holds", "params", tuple(bars))


def _saved(of: Document) -> str:
    time = of.get("time")
    held = f"{numbers.count(of['params'])} params, {numbers.count(of['macs'])} MACs"
    return f"{held}, {numbers.duration(time['seconds'])} of a run" if time else held


def round_numbers(low: float, high: float, most: int = 6, *, is_log: bool = False) -> list[float]:
    """Round numbers for an axis, which lie in a range.

    Args:
        low: its lower end.
        high: its upper end.
        most: about as many numbers.
        is_log: powers of ten, where there are two of them or more.
    """
    if is_log and low > 0:
        powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        if len(powers) > 1:
            return [10.0**p for p in powers[:: math.ceil(len(powers) / most)]]
    span = (high - low) / most
    if not span > 0:
        return [low]
    unit = 10.0 ** math.floor(math.log10(span))
    step = unit * next(f for f in (1, 2, 5, 10) if f * unit >= span * (1 - 1e-9))
    return [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
