"""Pictures, as SVG; drawn by matplotlib, which is an extra."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.report.sensitivity import MEANING, fragile

if TYPE_CHECKING:
    from onnxprune.pipelines import Sensitivity
    from onnxprune.pipelines.search import Found

# Curves that are named; the others are grey, so that a model of a hundred groups can be read.
NAMED = 8
INCHES_PER_GROUP = 0.2
LONGEST_NAME = 40
# Text stays text, names are no formulas, and the same figure gives the same file.
STYLE: Any = {"svg.hashsalt": "onnxprune", "svg.fonttype": "none", "text.parse_math": False}


def check_library() -> None:
    """Raise a UsageError, before any work, if there is nothing to draw with."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError("pictures need matplotlib", hint="pip install 'onnxprune[plot]'") from error


def of_sensitivity(found: Sensitivity, title: str) -> str:
    """Curves of all groups, and a heat map with the chosen cut marked."""
    import matplotlib
    from matplotlib.figure import Figure

    height = max(4.0, 1.6 + INCHES_PER_GROUP * len(found.curves))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, height), layout="constrained")
        figure.suptitle(f"{title}: {MEANING[found.metric]}")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
        _curves(left, found)
        _heat(figure, right, found)
        return _svg(figure)


def _curves(axes: Any, found: Sensitivity) -> None:
    named = {c.group for c in fragile(found)[:NAMED]}
    for curve in found.curves:
        places = [100 * p.ratio for p in curve.points]
        style: dict[str, Any] = (
            {"label": _short(curve.group), "zorder": 3} if curve.group in named else {"color": "0.75"}
        )
        axes.plot(places, [found.value(p) for p in curve.points], marker=".", linewidth=1, **style)
    if found.metric in ("error", "kl") and any(found.value(p) > 0 for c in found.curves for p in c.points):
        axes.set_yscale("log")
    axes.set_xlabel("units of one group removed, %")
    axes.set_ylabel(found.metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", title="most fragile groups", title_fontsize="x-small")


def _heat(figure: Any, axes: Any, found: Sensitivity) -> None:
    ratios = sorted(found.ratios)
    cells = [[c.at(r) for r in ratios] for c in found.curves]
    damage = np.array([[0.0 if p is None else found.damage(p) for p in row] for row in cells])
    positive = damage[damage > 0]
    floor = positive.min() if positive.size else 1e-12
    image = axes.imshow(np.log10(np.maximum(damage, floor)), aspect="auto", cmap="viridis")
    axes.set_xticks(range(len(ratios)), [f"{100 * r:g} %" for r in ratios])
    axes.set_yticks(range(len(cells)), [_short(c.group) for c in found.curves], fontsize="xx-small")
    for row, curve in enumerate(found.curves):
        if curve.group in found.chosen:
            place = np.interp(found.chosen[curve.group], ratios, range(len(ratios)))
            axes.plot(place, row, marker="x", color="red", markersize=5, gid=f"chosen-{row}")
    axes.set_xlabel("removed; x marks the chosen cut")
    figure.colorbar(image, ax=axes, label="log10 of the damage")


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"


def _svg(figure: Any) -> str:
    """The figure as text, without the date."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue().decode()


def of_search(found: Found, title: str) -> str:
    """All models that were tried, their Pareto front, the bound, and the model that was chosen."""
    import matplotlib
    from matplotlib.figure import Figure

    target, kind = found.settings.targets[0], found.settings.cost
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        for number, trial in enumerate(found.trials, 1):
            place = getattr(trial, kind), trial.values[target.metric]
            colour = "tab:green" if trial.good else "tab:red"
            axes.plot(*place, marker="o", linestyle="", color=colour, gid=f"trial-{number}")
            axes.annotate(str(number), place, xytext=(4, 4), textcoords="offset points", fontsize="x-small")
        front = found.front
        places = [getattr(t, kind) for t in front], [t.values[target.metric] for t in front]
        axes.plot(*places, color="0.6", zorder=0, label="Pareto front", gid="front")
        axes.axhline(target.bound(found.whole), color="black", linestyle=":", label="bound")
        chosen = getattr(found.outcome.after, kind), found.values[target.metric]
        axes.plot(*chosen, marker="*", markersize=14, linestyle="", color="tab:green", zorder=0, label="chosen")
        axes.set_xlabel(kind)
        axes.set_ylabel(target.metric)
        axes.grid(alpha=0.3)
        axes.legend()
        return _svg(figure)
