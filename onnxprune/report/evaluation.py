"""What models score on data, as text and as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxprune.report.sparsify import speed_data, speed_text
from onnxprune.report.text import table

if TYPE_CHECKING:
    from onnxprune.pipelines.evaluate import Evaluated, ModelScores
    from onnxprune.sparsity import Speed

# Measures that are no shares, so that percent would lie.
PLAIN = frozenset(("mae", "rmse", "r2", "value", "auc"))


def evaluation_lines(of: Evaluated, names: Sequence[str], speeds: Sequence[Speed] = ()) -> list[str]:
    """Say what models score: a table with a column for each, and what labels changed.

    Args:
        of: the scores.
        names: what the models are called.
        speeds: of all but the first, where times were measured.

    Returns:
        Lines of text.
    """
    measures = list(dict.fromkeys(name for model in of.models for name in model.metrics))
    rows = [[name, *(_shown(name, model.metrics.get(name)) for model in of.models)] for name in measures]
    rows += _agreements(of)
    lines = table(["", *names], rows, names)
    if of.labels:
        lines += ["", f"labels   {of.labels:,}{_deviation(of)}"]
    for name, model in zip(names, of.models, strict=True):
        if model.changes is not None:
            changes = model.changes
            lines.append(
                f"changed  {name}: {changes.lost:,} labels lost, {changes.gained:,} gained; {changes.both:,} found "
                f"by both, {changes.neither:,} by neither"
            )
    timed = [f"speed    {name}: {speed_text(speed)}" for name, speed in zip(names[1:], speeds, strict=False)]
    return [*lines, *([""] if timed and not of.labels else []), *timed]


def evaluation_data(of: Evaluated, names: Sequence[str], speeds: Sequence[Speed] = ()) -> dict[str, Any]:
    """Turn scores into plain data.

    Args:
        of: the scores.
        names: what the models are called.
        speeds: of all but the first, where times were measured.

    Returns:
        What `--json` prints; numbers that are not defined are null.
    """
    models = [_plain(name, model) for name, model in zip(names, of.models, strict=True)]
    for model, speed in zip(models[1:], speeds, strict=False):
        model["speed"] = speed_data(speed)
    return {"labels": of.labels, "models": models}


def _plain(name: str, model: ModelScores) -> dict[str, Any]:
    found: dict[str, Any] = {"model": name, "metrics": {n: _number(value) for n, value in model.metrics.items()}}
    if model.agreement is not None:
        values = ("error", "sqnr", "cosine", "top1", "kl")
        found["agreement"] = {n: _number(getattr(model.agreement, n)) for n in values}
    if model.changes is not None:
        found["changes"] = asdict(model.changes)
    return found


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _shown(name: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4g}" if name in PLAIN else f"{100 * value:.2f} %"


def _agreements(of: Evaluated) -> list[list[str]]:
    """Rows of how far the others agree with the first."""
    known = [model.agreement for model in of.models]
    rows = []
    for name, field, unit in (
        ("same class", "top1", ""),
        ("signal to noise", "sqnr", " dB"),
        ("divergence", "kl", " nats"),
    ):
        values = [None if agreement is None else getattr(agreement, field) for agreement in known]
        if any(value is not None and math.isfinite(value) for value in values):
            shown = [_shown("same" if field == "top1" else "value", value) for value in values]
            rows.append([name, *(text + unit if text != "-" else text for text in shown)])
    return rows


def _deviation(of: Evaluated) -> str:
    """The standard error of an accuracy."""
    share = of.models[0].metrics.get("accuracy", math.nan)
    if math.isnan(share):
        return ""
    return f", standard error of an accuracy {100 * math.sqrt(share * (1 - share) / of.labels):.2f} %"
