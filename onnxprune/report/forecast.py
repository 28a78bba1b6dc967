"""What ratios would leave of a model, as text and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxprune.report import numbers
from onnxprune.report.text import table

if TYPE_CHECKING:
    from onnxprune.allocation.forecast import Forecast


def forecast_lines(rows: Sequence[Forecast]) -> list[str]:
    """Lay out a table, each figure beside its share of the first row's.

    Args:
        rows: the model as it is, and what ratios leave.

    Returns:
        Lines of text.
    """
    first = rows[0]
    header = ["ratio", "units", "params", "", "MACs", "", "file", "", *(["time", ""] if first.seconds else [])]
    shown = []
    for row in rows:
        cells = [f"{row.ratio:.0%}", f"{row.units:,}"]
        for name, write in (("params", numbers.count), ("macs", numbers.count), ("size", numbers.bytes_text)):
            cells += [write(getattr(row, name)), numbers.percent(getattr(row, name), getattr(first, name))]
        if first.seconds and row.seconds is not None:
            cells += [numbers.duration(row.seconds), numbers.percent(row.seconds, first.seconds)]
        shown.append(cells)
    return table(header, shown, header)


def forecast_data(rows: Sequence[Forecast]) -> list[dict[str, Any]]:
    """Turn rows into plain data."""
    return [asdict(row) for row in rows]
