"""Exchanges of units between groups: how many were kept, and what they gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxprune.report.together import error_of, told

if TYPE_CHECKING:
    from onnxprune.pipelines.prune import Outcome


def exchange_lines(result: Outcome) -> list[tuple[str, str]]:
    """Write what exchanges gave.

    Args:
        result: what pruning gave.

    Returns:
        Titles and texts; none where none were tried.
    """
    done = result.exchanged
    if done is None:
        return []
    text = f"{done.kept} of {done.tried:,} kept"
    if done.kept:
        text += f"; {told(done.before)} before, {told(done.after)} after, on the samples that repair, too"
    return [("exchange", text)]


def exchange_data(result: Outcome) -> dict[str, Any] | None:
    """Write the same as plain data.

    Args:
        result: what pruning gave.

    Returns:
        How many were tried and kept, and the error of the outputs before and after; None where none were tried.
    """
    done = result.exchanged
    if done is None:
        return None
    return {"tried": done.tried, "kept": done.kept, "before": error_of(done.before), "after": error_of(done.after)}
