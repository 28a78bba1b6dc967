"""Pictures of measurements show what the tables in docs say."""

from __future__ import annotations

import re
from types import ModuleType
from xml.etree import ElementTree

import pytest

from tests.measure import accuracy_chart, widths_and_bits_chart

CHARTS = (accuracy_chart, widths_and_bits_chart)


@pytest.mark.parametrize("chart", CHARTS)
def test_the_picture_is_that_of_the_table(chart: ModuleType) -> None:
    found = chart.rows(chart.TABLE.read_text(encoding="utf-8"))
    assert chart.PICTURE.read_text(encoding="utf-8") == chart.drawn(found), f"python -m {chart.__name__}"
    assert len(found) >= 5


def test_no_row_is_drawn_twice_and_none_is_better_than_the_original() -> None:
    found = accuracy_chart.rows(accuracy_chart.TABLE.read_text(encoding="utf-8"))
    assert len(found) == len({(row.network, row.peer) for row in found})
    assert all(row.repaired <= row.original <= 100 and row.left < 70 for row in found)


@pytest.mark.parametrize("chart", CHARTS)
def test_the_picture_keeps_inside_its_frame_and_has_both_settings(chart: ModuleType) -> None:
    text = chart.PICTURE.read_text(encoding="utf-8")
    marks = ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}circle")
    places = [float(mark.get("cx", 0)) for mark in marks if float(mark.get("cy", 0)) > 50]
    assert places and all(chart.LEFT <= place <= chart.RIGHT for place in places)
    light, _, dark = text.partition("@media (prefers-color-scheme: dark)")
    names = set(re.findall(r"\.(\w+) \{[^}]*#", light))
    assert names and names <= set(re.findall(r"\.(\w+) \{", dark))
