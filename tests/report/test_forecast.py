"""Expected costs as text and as plain data."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.allocation.forecast import Forecast
from onnxprune.report.forecast import forecast_data, forecast_lines

ROWS = [Forecast(0.0, 84, 14_000, 2e6, 2048, None), Forecast(0.5, 42, 3_500, 5e5, 1024, None)]


def test_lines() -> None:
    header, whole, half = forecast_lines(ROWS)
    assert header.split() == ["ratio", "units", "params", "MACs", "file"]
    assert whole.split() == [
        "0%",
        "84",
        "14.0",
        "k",
        "100.0",
        "%",
        "2.0",
        "M",
        "100.0",
        "%",
        "2.0",
        "KiB",
        "100.0",
        "%",
    ]
    assert half.split() == ["50%", "42", "3.5", "k", "25.0", "%", "500.0", "k", "25.0", "%", "1.0", "KiB", "50.0", "%"]
    timed = [replace(row, seconds=0.002 / (1 + row.ratio)) for row in ROWS]
    assert forecast_lines(timed)[2].endswith("1.333 ms   66.7 %")


def test_data() -> None:
    assert forecast_data(ROWS)[1] == {
        "ratio": 0.5,
        "units": 42,
        "params": 3_500,
        "macs": 5e5,
        "size": 1024,
        "seconds": None,
    }
