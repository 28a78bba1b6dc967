"""Options of drop."""

from __future__ import annotations

from typing import Any

import pytest

from onnxprune.errors import GoalMissed, UsageError
from onnxprune.pipelines.drop_options import DropOptions
from tests.pipelines.test_drop import dropped, residual


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"count": 4}, UsageError, "4 blocks are to go, and 3 may"),
        ({"blocks": ("nothing*",)}, UsageError, "no block is called"),
        ({"count": 1, "keep": ("*",)}, GoalMissed, "no block may go"),
        ({"count": 1, "criterion": "influence"}, UsageError, "looks at what the model computes"),
    ],
)
def test_what_cannot_be_done(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        dropped(residual().proto(), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"count": 0},
        {"ratio": 0.0},
        {"ratio": float("nan")},
        {"count": 1, "ratio": 0.5},
        {"criterion": "best"},
        {"units": "layers"},
        {"budgets": {"latency": "1ms"}},
        {"budgets": {"params": "-3"}},
    ],
)
def test_options_that_are_none(options: dict[str, Any]):
    with pytest.raises(UsageError):
        DropOptions(**options)
