"""Greedy removal against what it stands for: ridge regression on the rows that remain, made from scratch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.criteria import obs
from onnxprune.criteria.reader_moments import InputMoments, MeasuredReader
from onnxprune.runtime import SpillBuffer

UNITS, EACH, OUTPUTS = 12, 3, 5


def reader(rng: np.random.Generator, *, correlated: bool = True) -> Any:
    """A layer of `UNITS` units of `EACH` rows, in an order that is mixed up, and one row that cannot go."""
    size = UNITS * EACH + 1
    x = rng.standard_normal((400, size)) @ rng.standard_normal((size, size))
    moment = np.cov(x.T, bias=True).astype(np.float32)
    owner = np.append(rng.permutation(np.repeat(np.arange(UNITS), EACH)), -1)
    weight = rng.standard_normal((size, OUTPUTS)).astype(np.float32)
    inputs = InputMoments(x.mean(axis=0), moment if correlated else moment.diagonal().copy())
    return MeasuredReader(weight, owner, inputs, None)  # type: ignore[arg-type]


def refitted(layer: Any, gone: list[int]) -> tuple[np.ndarray, float]:
    """(weights by ridge regression on the rows that remain, their damped error as a share of the outputs' energy)."""
    moment = layer.inputs.second.astype(np.float64)
    damped = moment + obs.DAMPING * moment.diagonal().mean() * np.eye(len(moment))
    left = ~np.isin(layer.owner, gone)
    weight = np.zeros(layer.weight.shape)
    weight[left] = np.linalg.solve(damped[np.ix_(left, left)], (damped @ layer.weight)[left])
    lost = layer.weight - weight
    return weight, float((lost * (damped @ lost)).sum() / (layer.weight * (moment @ layer.weight)).sum())


def test_costs_and_weights_are_those_of_a_regression_from_scratch() -> None:
    layer = reader(np.random.default_rng(0))
    surgery, gone, damage = obs._Surgery([layer], np.arange(UNITS)), list[int](), 0.0
    for _ in range(UNITS - 1):
        left = np.array([u for u in range(UNITS) if u not in gone])
        costs = surgery.costs(left)
        expected = [refitted(layer, [*gone, int(u)])[1] - damage for u in left]
        np.testing.assert_allclose(costs, expected, rtol=2e-3, atol=1e-5)
        first = int(left[np.argmin(costs)])
        surgery.remove(np.array([first]))
        gone.append(first)
        weight, damage = refitted(layer, gone)
        (trial,) = surgery.trials(SpillBuffer())
        np.testing.assert_allclose(trial.weight, weight, atol=2e-3)
        assert not trial.weight[np.isin(layer.owner, gone)].any()
        np.testing.assert_allclose(trial.shift, (layer.weight - trial.weight).T @ layer.inputs.mean, atol=1e-4)


def test_units_that_go_together_cost_and_leave_what_they_do_one_by_one() -> None:
    layer = reader(np.random.default_rng(1))
    together, alone = (obs._Surgery([layer], np.arange(UNITS)) for _ in range(2))
    together.remove(np.array([2, 5, 7]))
    for unit in (2, 5, 7):
        alone.remove(np.array([unit]))
    left = np.array([0, 1, 3, 4, 6, 8, 9, 10, 11])
    np.testing.assert_allclose(together.costs(left), alone.costs(left), rtol=1e-3)


def test_uncorrelated_inputs_cost_their_energy_and_nothing_is_refitted() -> None:
    layer = reader(np.random.default_rng(2), correlated=False)
    removal = obs._Uncorrelated(layer, np.arange(UNITS))
    energy = np.square(layer.weight) * layer.inputs.second[:, None]
    ridge = obs.DAMPING * layer.inputs.second.mean() * np.square(layer.weight)
    unit = layer.owner == 4
    expected = (energy + ridge)[unit].sum() / energy.sum()
    assert removal.costs(np.array([4]))[0] == pytest.approx(expected, rel=1e-5)
    removal.remove(np.array([4]))
    (trial,) = removal.trials(SpillBuffer())
    assert not trial.weight[unit].any()
    np.testing.assert_array_equal(trial.weight[~unit], layer.weight[~unit])
