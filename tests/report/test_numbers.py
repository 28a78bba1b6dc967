"""Numbers as people read them."""

from __future__ import annotations

import pytest

from onnxprune.report import numbers


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (640, "640"), (999, "999"), (1000, "1.0 k"), (25_557_032, "25.6 M"), (4.1e9, "4.1 G"),
        (999_949, "999.9 k"), (999_960, "1.0 M"), (1.5e18, "1500.0 P"),
    ],
)  # fmt: skip
def test_count(value, shown):
    assert numbers.count(value) == shown


def test_size():
    assert [numbers.bytes_text(n) for n in (0, 1023, 1024, 102_450_000, 5 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "97.7 MiB", "5.0 TiB",
    ]  # fmt: skip


def test_percent_says_all_and_nothing_only_where_it_is():
    assert [numbers.percent(n, 100_000) for n in (0, 1, 50_300, 99_999, 100_000)] == [
        "0.0 %", "<0.1 %", "50.3 %", "99.9 %", "100.0 %",
    ]  # fmt: skip
    assert numbers.percent(0, 0) == "-"


def test_change_error_seconds_plural():
    assert numbers.change(200, 100) == "-50.0 %" and numbers.change(0, 3) == "-"
    assert numbers.error(4.1e-7) == "4.1e-07" and numbers.error(0) == "0"
    assert numbers.seconds(0.042) == "0.04 s" and numbers.seconds(12.34) == "12.3 s"
    assert numbers.plural(1, "group") == "1 group" and numbers.plural(1200, "unit") == "1,200 units"
