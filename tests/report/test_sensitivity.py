"""Curves of groups, as lines."""

from __future__ import annotations

import functools

import pytest

import onnxprune
from onnxprune.pipelines import Sensitivity
from onnxprune.report import sensitivity as report
from tests.report.runs import DIGITS


@functools.cache
def measured(metric: str) -> Sensitivity:
    return onnxprune.sensitivity(DIGITS, "random", samples=16, ratios=(0.25, 0.5), metric=metric)


def test_a_row_per_group_and_a_column_per_ratio() -> None:
    found = measured("error")
    lines = report.sensitivity_lines(found)
    assert lines[0].split() == ["group", "units", "25%", "50%", "chosen"]
    assert [line.split()[0] for line in lines[1 : 1 + len(found.curves)]] == [c.group for c in found.curves]
    assert any("squared output error" in line for line in lines) and any(
        "8 cuts, 8 measured now" in line for line in lines
    )


def test_fragile_groups_come_first() -> None:
    found = measured("error")
    damage = [sum(found.damage(p) / p.ratio for p in c.points) / len(c.points) for c in report.fragile(found)]
    assert damage == sorted(damage, reverse=True)


@pytest.mark.parametrize("metric", ["error", "sqnr", "top1"])
def test_values_are_written_by_their_metric(metric: str) -> None:
    found = measured(metric)
    point = found.curves[0].points[0]
    said, number = report.value(found, point), found.value(point)
    assert said == {"error": f"{number:.3g}", "sqnr": f"{number:.1f}", "top1": f"{100 * number:.1f} %"}[metric]
