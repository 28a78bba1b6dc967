"""Pictures of results, and the text in them."""

from __future__ import annotations

import re
import sys
from xml.etree import ElementTree

import pytest

from onnxprune.errors import UsageError
from onnxprune.report import picture
from tests.report.documents import BENCHED, inspected, measured, pruned, searched

pytest.importorskip("matplotlib", reason="pictures need matplotlib")


def drawn(document: dict) -> ElementTree.Element:
    return ElementTree.fromstring(picture.picture_of("p.svg", "the title", document))


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(e.itertext()).strip() for e in root.iter("{http://www.w3.org/2000/svg}text")]


DOCUMENTS = {
    "sensitivity": measured,
    "search": searched,
    "diff": lambda: pruned()[1],
    "inspect": inspected,
    "bench": lambda: BENCHED,
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_text_in_a_picture_is_what_people_read(name):
    """Names, numbers and units: no formulas of TeX, no escapes."""
    found = texts(drawn(DOCUMENTS[name]()))
    assert "the title" in found
    assert [text for text in found if "$" in text or "\\" in text or "mathdefault" in text] == []


def test_numbers_of_a_logarithmic_axis_are_numbers():
    found = texts(drawn(measured()))
    powers = [text for text in found if re.fullmatch(r"1e-\d\d|0\.0*1|1", text)]
    assert len(powers) >= 2, found


def test_a_picture_names_all_that_is_in_it():
    assert {c["group"] for c in measured()["curves"]} <= {*texts(drawn(measured()))}
    assert {"Pareto front", "asked for", "chosen", "1", "2"} <= {*texts(drawn(searched()))}
    layers = [x["name"] for x in pruned()[1]["layers"]]
    assert {*layers, "before", "after", "Widths of the layers"} <= {*texts(drawn(pruned()[1]))}
    assert {"a.onnx, batch 1", "median", "95th percentile"} <= {*texts(drawn(BENCHED))}
    assert {g["name"] for g in inspected()["groups"]} <= {*texts(drawn(inspected()))}


def test_names_are_no_formulas_and_no_markup():
    document = {"groups": [{"name": "$x_1$ <b>&", "kind": "channel", "units": 2, "params": 5, "macs": 5}]}
    assert "$x_1$ <b>&" in texts(drawn(document))


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("PDF", b"%PDF")])
def test_the_suffix_says_what_is_written_and_the_same_each_time(suffix, start):
    first, second = (picture.picture_of(f"p.{suffix}", "t", BENCHED) for _ in range(2))
    assert first.startswith(start) and first == second


@pytest.mark.parametrize("name", ["p.jpg", "p", "p.svg.gz"])
def test_an_unknown_suffix_is_refused(name):
    with pytest.raises(UsageError, match="no picture is written as") as raised:
        picture.check_picture(name)
    assert ".svg, .png, .pdf" in raised.value.hint


def test_nothing_to_draw_is_said():
    with pytest.raises(UsageError, match="nothing to draw"):
        picture.picture_of("p.svg", "t", {})


def test_long_names_are_shortened():
    name = "a" * 30 + "b" * 30
    assert picture._short(name) == "..." + name[-(picture.LONGEST_NAME - 3) :]
    assert picture._short("fc.weight") == "fc.weight"


def test_without_the_library_it_is_said_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="pictures need matplotlib"):
        picture.check_picture("p.svg")
