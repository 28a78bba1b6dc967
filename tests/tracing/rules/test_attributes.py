"""Attributes, of which nothing is taken for granted."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import helper

from onnxprune.tracing.rules.attributes import Attributes, Unsupported


def of(**attributes: Any) -> Attributes:
    return Attributes.of(helper.make_node("Op", ["x"], ["y"], **attributes))


def test_values_by_name_with_defaults() -> None:
    found = of(axis=2, mode="SAME", pads=[1, 2], alpha=0.5)
    assert (found["axis"], found["mode"], list(found["pads"]), found["alpha"]) == (2, "SAME", [1, 2], 0.5)
    assert found.get("axis", 0) == 2 and found.get("other", 7) == 7 and found.get("other") is None
    assert found.get("axis", 0.5) == 2, "a whole number is a number"


def test_what_is_missing_makes_a_barrier() -> None:
    with pytest.raises(Unsupported, match="attribute 'axis' is missing"):
        _ = of()["axis"]


@pytest.mark.parametrize(
    ("value", "default", "says"),
    [
        ("x", 1, "'axis' is 'x', not a whole number"),
        (0.5, 1, "not a whole number"),
        ([1], 1, "not a whole number"),
        (1, "a", "not a text"),
        (1, [1], "not a list"),
        ("12", (), "not a list"),
        ("x", 0.5, "not a number"),
        ("x" * 500, 1, "x" * 40),
    ],
)
def test_another_type_makes_a_barrier(value: Any, default: Any, says: str) -> None:
    with pytest.raises(Unsupported, match=says) as caught:
        of(axis=value).get("axis", default)
    assert len(str(caught.value)) < 100


def test_bytes_that_are_no_text_are_read_all_the_same() -> None:
    assert isinstance(of(mode=b"\xff\xfe")["mode"], str)
