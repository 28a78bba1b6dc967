"""The models that a search tried, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.report import numbers
from onnxprune.report.text import entry, table

if TYPE_CHECKING:
    from onnxprune.pipelines.search import Found
    from onnxprune.pipelines.search_targets import QualityConstraint
    from onnxprune.pipelines.search_trials import Trial


def search_lines(of: Found) -> list[str]:
    """A row per trial, largest first, and what was asked for and found."""
    metrics = [t.metric for t in of.settings.targets]
    front = {id(t) for t in of.front}
    numbered = sorted(enumerate(of.trials, 1), key=lambda pair: -pair[1].reached)
    rows = [
        (f"{n}", *_cells(t, metrics), "yes" if t.good else "no", "*" if id(t) in front else "") for n, t in numbered
    ]
    header = ("trial", "MACs", "params", *metrics, "good", "front")
    made = table(header, rows, ("trial", "MACs", "params", *metrics))
    found = ", ".join(f"{m} {of.values[m]:.5g}" for m in metrics)
    known = [f"{of.known} of {len(of.trials)} trials were known"] if of.known else []
    made.append(entry("front", "* where no other trial is both smaller and better"))
    return [*made, *known, entry("asked", ", ".join(bound(t, of) for t in of.settings.targets)), entry("found", found)]


def bound(target: QualityConstraint, of: Found) -> str:
    """What was asked for, in terms of the metric."""
    from onnxprune.pipelines.search_targets import RISING

    return f"{target.metric} of at {'least' if target.metric in RISING else 'most'} {target.bound(of.whole):.5g}"


def _cells(trial: Trial, metrics: list[str]) -> list[str]:
    return [
        numbers.count(trial.macs),
        numbers.count(trial.params),
        *(f"{trial.values[m]:.5g}" for m in metrics),
    ]
