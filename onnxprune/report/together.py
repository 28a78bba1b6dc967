"""Blocks that went together with units: which ones, and what units alone would have cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnxprune.report import numbers

if TYPE_CHECKING:
    from onnxprune.pipelines.prune import Outcome
    from onnxprune.runtime import Agreement


def together_lines(result: Outcome) -> list[tuple[str, str]]:
    """Write which blocks went, and what that is worth.

    Args:
        result: what pruning gave.

    Returns:
        Titles and texts; none where blocks were not asked for.
    """
    if not result.plan.options.get("drop"):
        return []
    if result.dropped is None:
        return [("dropped", "no block: units alone do less damage for what they save")]
    names = ", ".join(scored.block.name for scored in result.dropped.dropped)
    lines = [("dropped", f"{numbers.plural(len(result.dropped.dropped), 'block')}: {names}")]
    if result.judged is not None and result.instead is not None:
        lines.append(("", f"{told(result.judged)} on held-out samples; units alone: {told(result.instead)}"))
    return lines


def told(of: Agreement) -> str:
    """Write how far outputs agree.

    Args:
        of: what was measured.

    Returns:
        A few words.
    """
    same = "" if of.top1 is None else f", same class {of.top1:.0%}"
    return f"squared output error {of.error:.2g}{same}"


def together_data(result: Outcome) -> dict[str, Any] | None:
    """Write the same as plain data.

    Args:
        result: what pruning gave.

    Returns:
        The blocks, and the error of the outputs with them and with units alone; None where no block went.
    """
    if result.dropped is None:
        return None
    forms = {name: stand.form for stand in result.dropped.stand_ins for name in stand.blocks}
    blocks = [
        {"name": b.block.name, "params": b.params, "macs": b.macs, "form": forms.get(b.block.name, "none")}
        for b in result.dropped.dropped
    ]
    return {"blocks": blocks, "error": error_of(result.judged), "units_alone": error_of(result.instead)}


def error_of(of: Agreement | None) -> float | None:
    """Take the squared error of outputs out of what was measured.

    Args:
        of: what was measured.

    Returns:
        The error; None where it is not known, or no number.
    """
    return None if of is None or not math.isfinite(of.error) else of.error
