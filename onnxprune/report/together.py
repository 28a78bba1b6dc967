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
        lines.append(("", f"{_told(result.judged)} on held-out samples; units alone: {_told(result.instead)}"))
    return lines


def _told(of: Agreement) -> str:
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
    return {"blocks": blocks, "error": _error(result.judged), "units_alone": _error(result.instead)}


def _error(of: Agreement | None) -> float | None:
    return None if of is None or not math.isfinite(of.error) else of.error
