"""How results are written for people."""

from __future__ import annotations

import math

import pytest

from onnxprune.cost import Cost
from onnxprune.cost.counts import LayerCost
from onnxprune.proof import Verdict
from onnxprune.report import data, numbers, text


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


def test_table():
    lines = text.table(("name", "n"), [("a", "1"), ("bcdef", "20")], ("n",))
    assert lines == ["name    n", "a       1", "bcdef  20"]
    assert text.table(("name",), []) == ["name"]


def test_verdict_without_a_figure():
    failed = Verdict(False, math.nan, 1e-4, "the pruned model does not run", {"y": math.inf})
    assert text.proof(failed) == "failed: the pruned model does not run"
    assert data.verdict(failed)["error"] is None and data.verdict(failed)["outputs"] == {"y": None}


def test_layers_are_paired_by_name_and_order():
    def layer(name: str, *shape: int) -> LayerCost:
        return LayerCost(name, "Conv", "w", shape, math.prod(shape), 0)

    before = [layer("a", 4, 3), layer("b", 8, 4), layer("b", 9, 4)]
    after = [layer("b", 8, 2), layer("b", 9, 4), layer("c", 5, 5)]
    pairs = data.pair(before, after)
    assert [(p.name, p.before, p.after, p.changed) for p in pairs] == [
        ("a", (4, 3), None, True),
        ("b", (8, 4), (8, 2), True),
        ("b", (9, 4), (9, 4), False),
        ("c", None, (5, 5), True),
    ]
    lines = text.difference_lines(Cost(80, 0, 320, ()), Cost(77, 0, 308, ()), pairs, every=False)
    assert lines[-1] == "1 layer unchanged" and any("4x3" in x and " - " in x for x in lines)
