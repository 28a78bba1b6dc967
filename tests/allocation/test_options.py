"""Options: what is refused, and what follows from what was asked for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from onnxprune.allocation import Options
from onnxprune.allocation.options import FIRST_RATIO, MOST_STEPS, WIDEST
from onnxprune.errors import UsageError


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ratio": 1.0}, "ratio is 1.0"),
        ({"ratio": "half"}, "ratio is 'half'"),
        ({"ratios": {"fc": -0.1}}, "fc is -0.1"),
        ({"max_ratio": 1}, "max_ratio is 1"),
        ({"keep": "fc*"}, "keep is a text"),
        ({"only": "fc*"}, "only is a text"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": MOST_STEPS + 1}, "steps is"),
        ({"round_to": 0}, "round_to is 0"),
        ({"round_to": WIDEST + 1}, "round_to is"),
        ({"round_to": "most"}, "round_to is 'most'"),
        ({"allocation": "best"}, "no allocation is called 'best'"),
        ({"aggregate": "median"}, "no aggregation is called 'median'"),
        ({"normalize": "rank"}, "no normalization is called 'rank'"),
        ({"step_schedule": "now"}, "no step schedule is called 'now'"),
        ({"macs": "fast"}, "macs"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Options(**options)


@pytest.mark.parametrize(
    ("options", "share", "strategy", "plain"),
    [
        ({}, 0.5, "uniform", True),
        ({"ratio": 0.0}, 0.0, "uniform", True),
        ({"macs": "50%", "criterion": "l2"}, 0.0, "global", False),
        ({"macs": "50%", "criterion": "obs"}, 0.0, "greedy", False),
        ({"macs": "50%", "ratio": 0.3}, 0.3, None, False),
        ({"allocation": "uniform", "macs": "50%"}, 0.0, "uniform", False),
        ({"allocation": "global"}, 0.5, "global", False),
    ],
)
def test_what_follows(options: dict[str, Any], share: float, strategy: str | None, plain: bool) -> None:
    made = Options(**options)
    assert made.share == share and made.is_plain is plain and strategy in (None, made.strategy)


def test_budgets_on_time_are_careful_and_aligned() -> None:
    timed = Options(latency="50%")
    assert timed.is_timed and timed.is_aligned and timed.caps == (FIRST_RATIO, timed.max_ratio) and timed.multiple == 1
    rounded = Options(latency="50%", round_to=8)
    assert not rounded.is_aligned and rounded.multiple == 8
    assert not Options(macs="50%").is_timed and Options(macs="50%").caps == (0.9,)
    assert Options(round_to="auto").is_aligned


def test_auto_goes_by_the_data() -> None:
    assert Options().settled(data=False).criterion == "l2" and Options().settled(data=True).criterion == "obs"
    named = Options(criterion="fpgm")
    assert named.settled(data=True) is named


def test_plain_values_for_a_plan() -> None:
    def mine(groups: Any, rng: np.random.Generator) -> np.ndarray:
        return rng.random(1)

    told = json.loads(json.dumps(Options(criterion=mine, keep=("a*",), rows={"ids": [1, 2]}).as_json()))
    assert told["criterion"] == "mine" and told["keep"] == ["a*"] and told["rows"] == ["ids"]
    assert Options(head_dims=True).policy == {"heads": True, "head_dims": True, "allow_io_changes": False, "rows": ()}
