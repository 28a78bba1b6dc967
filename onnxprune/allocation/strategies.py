"""Strategies of allocation: from budgets and scores to how many units every group loses.

A strategy lays a path from nothing to all that may go, or as far as is needed, along which every cost falls. The first
point of the path at which all limits hold is searched by bisection; then units are given back while the limits still
hold, those whose loss does most damage first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.cost.functions import CostFunction
from onnxprune.typing import Array

# Points of a path that bisection tells apart: widths of some thousand units in hundreds of groups.
HALVINGS = 24
# A greedy step takes this share of a group's allowed counts at once.
GREEDY_STEPS = 32
# Allowed counts that are looked at for a price; units in between are given back afterwards.
PRICED = 96
# Sweeps over all groups at one price, at most: groups that touch the same layers answer each other.
SWEEPS = 8


def within(cost: float, most: float) -> bool:
    """Whether a cost is no more than `most`, up to rounding."""
    return cost <= most * (1 + 1e-12) + 1e-9


@dataclass(frozen=True)
class Limit:
    """A cost and the most that it may be."""

    measure: CostFunction
    most: float

    def holds(self, cost: float) -> bool:
        """Whether a cost is within the limit, up to rounding."""
        return within(cost, self.most)

    @property
    def unit(self) -> float:
        """What different costs are compared in: the limit; 1 where nothing is allowed."""
        return self.most if self.most > 0 else 1.0


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be allocated.

    Attributes:
        units: int[groups], how many units every group has.
        allowed_counts: per group the numbers of units that it may lose, ascending.
        values: per group float64[units]: scores of its units in the order in which they go, comparable between groups.
        damage: per group float64[units + 1]: what is lost in all if it loses 0, 1, ... units.
        limits: all must hold.
        inside: a group that goes as a whole -> groups that go with it, whose own loss no longer counts then.
    """

    units: Array
    allowed_counts: Sequence[Array]
    values: Sequence[Array]
    damage: Sequence[Array]
    limits: Sequence[Limit]
    inside: Mapping[int, Sequence[int]] = field(default_factory=dict)

    @property
    def least(self) -> Array:
        """int[groups]: the smallest numbers that every group may lose."""
        return np.array([allowed[0] for allowed in self.allowed_counts], np.int64)

    @property
    def most(self) -> Array:
        """int[groups]: the largest numbers that every group may lose."""
        return np.array([allowed[-1] for allowed in self.allowed_counts], np.int64)

    def snapped(self, counts: Array) -> Array:
        """int[groups]: the largest allowed counts that are not above `counts`."""
        places = (
            np.searchsorted(allowed, count, "right") - 1
            for allowed, count in zip(self.allowed_counts, counts, strict=True)
        )
        return np.array([allowed[max(p, 0)] for allowed, p in zip(self.allowed_counts, places, strict=True)], np.int64)

    def lost(self, counts: Array, group: int, allowed: Array) -> Array:
        """float64[allowed]: what is lost with `allowed` units of a group, and no more with groups that go with it."""
        damage = self.damage[group][allowed]
        if any(counts[whole] and group in within for whole, within in self.inside.items()):
            return np.zeros_like(damage)
        own = sum(float(self.damage[one][counts[one]]) for one in self.inside.get(group, ()))
        return np.asarray(damage - own * (allowed > 0))

    def holds(self, counts: Array) -> bool:
        """Whether all limits hold."""
        return all(limit.holds(limit.measure.total(counts)) for limit in self.limits)


# From a share of the way, in [0, 1], to int[groups].
Path = Callable[[float], Array]
Strategy = Callable[[Problem], Path]
# Name -> what lays the path.
STRATEGIES: dict[str, Strategy] = {}


def strategy(name: str) -> Callable[[Strategy], Strategy]:
    """Register an allocation strategy under the word that users choose it by."""

    def register(lay: Strategy) -> Strategy:
        STRATEGIES[name] = lay
        return lay

    return register


def allocate(problem: Problem, name: str) -> Array:
    """Choose how many units every group loses.

    Args:
        problem: allowed counts, scores and limits.
        name: of the allocation strategy.

    Returns:
        int[groups]; where the limits cannot all hold, the end of the path: as little as can be reached.
    """
    path = STRATEGIES[name](problem)
    if problem.holds(before := path(0.0)):
        return before
    low, high, found = 0.0, 1.0, path(1.0)
    if not problem.holds(found):
        return found
    for _ in range(HALVINGS):
        if _are_neighbours(problem, before, found):
            break
        middle = (low + high) / 2
        counts = path(middle)
        if problem.holds(counts):
            high, found = middle, counts
        else:
            low, before = middle, counts
    return given_back(problem, found)


def _are_neighbours(problem: Problem, one: Array, two: Array) -> bool:
    """Whether nothing lies between two points of a path: one group differs, by one allowed count."""
    others = np.flatnonzero(one != two)
    if len(others) != 1:
        return False
    places = np.searchsorted(problem.allowed_counts[others[0]], [one[others[0]], two[others[0]]])
    return abs(int(places[1] - places[0])) == 1


def given_back(problem: Problem, counts: Array) -> Array:
    """`counts` after units are given back until no group can get another without breaking a limit."""
    counts = counts.copy()
    queue = [entry for group in range(len(counts)) if (entry := _last_step(problem, counts, group))]
    heapq.heapify(queue)
    while queue:
        _, group, fewer = heapq.heappop(queue)
        allowed = np.array([fewer])
        if all(limit.holds(float(limit.measure.along(counts, group, allowed)[0])) for limit in problem.limits):
            counts[group] = fewer
            if entry := _last_step(problem, counts, group):
                heapq.heappush(queue, entry)
    return counts


