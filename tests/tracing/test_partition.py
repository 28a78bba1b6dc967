"""Classes that are one part, and rows that lose in proportion."""

from __future__ import annotations

import math

import pytest

from onnxprune import api
from onnxprune.errors import GoalMissed
from tests.graphs.net import Net, group_of, prune, reasons_for


def grouped(channels: int, *groups: int) -> Net:
    net = Net()
    x = net.make((2, channels, 3, 3), 1)
    for index, group in enumerate(groups):
        x = net.add("Conv", x, net.weight(channels, channels // group, 1, 1, name=f"w{index}"), group=group)
    net.read(x, 1)
    return net


@pytest.mark.parametrize(
    ("channels", "groups", "units"),
    [(12, (2, 3), 2), (12, (3, 2), 2), (24, (4, 6), 2), (24, (2, 3), 4), (36, (4, 6), 3), (12, (2, 2), 6)],
)
def test_crossing_rows_lose_in_proportion(channels: int, groups: tuple[int, int], units: int) -> None:
    outcome = prune(grouped(channels, *groups).proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()
    group = group_of(outcome.groups, "w0", 0)
    assert group is not None
    assert group.units == units == math.gcd(*(len(c) for c in group.cells))
    kept = outcome.plan.masks(outcome.groups.model)["w0"].any(axis=(1, 2, 3))
    for rows in groups:
        assert len(set(kept.reshape(rows, -1).sum(axis=1).tolist())) == 1


def test_rows_without_a_proportion_are_locked_with_a_reason() -> None:
    """Two rows of three and three rows of two: no number of channels can go from every row."""
    groups = api.trace(grouped(6, 2, 3).proto())
    assert group_of(groups, "w0", 0) is None
    assert "its rows cannot all lose the same number of positions" in reasons_for(groups, "w0", 0)


def test_a_barrier_in_one_row_locks_no_more_than_it_must() -> None:
    """One channel of a grouped convolution is an output: the rows can no longer lose the same, whatever the unit."""
    net = Net()
    x = net.make((2, 8, 3, 3), 1)
    y = net.add("Conv", x, net.weight(8, 4, 1, 1, name="w"), group=2)
    net.output(net.add("Slice", y, net.ints(0), net.ints(1), net.ints(1)))
    net.read(net.add("Conv", y, net.weight(8, 4, 1, 1, name="w2"), group=2), 1)
    try:
        outcome = prune(net.proto())
    except GoalMissed as missed:
        pytest.fail(str(missed))
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()
