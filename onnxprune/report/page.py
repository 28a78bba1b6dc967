"""A result as one page of HTML that needs no network: its document, and what is drawn of it."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.report.charts import NAMED, BarPlot, HeatPlot, LinePlot, Spot, charts_of, locks_of, round_numbers
from onnxprune.report.labels import short_labels
from onnxprune.report.numbers import count, percent
from onnxprune.report.tables import RecordTable, records_at, summary, tables_of
from onnxprune.report.treemap import Tile, squarified

TEMPLATES = Path(__file__).parent / "templates"
# Weights that a treemap shows one by one.
TILES = 60
# Tables that are open when the page is; the others are one click away.
OPEN = ("budgets", "barriers")


@dataclass(frozen=True)
class PageContent:
    """What a page shows.

    Attributes:
        title: the first line: what was made into what.
        document: the result, as `--json` prints it.
        difference: the models before and after, as `diff --json` prints them; empty where there are none.
        lines: the result as it is printed.
        about: the command, versions of libraries, and the files with their hashes, as plain data.
        commands: for every trial of a search, the command that makes its model.
    """

    title: str
    document: Mapping[str, Any]
    difference: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()


def check_templates() -> None:
    """Raise a UsageError, before any work, if there is nothing to write a page with."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise UsageError("--report needs jinja2", hint="pip install jinja2") from error


def page(of: PageContent) -> str:
    """Write the page.

    Args:
        of: what it shows.

    Returns:
        HTML. Nothing in it is loaded from anywhere, and names of a model are text, whatever they hold.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    environment.filters |= {"plot": _placed, "labels": short_labels}
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        of=of,
        main=section_of(of.document, of.difference),
        parts=_parts(of.document),
        script=script,
        style=style,
        script_hash=digest,
    )


@dataclass(frozen=True)
class Section:
    """What is shown of one document.

    Attributes:
        facts: costs before and after.
        proof: the verdict; None where nothing was proven.
        repair: agreement before and after a repair; None without one.
        bars: bars of layers, groups or times.
        plots: lines and points.
        heat: damage by group and ratio.
        weights: rectangles of where the weights are.
        tables: all records.
    """

    facts: Sequence[Any]
    proof: Mapping[str, Any] | None
    repair: Mapping[str, Any] | None
    bars: Sequence[BarPlot]
    plots: Sequence[LinePlot]
    heat: Sequence[HeatPlot]
    weights: Sequence[WeightTile]
    tables: Sequence[RecordTable]


def section_of(document: Mapping[str, Any], difference: Mapping[str, Any]) -> Section:
    """Find what can be shown of a document, and of the models before and after."""
    whole = {**document, **{k: v for k, v in difference.items() if k in ("layers", "operators")}}
    charts, proof, repair = charts_of(whole), document.get("proof"), document.get("repair")
    return Section(
        facts=summary(document, difference),
        proof=proof if isinstance(proof, Mapping) else document if "checks" in document else None,
        repair=repair if isinstance(repair, Mapping) else None,
        bars=[chart for chart in charts if isinstance(chart, BarPlot)],
        plots=[chart for chart in charts if isinstance(chart, LinePlot)],
        heat=[chart for chart in charts if isinstance(chart, HeatPlot)],
        weights=_weights(whole),
        tables=tables_of(whole),
    )


def _parts(document: Mapping[str, Any]) -> list[tuple[str, Section]]:
    """The steps of a recipe, each with what it says of itself."""
    steps = [step for step in records_at(document, "steps") if isinstance(step.get("report"), Mapping)]
    return [(f"Step {n}: {step['verb']}", section_of(step["report"], {})) for n, step in enumerate(steps, 1)]


# --- weights ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WeightTile:
    """A rectangle for the weights of a layer.

    Attributes:
        name: of the layer.
        tile: where it is, in percent.
        left: the share of its elements that is left.
        told: what there is to say of it.
    """

    name: str
    tile: Tile
    left: float
    told: str


def _weights(of: Mapping[str, Any]) -> list[WeightTile]:
    layers = sorted((x for x in records_at(of, "layers") if x["params"][0]), key=lambda x: -x["params"][0])
    total, locks = sum(x["params"][0] for x in layers), locks_of(of)
    shown = [(x["name"] or x["weight"], *x["params"], locks.get(x["weight"], "")) for x in layers[:TILES]]
    if rest := layers[TILES:]:
        name = f"{len(rest)} more layers"
        shown.append((name, sum(x["params"][0] for x in rest), sum(x["params"][1] for x in rest), ""))
    tiles = squarified([old for _, old, _, _ in shown], Tile(0, 0, 100, 100))
    return [
        WeightTile(
            name, tile, new / old, f"{percent(old, total)} of the weights: {count(old)} -> {count(new)}{_why(why)}"
        )
        for (name, old, new, why), tile in zip(shown, tiles, strict=True)
    ]


def _why(locked: str) -> str:
    return f"\nlocked, {locked}" if locked else ""


# --- plots -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """One axis of a plot.

    Attributes:
        low: the number at its start.
        high: the number at its end.
        is_log: whether equal steps are equal ratios.
    """

    low: float
    high: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Where a number lies, in percent of the axis."""
        low, high, at = (math.log10(x) if self.is_log else x for x in (self.low, self.high, max(value, self.low)))
        return round(100 * (at - low) / (high - low), 3)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts of round numbers."""
        return [(self.place(x), f"{x:.6g}") for x in round_numbers(self.low, self.high, is_log=self.is_log)]


@dataclass(frozen=True)
class PlacedPlot:
    """A plot with its axes.

    Attributes:
        plot: what is drawn.
        x: the axis to the right.
        y: the axis upwards.
    """

    plot: LinePlot
    x: Axis
    y: Axis

    def path(self, spots: Sequence[Spot]) -> str:
        """Points of a line in a square of 100, from its upper left corner."""
        return " ".join(f"{self.x.place(s.x):g},{100 - self.y.place(s.y):g}" for s in spots)

    @property
    def named(self) -> list[str]:
        """Names of the lines that matter most."""
        return list(self.plot.lines)[:NAMED]


def _placed(of: LinePlot) -> PlacedPlot:
    """Give a plot axes with room around all its points."""
    spots = of.all_spots
    ys = [s.y for s in spots if s.y > 0 or not of.is_log] + ([of.bound[0]] if of.bound else [])
    return PlacedPlot(of, _axis([s.x for s in spots], is_log=False), _axis(ys, is_log=of.is_log))


def _axis(values: Sequence[float], *, is_log: bool) -> Axis:
    low, high = min(values), max(values)
    if is_log and high > low:
        room = (high / low) ** 0.06
        return Axis(low / room, high * room, True)
    room = 0.06 * (high - low) or abs(high) or 1.0
    return Axis(low - room, high + room)
