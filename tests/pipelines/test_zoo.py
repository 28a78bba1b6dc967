"""Every graph of the shared zoo and every shared trained model: valid, proven, smaller.

`pytest -m zoo` runs them all (an hour on two cores); `pytest -m zoo -k mlp` some. What is measured here is what
`python -m tests.measure.coverage` writes into docs/coverage.md.
"""

from __future__ import annotations

import pytest

from tests.graphs import shared
from tests.measure import coverage

pytestmark = pytest.mark.zoo

NAMES = [e.name for e in shared.entries()]
# Reasons that may lock a whole model: one layer between its input and its output, a table of trees.
SOUND = {"graph input", "graph output", "Gather: index computed at run time"}
WITHOUT_FOLDER = pytest.param("", marks=pytest.mark.skip(reason=shared.ABSENT))


@pytest.mark.parametrize("name", NAMES or [WITHOUT_FOLDER])
def test_valid_proven_smaller(name: str) -> None:
    result = coverage.prune_one(name)
    if result["status"] == "unrunnable":
        assert result["scope"], result["problem"]
        pytest.skip(f"the original does not run: {result['problem']}")
    if result["status"] == "nothing":
        assert result["scope"] or set(result["barriers"]) <= SOUND, f"nothing to prune: {result['barriers']}"
        return
    assert result["status"] == "proven", coverage.line_of(result)
    assert result["error"] <= result["tolerance"]
    assert result["params"][1] < result["params"][0]
    assert result["bytes_after"] < result["bytes_before"]
    if result.get("zeroed_error") is not None:
        assert result["zeroed_error"] <= 10 * result["tolerance"]
