"""Pictures of results; drawn by matplotlib, which is an extra."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UsageError
from onnxprune.report.charts import NAMED, BarPlot, Chart, HeatPlot, LinePlot, charts_of
from onnxprune.report.labels import short_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Suffix of a file -> what is written into it beside the drawing; dates would make every file another.
FORMATS: Mapping[str, Mapping[str, Any]] = {
    ".svg": {"Date": None, "Creator": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
INCHES_PER_BAR, INCHES_PER_CELL = 0.24, 0.2
LONGEST_NAME, LONGEST_LINE = 40, 60
# Text stays text, names are no formulas, and the same figure gives the same file.
STYLE: Any = {"svg.hashsalt": "onnxprune", "svg.fonttype": "none", "text.parse_math": False}
COLOURS = {"good": "tab:green", "bad": "tab:red", "chosen": "black", "": "tab:blue"}


def check_picture(target: str) -> None:
    """Raise a UsageError, before any work, if nothing can be drawn into the file."""
    suffix = Path(target).suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise UsageError(f"no picture is written as {suffix or target!r}", hint=f"name a file with {known}")
    check_library()


def check_library() -> None:
    """Raise a UsageError if there is nothing to draw with."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError("pictures need matplotlib", hint="pip install 'onnxprune[plot]'") from error


def picture_of(target: str, title: str, document: Mapping[str, Any]) -> bytes:
    """Draw all that there is to draw of a document.

    Args:
        target: the file, whose suffix says how it is drawn.
        title: stands above.
        document: what a command prints with `--json`; with the layers of `diff` in it, these are drawn too.

    Returns:
        The content of the file.

    Raises:
        UsageError: nothing in the document can be drawn.
    """
    charts = charts_of(document)
    if not charts:
        raise UsageError("there is nothing to draw of this result", hint="leave out --picture")
    return saved(figure_of(charts, title), Path(target).suffix.lower())


def saved(figure: Figure, suffix: str) -> bytes:
    """The content of a file with a figure."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=suffix.removeprefix("."), metadata=dict(FORMATS[suffix]))
    return buffer.getvalue()


def figure_of(charts: Sequence[Chart], title: str) -> Figure:
    """Draw charts side by side, in rows of three.

    Args:
        charts: at least one.
        title: stands above.

    Returns:
        A figure of matplotlib.
    """
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(len(charts), 3)
    rows = math.ceil(len(charts) / columns)
    height = sum(max(_height(c) for c in charts[row * columns :][:columns]) for row in range(rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5 * columns, 0.5 + height), layout="constrained")
        figure.suptitle(title)
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, chart in zip(places, charts, strict=False):
            axes.set_title(fill(chart.title, LONGEST_LINE), fontsize="medium")
            _DRAWN[type(chart)](axes, chart)
        for axes in places[len(charts) :]:
            axes.set_axis_off()
    return figure


def _height(of: Chart) -> float:
    if isinstance(of, BarPlot):
        return max(3.0, 1.5 + INCHES_PER_BAR * len(of.bars))
    return 4.5 if isinstance(of, LinePlot) else max(4.5, 1.6 + INCHES_PER_CELL * len(of.rows))


def _draw_lines(axes: Any, of: LinePlot) -> None:
    named = list(of.lines)[:NAMED]
    for n, (name, spots) in enumerate(of.lines.items()):
        style: dict[str, Any] = {"label": _short(name), "zorder": 3} if name in named else {"color": "0.75"}
        axes.plot([s.x for s in spots], [s.y for s in spots], marker=".", linewidth=1, gid=f"line-{n}", **style)
    for n, spot in enumerate(of.spots):
        ring = {"marker": "o", "markersize": 11, "fillstyle": "none", "zorder": 4, "label": _new(axes, "chosen")}
        style = ring if spot.kind == "chosen" else {"marker": "o", "zorder": 5}
        identity = f"trial-{spot.number}" if spot.number else f"chosen-{n}"
        axes.plot(spot.x, spot.y, color=COLOURS[spot.kind], linestyle="", gid=identity, **style)
        if spot.number:
            axes.annotate(str(spot.number), (spot.x, spot.y), (4, 4), textcoords="offset points", fontsize="x-small")
    if of.bound is not None:
        axes.axhline(of.bound[0], color="black", linestyle=":", label=of.bound[1])
    if of.is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xlabel(of.x)
    axes.set_ylabel(of.y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")


def _new(axes: Any, label: str) -> str:
    """A label of the legend; none where it is there already."""
    return "_" if label in axes.get_legend_handles_labels()[1] else label


def _draw_bars(axes: Any, of: BarPlot) -> None:
    places = range(len(of.bars))
    locked = ["//" if bar.locked else "" for bar in of.bars]
    if of.compares:
        axes.barh(places, [bar.before for bar in of.bars], color="0.8", label=of.names[0])
    axes.barh(places, [bar.after for bar in of.bars], color="tab:blue", height=0.5, hatch=locked, label=of.names[1])
    labels = short_labels([bar.name for bar in of.bars])
    axes.set_yticks(places, [_short(label) for label in labels], fontsize="x-small")
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: of.write(value))
    axes.tick_params("x", labelsize="x-small")
    axes.set_xlabel(of.measure)
    if of.compares:
        axes.legend(fontsize="x-small")


def _draw_heat(axes: Any, of: HeatPlot) -> None:
    image = axes.imshow(of.levels, aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(of.columns)), of.columns)
    axes.set_yticks(range(len(of.rows)), [_short(name) for name in of.rows], fontsize="xx-small")
    for row, (place, _) in of.marks.items():
        axes.plot(place, row, marker="x", color="red", markersize=5, gid=f"cut-{row}")
    axes.set_xlabel(of.x)
    axes.figure.colorbar(image, ax=axes, label="log10 of the damage")


_DRAWN: Mapping[type, Any] = {LinePlot: _draw_lines, BarPlot: _draw_bars, HeatPlot: _draw_heat}


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"
