"""What each strategy takes of every group: limits hold, and no more goes than must."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from onnxprune import api
from onnxprune.allocation.strategies import STRATEGIES, Limit, Problem, allocate
from onnxprune.cost.functions import CostFunction
from onnxprune.criteria.normalize import accumulated
from onnxprune.typing import Array
from tests.cli.conftest import run
from tests.graphs.net import Net

__all__ = ["run"]

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


class Table:
    """A cost that is looked up: any function of the counts."""

    def __init__(self, function: Callable[[Array], float]) -> None:
        self.total = function

    def along(self, counts: Array, group: int, allowed: Array) -> Array:
        found = []
        for count in allowed:
            other = counts.copy()
            other[group] = count
            found.append(self.total(other))
        return np.array(found)


def problem_of(
    units: list[int], measure: CostFunction, most: float, damage: list[Array], allowed_counts: Any = None
) -> Problem:
    allowed_counts = allowed_counts or [np.arange(n) for n in units]
    values = [np.diff(d) for d in damage]
    return Problem(np.array(units), allowed_counts, values, damage, [Limit(measure, most)])


def chain_cost(counts: Array) -> float:
    """Layers between groups of 6, 8 and 5 units: 4 x a + a x b + b x c + c x 3."""
    a, b, c = np.array([6, 8, 5]) - counts
    return float(4 * a + a * b + b * c + c * 3)


def random_damage(rng: np.random.Generator, units: list[int]) -> list[Array]:
    return [np.concatenate([[0.0], np.cumsum(np.sort(rng.random(n)))]) for n in units]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_a_limit_holds_and_no_unit_can_be_given_back(strategy: str, share: float) -> None:
    units, measure = [6, 8, 5], Table(chain_cost)
    for seed in range(10):
        damage = random_damage(np.random.default_rng(seed), units)
        most = share * chain_cost(np.zeros(3))
        counts = allocate(problem_of(units, measure, most, damage), strategy)
        assert (counts >= 0).all() and (counts < units).all()
        assert chain_cost(counts) <= most
        for group in np.flatnonzero(counts):
            fewer = counts.copy()
            fewer[group] -= 1
            assert chain_cost(fewer) > most


def test_least_damage_is_close_to_the_best_there_is() -> None:
    """Over random damage within a fifth of the best allocation on average, as a convex hull of counts can be."""
    units, most = [6, 8, 5], 0.4 * chain_cost(np.zeros(3))
    every = [np.array(c) for c in itertools.product(*(range(n) for n in units)) if chain_cost(np.array(c)) <= most]
    worse = {name: [] for name in STRATEGIES}
    for seed in range(20):
        damage = random_damage(np.random.default_rng(seed), units)

        def harm(counts: Array, damage: list[Array] = damage) -> float:
            return float(sum(d[n] for d, n in zip(damage, counts, strict=True)))

        best = min(map(harm, every))
        problem = problem_of(units, Table(chain_cost), most, damage)
        for name in STRATEGIES:
            worse[name].append(harm(allocate(problem, name)) / best)
    mean = {name: float(np.mean(found)) for name, found in worse.items()}
    assert mean["sensitivity"] < 1.2 and mean["greedy"] < 1.2
    assert mean["sensitivity"] < mean["uniform"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_allowed_counts_are_chosen(strategy: str) -> None:
    """Widths that a kernel likes, and a group whose number was named."""
    units = [6, 8, 5]
    allowed_counts = [np.array([0, 2, 4]), np.array([3]), np.array([0, 1, 4])]
    damage = random_damage(np.random.default_rng(0), units)
    counts = allocate(problem_of(units, Table(chain_cost), 45, damage, allowed_counts), strategy)
    assert all(count in allowed for count, allowed in zip(counts, allowed_counts, strict=True))
    assert chain_cost(counts) <= 45


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_cannot_be_reached_is_as_little_as_can_be(strategy: str) -> None:
    units = [6, 8, 5]
    damage = random_damage(np.random.default_rng(0), units)
    assert allocate(problem_of(units, Table(chain_cost), 1, damage), strategy).tolist() == [5, 7, 4]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_several_limits_hold_together(strategy: str) -> None:
    units = [6, 8, 5]
    damage = random_damage(np.random.default_rng(2), units)
    sizes = Table(lambda counts: float((np.array(units) - counts)[0] * 10 + (np.array(units) - counts)[2]))
    problem = problem_of(units, Table(chain_cost), 70, damage)
    limits = [*problem.limits, Limit(sizes, 34)]
    counts = allocate(Problem(problem.units, problem.allowed_counts, problem.values, damage, limits), strategy)
    assert all(limit.holds(limit.measure.total(counts)) for limit in limits)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_half_of_nothing_is_no_limit(strategy: str) -> None:
    """A budget on MACs of a model that has none, alone and beside another."""
    units = [6, 8, 5]
    damage = random_damage(np.random.default_rng(1), units)
    nothing = problem_of(units, Table(lambda counts: 0.0), 0.0, damage)
    assert not allocate(nothing, strategy).any()
    limits = [*nothing.limits, Limit(Table(chain_cost), 45)]
    counts = allocate(replace(nothing, limits=limits), strategy)
    alone = allocate(problem_of(units, Table(chain_cost), 45, damage), strategy)
    assert counts.tolist() == alone.tolist()


def test_budgets_on_a_model_without_macs() -> None:
    net = Net()
    rows = net.add("Gather", net.weight(50, 16), net.input(["N"], dtype=TensorProto.INT64))
    net.output(net.listed("ReduceSum", net.add("Mul", rows, net.weight(16)), [1], since=13, keepdims=0), ["N"])
    for allocation in STRATEGIES:
        report = api.prune(net.model(), macs="50%", size="70%", allocation=allocation).report
        assert [goal.met for goal in report.goals] == [True, True] and report.before.macs == 0


def test_a_limit_that_holds_already_takes_nothing() -> None:
    damage = random_damage(np.random.default_rng(0), [6, 8, 5])
    for name in STRATEGIES:
        assert not allocate(problem_of([6, 8, 5], Table(chain_cost), 1e6, damage), name).any()


def test_damage_adds_up() -> None:
    assert accumulated(np.array([1.0, 3.0]), accumulates=False).tolist() == [0, 0.25, 1]
    assert accumulated(np.array([1.0, 3.0]), accumulates=True).tolist() == [0, 1, 3]
    assert accumulated(np.array([-1.0, 3.0]), accumulates=False).tolist() == [0, 0, 1]
    assert accumulated(np.empty(0), accumulates=False).tolist() == [0]
