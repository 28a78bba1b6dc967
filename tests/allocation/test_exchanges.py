"""Exchanges between groups: what one loses more pays for what another gets back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.allocation.exchanges import GIVEN, exchanges
from onnxprune.allocation.selection import Question, question, select
from onnxprune.model import load
from onnxprune.tracing import Groups
from onnxprune.typing import Array

DIGITS = str(Path(__file__).parents[2] / "models" / "digits.onnx")


@pytest.fixture(scope="module")
def groups() -> Groups:
    return api.trace(load(DIGITS))


@pytest.fixture(scope="module")
def scores(groups: Groups) -> Array:
    return np.random.default_rng(0).random(groups.classes.count)


def asked_of(groups: Groups, scores: Array, **options: object) -> tuple[Question, Array]:
    chosen = Options(criterion="obs", **options)
    return question(groups, scores, chosen), select(groups, scores, chosen).counts


def test_one_loses_another_gains_and_no_cost_grows(groups: Groups, scores: Array) -> None:
    asked, counts = asked_of(groups, scores, macs="50%", params="60%")
    found = list(exchanges(asked, counts, [0.0, 0.0]))
    assert found
    for one in found:
        changed = np.flatnonzero(one.counts != counts)
        assert set(changed) == set(one.pair)
        loser, gainer = one.pair
        assert one.counts[loser] > counts[loser]
        assert counts[gainer] - GIVEN * groups.groups[gainer].units <= one.counts[gainer] < counts[gainer]
        assert all(measure.total(one.counts) <= measure.total(counts) for _, measure in asked.goals)
    assert len({one.pair for one in found}) == len(found)


def test_those_come_first_that_lose_least_by_the_scores(groups: Groups, scores: Array) -> None:
    asked, counts = asked_of(groups, scores, macs="50%")
    damage = asked.problems[-1].damage
    lost = [
        sum(float(own[now] - own[then]) for own, now, then in zip(damage, one.counts, counts, strict=True))
        for one in exchanges(asked, counts, [0.0])
    ]
    assert lost == sorted(lost) and len(lost) > 1


def test_what_a_budget_leaves_is_given_back_too(groups: Groups, scores: Array) -> None:
    asked, counts = asked_of(groups, scores, macs="50%")
    (measure,) = (measure for _, measure in asked.goals)
    close, wide = (
        {one.pair: one.counts for one in exchanges(asked, counts, [slack])} for slack in (0.0, measure.total(counts))
    )
    assert close.keys() <= wide.keys()
    assert all((wide[pair] <= close[pair]).all() for pair in close)
    assert any((wide[pair] < close[pair]).any() for pair in close)


def test_widths_stay_multiples(groups: Groups, scores: Array) -> None:
    asked, counts = asked_of(groups, scores, macs="50%", round_to=8)
    found = list(exchanges(asked, counts, [0.0]))
    assert found
    for one in found:
        left = [group.units - count for group, count in zip(groups.groups, one.counts, strict=True)]
        assert all(width % 8 == 0 for width in left)


def test_where_nothing_more_may_go_there_is_none(groups: Groups, scores: Array) -> None:
    asked, _ = asked_of(groups, scores, macs="50%")
    assert list(exchanges(asked, asked.problems[-1].most, [0.0])) == []
    assert list(exchanges(asked, np.zeros(len(groups.groups), np.int64), [0.0])) == []