def _last_step(problem: Problem, counts: Array, group: int) -> tuple[float, int, int] | None:
    """(less damage if a group takes its last step back, negative, the group, the units that it then loses)."""
    place = int(np.searchsorted(problem.allowed_counts[group], counts[group]))
    if place == 0:
        return None
    fewer = int(problem.allowed_counts[group][place - 1])
    damage = problem.damage[group]
    return float(damage[fewer] - damage[counts[group]]), group, fewer


# --- strategies ------------------------------------------------------------------------------------------


@strategy("uniform")
def uniform(problem: Problem) -> Path:
    """The same share of every group."""
    return lambda share: problem.snapped((share * problem.units + 1e-9).astype(np.int64))


@strategy("global")
def ranked(problem: Problem) -> Path:
    """The units of all groups in one ranking, by scores that are made comparable."""
    most = [allowed[-1] for allowed in problem.allowed_counts]
    values = np.concatenate([v[:n] for v, n in zip(problem.values, most, strict=True)])
    owner = np.repeat(np.arange(len(most)), most)[np.argsort(values, kind="stable")]

    def path(share: float) -> Array:
        taken = owner[: math.ceil(share * len(owner) - 1e-9)]
        return problem.snapped(np.bincount(taken, minlength=len(most)))

    return path


@strategy("greedy")
def greedy(problem: Problem) -> Path:
    """Step by step what does least damage for what it saves of the cost that is furthest from its limit.

    The path ends where all limits hold.
    Savings are worked out again as neighbours shrink, when a step is due: they only fall, so that a step which
    is still the best then is the best of all (lazy greedy: Minoux, "Accelerated greedy algorithms", 1978).
    """
    counts = problem.least
    allowed_counts = [_thinned(allowed, GREEDY_STEPS) for allowed in problem.allowed_counts]
    steps: list[Array] = [counts.copy()]
    totals = [limit.measure.total(counts) for limit in problem.limits]

    def price(group: int) -> tuple[float, int, int] | None:
        place = int(np.searchsorted(allowed_counts[group], counts[group], "right"))
        if place == len(allowed_counts[group]):
            return None
        more = int(allowed_counts[group][place])
        worst = max(range(len(totals)), key=lambda i: totals[i] / problem.limits[i].unit)
        new = float(problem.limits[worst].measure.along(counts, group, np.array([more]))[0])
        harm = float(np.diff(problem.lost(counts, group, np.array([counts[group], more])))[0])
        saved = (totals[worst] - new) / problem.limits[worst].unit
        return (max(harm, 0.0) + 1e-12) / max(saved, 1e-12), group, more

    queue = [entry for group in range(len(counts)) if (entry := price(group))]
    heapq.heapify(queue)
    while queue and not all(limit.holds(total) for limit, total in zip(problem.limits, totals, strict=True)):
        _, group, more = heapq.heappop(queue)
        now = price(group)
        if now is None:
            continue
        if queue and now > queue[0]:
            heapq.heappush(queue, now)
            continue
        counts[group] = more
        steps.append(counts.copy())
        totals = [limit.measure.total(counts) for limit in problem.limits]
        for other in (group, *(whole for whole, within in problem.inside.items() if group in within)):
            if entry := price(other):
                heapq.heappush(queue, entry)
    return lambda share: steps[math.ceil(share * (len(steps) - 1) - 1e-9)]


def _thinned(allowed: Array, most: int) -> Array:
    """At most about `most` entries of the allowed counts, the first and the last among them."""
    return np.unique(allowed[np.linspace(0, len(allowed) - 1, min(len(allowed), most)).astype(np.int64)])


@strategy("sensitivity")
def least_damage(problem: Problem) -> Path:
    """Least total damage by the damage curves: a price on the costs, and every group's best answer to it.

    Minimises damage + price * costs / limits over the allowed counts by coordinate descent, exact in each group. The
    price rises along the path (Lagrangian relaxation: Everett, "Generalized Lagrange multiplier method", 1963). Of
    several limits the one that is furthest from holding sets the price of the others by how far they are from holding.
    """
    most = problem.most
    thin = replace(problem, allowed_counts=[_thinned(allowed, PRICED) for allowed in problem.allowed_counts])
    last = problem.least
    scale = sum(float(d[n] - d[0]) for d, n in zip(problem.damage, most, strict=True)) or 1.0

    def path(share: float) -> Array:
        nonlocal last
        if share in (0.0, 1.0):
            return most if share else problem.least
        # Prices from a millionth of the damage of everything for the whole cost, to a million times that.
        last = _answer(thin, last, scale * 10.0 ** (12 * share - 6))
        return last

    return path


def _answer(problem: Problem, counts: Array, price: float) -> Array:
    """The counts that minimise damage + price * costs / limits."""
    counts = counts.copy()
    for _ in range(SWEEPS):
        before = counts.copy()
        shares = np.array([limit.measure.total(counts) / limit.unit for limit in problem.limits])
        weights = (shares / shares.max()) ** 8 if shares.max() > 0 else np.ones(len(shares))
        for group, allowed in enumerate(problem.allowed_counts):
            if len(allowed) < 2:
                continue
            cost = sum(
                w / limit.unit * limit.measure.along(counts, group, allowed)
                for w, limit in zip(weights, problem.limits, strict=True)
            )
            counts[group] = allowed[int(np.argmin(problem.lost(counts, group, allowed) + price * cost))]
        if (counts == before).all():
            break
    return counts
