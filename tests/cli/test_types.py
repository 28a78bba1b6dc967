"""Values of options: what is read, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import click
import pytest

from onnxprune.cli import types


def read(kind: click.ParamType, text: Any) -> Any:
    return kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (types.Ratio(), "0.5", 0.5),
        (types.Ratio(), " 50% ", 0.5),
        (types.Ratio(), 0.25, 0.25),
        (types.Ratios(), "0.1,50%", (0.1, 0.5)),
        (types.Ratios(), [0.1, "20%"], (0.1, 0.2)),
        (types.Pair(click.INT), "batch=4", ("batch", 4)),
        (types.Pair(click.STRING), "a=b=c", ("a=b", "c")),
        (types.Interval(), "0:1", ("", (0.0, 1.0))),
        (types.Interval(), "x:0=-1:2.5", ("x:0", (-1.0, 2.5))),
        (types.Shape(), "1x3x224X224", (1, 3, 224, 224)),
        (types.Shape(), "?x3", (None, 3)),
        (types.Shape(), "", ()),
        (types.Multiple(), "8", 8),
        (types.Multiple(), "AUTO", "auto"),
        (types.Counts(), "1, 8", (1, 8)),
        (types.Words(("flip", "shift")), "flip, shift", ("flip", "shift")),
        (types.Seconds(0, 10), "1.5", 1.5),
        (types.Duration(), "90", 90.0),
        (types.Duration(), "1.5s", 1.5),
        (types.Duration(), " 20M ", 1200.0),
        (types.Duration(), "1h30min", 5400.0),
        (types.Duration(), 12, 12.0),
    ],
)
def test_values(kind: click.ParamType, text: Any, value: Any) -> None:
    found = read(kind, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (types.Ratio(), "half", "'half' is not a ratio: write 0.5 or 50%"),
        (types.Ratios(), "0.1,", "is not a ratio"),
        (types.Pair(click.INT), "batch", "is not of the form"),
        (types.Pair(click.INT), "=4", "is not of the form"),
        (types.Pair(click.INT), "batch=x", "not a valid integer"),
        (types.Interval(), "1:0", "is not a range"),
        (types.Interval(), "0", "is not a range"),
        (types.Interval(), "=0:1", "is not a range"),
        (types.Interval(), "0:inf", "is not a range"),
        (types.Shape(), "1x0", "is not a shape"),
        (types.Shape(), "1x-2", "is not a shape"),
        (types.Multiple(), "0", "is not a positive number"),
        (types.Multiple(), "1.5", "is not a positive number"),
        (types.Counts(), "1,,8", "is not a list of positive numbers"),
        (types.Counts(), "9" * 40, "is not a list of positive numbers"),
        (types.Words(("flip",)), "flap", "'flap' is none of flip"),
        (types.Seconds(0, 10), math.nan, "is not a time"),
        (types.Seconds(0, 10), "11", "range"),
        (types.Duration(), "", "'' is not a time: write 90s, 20m or 1h30m"),
        (types.Duration(), "0", "is not a time"),
        (types.Duration(), "5 minutes", "is not a time"),
        (types.Duration(), "9" * 400, "is not a time"),
        (types.Duration(), True, "is not a time"),
    ],
)
def test_what_is_refused(kind: click.ParamType, text: Any, says: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        read(kind, text)
    assert says in caught.value.message and len(caught.value.message) < 200


def test_values_that_were_read_before_stay() -> None:
    for kind, value in ((types.Ratios(), (0.1,)), (types.Interval(), ("x", (0.0, 1.0))), (types.Shape(), (None, 3))):
        assert read(kind, value) is value
