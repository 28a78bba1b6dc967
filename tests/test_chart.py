"""The picture of the README shows what the table in docs/accuracy.md says."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tests.measure.accuracy_chart import LEFT, PICTURE, RIGHT, TABLE, drawn, rows


def test_the_picture_is_that_of_the_table() -> None:
    found = rows(TABLE.read_text(encoding="utf-8"))
    assert PICTURE.read_text(encoding="utf-8") == drawn(found), "python -m tests.measure.accuracy_chart"
    assert len(found) == len({(row.network, row.peer) for row in found}) > 5
    assert all(row.repaired <= row.original <= 100 and row.left < 70 for row in found)


def test_the_picture_keeps_inside_its_frame_and_has_both_settings() -> None:
    text = PICTURE.read_text(encoding="utf-8")
    marks = ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}circle")
    assert all(LEFT <= float(mark.get("cx", 0)) <= RIGHT for mark in marks if float(mark.get("cy", 0)) > 50)
    light, _, dark = text.partition("@media (prefers-color-scheme: dark)")
    names = set(re.findall(r"\.(\w+) \{[^}]*#", light))
    assert names and names <= set(re.findall(r"\.(\w+) \{", dark))
