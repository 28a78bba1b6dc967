"""Pictures of curves, as SVG."""

from __future__ import annotations

import sys
from xml.etree import ElementTree

import pytest

from onnxprune.errors import UsageError
from onnxprune.report import picture
from tests.report.test_sensitivity import measured


def test_a_picture_is_svg_with_text_and_the_same_each_time() -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    drawn = picture.of_sensitivity(measured("error"), "digits")
    root = ElementTree.fromstring(drawn)
    text = " ".join("".join(element.itertext()) for element in root.iter())
    assert root.tag.endswith("svg") and "digits: squared output error" in text and "units of one group removed" in text
    assert all(curve.group in text for curve in measured("error").curves)
    assert drawn == picture.of_sensitivity(measured("error"), "digits")


def test_long_names_are_shortened() -> None:
    name = "a" * 30 + "b" * 30
    assert (
        picture._short(name) == "..." + name[-(picture.LONGEST_NAME - 3) :]
        and picture._short("fc.weight") == "fc.weight"
    )


def test_without_the_library_it_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="pictures need matplotlib"):
        picture.check_library()
