"""Exchanges between groups: one loses more units, another gets units back, and every cost stays where it was.

Allocation takes what groups lose to add up, which it does not quite. Exchanges are how a selection gets better by what
the whole model loses: an evolutionary search of such exchanges between layers is that of Týr-the-Pruner, 2025.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from onnxprune.allocation.selection import Question
from onnxprune.allocation.strategies import Limit, Problem
from onnxprune.typing import Array

# Shares of its units that a group loses more, and that another gets back at most.
TAKEN, GIVEN = 1 / 8, 1 / 4


@dataclass(frozen=True, eq=False)
class Exchange:
    """A selection after one group gave to another.

    Attributes:
        pair: numbers of the group that loses more, and of that which gets units back.
        counts: int[groups], how many units every group loses.
        damage: what is lost more by the scores.
    """

    pair: tuple[int, int]
    counts: Array
    damage: float


def exchanges(asked: Question, counts: Array, slack: Sequence[float]) -> Iterator[Exchange]:
    """List the exchanges of some counts, those first that lose least by the scores.

    Args:
        asked: the groups and the budgets.
        counts: int[groups], how many units every group loses.
        slack: for every budget, how much more may be spent.

    Yields:
        The exchanges after which every cost is within what it was and its slack.
    """
    problem = asked.problems[-1]
    limits = [
        Limit(measure, measure.total(counts) + more) for (_, measure), more in zip(asked.goals, slack, strict=True)
    ]
    found = [_exchange(problem, limits, counts, pair) for pair in permutations(range(len(counts)), 2)]
    yield from sorted((one for one in found if one is not None), key=lambda one: one.damage)


def _exchange(problem: Problem, limits: Sequence[Limit], counts: Array, pair: tuple[int, int]) -> Exchange | None:
    """What one pair of groups can exchange: as much is given back as the limits allow; None for nothing."""
    loser, gainer = pair
    more = counts[loser] + max(1, int(problem.units[loser] * TAKEN))
    taken, given = (problem.allowed_counts[group] for group in pair)
    taken = taken[taken >= more][:1]
    least = counts[gainer] - max(1, int(problem.units[gainer] * GIVEN))
    given = given[(given < counts[gainer]) & (given >= least)]
    if not len(taken) or not len(given):
        return None
    changed = counts.copy()
    changed[loser] = taken[0]
    holds = np.ones(len(given), bool)
    for limit in limits:
        holds &= [limit.holds(cost) for cost in limit.measure.along(changed, gainer, given)]
    if not holds.any():
        return None
    changed[gainer] = given[holds][0]
    damage = sum(float(problem.damage[i][changed[i]] - problem.damage[i][counts[i]]) for i in pair)
    return Exchange(pair, changed, damage)
