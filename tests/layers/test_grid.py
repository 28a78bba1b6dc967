"""Grids of quantised weights, and rounding onto them."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.layers import Grid


def grid_of(weight: np.ndarray, bits: int = 4, *, per_output: bool = True) -> Grid:
    """A symmetric grid by the largest weight of every output, or of all."""
    top = 2 ** (bits - 1) - 1
    groups, _, outputs = weight.shape
    largest = np.abs(weight).max(axis=1) if per_output else np.full((groups, outputs), np.abs(weight).max())
    entry = np.broadcast_to(np.arange(groups * outputs).reshape(groups, 1, outputs), weight.shape)
    limits = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
    return Grid(largest.reshape(-1) / top, np.zeros(groups * outputs), entry, limits, float(top))


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 400, 24)) @ rng.standard_normal((24, 24))
    return rng.standard_normal((1, 24, 6)), x, np.swapaxes(x, 1, 2) @ x / 400


def test_numbers_of_a_grid_stay() -> None:
    weight, _, second = problem()
    grid = grid_of(weight)
    on_it = grid.nearest(weight)
    assert np.abs(on_it - weight).max() <= grid.scales.max() / 2 + 1e-12
    assert np.allclose(grid.nearest(on_it), on_it)
    assert np.allclose(grid.rounded(on_it, second), on_it)
    assert np.array_equal(grid.steps(on_it), np.round(on_it / grid.scales[grid.entry]))


def test_zero_points_and_limits_hold() -> None:
    """Numbers of an asymmetric grid stay within its type, and within the reach of what was stored."""
    weight, _, _ = problem()
    entry = np.zeros(weight.shape, int)
    grid = Grid(np.array([0.1]), np.array([3.0]), entry, (0.0, 15.0), reach=10.0)
    steps = grid.steps(weight * 100)
    assert set(np.unique(steps)) == {0.0, 13.0}
    assert grid.nearest(np.zeros(weight.shape)).max() == 0


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_rounding_with_feedback_leaves_less_error_than_the_nearest_numbers(bits: int) -> None:
    weight, x, second = problem()
    grid = grid_of(weight, bits)
    rounded, nearest = grid.rounded(weight, second), grid.nearest(weight)
    assert np.allclose(grid.nearest(rounded), rounded)
    errors = [float(np.square(x @ (w - weight)).mean()) for w in (rounded, nearest)]
    assert errors[0] < 0.7 * errors[1]


def test_scales_stay_where_weights_fit() -> None:
    weight, _, _ = problem()
    grid = grid_of(weight)
    assert grid.fitting(0.5 * weight, np.ones((1, 24, 1))) is grid


def test_only_scales_whose_weights_do_not_fit_grow() -> None:
    weight, _, _ = problem()
    grid = grid_of(weight)
    wide = weight.copy()
    wide[..., 2] *= 2
    found = grid.fitting(wide, np.ones((1, 24, 1)))
    assert np.array_equal(np.delete(found.scales, 2), np.delete(grid.scales, 2))
    assert grid.scales[2] < found.scales[2] <= 2 * grid.scales[2] * (1 + 1e-9)
    errors = [np.square(g.nearest(wide) - wide).sum() for g in (found, grid)]
    assert errors[0] < errors[1]


def test_one_outlier_is_cut_off_where_that_costs_less() -> None:
    """An input that hardly varies may have a weight far off the grid: the steps of all others stay small."""
    weight, _, _ = problem()
    grid = grid_of(weight)
    wide, importance = weight.copy(), np.ones((1, 24, 1))
    wide[0, 5, 1], importance[0, 5, 0] = 50.0, 1e-9
    assert np.array_equal(grid.fitting(wide, importance).scales, grid.scales)


def test_gradients_pass_through_the_rounding_and_stop_where_numbers_end() -> None:
    """Of one scale 0.5 and the numbers -2 to 2: by hand."""
    grid = Grid(np.array([0.5]), np.zeros(1), np.zeros(5, int), (-2.0, 2.0), 2.0)
    weight, gradient = np.array([0.6, -0.2, 1.2, 1.3, -9.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    by_weight, by_scale = grid.straight_through(weight, gradient)
    assert np.array_equal(by_weight, [1, 2, 3, 0, 0])  # 1.2 rounds to the last number, 1.3 lies beyond it
    wanted = 1 * (1 - 1.2) + 2 * (0 + 0.4) + 3 * (2 - 2.4) + 4 * 2 + 5 * -2
    assert np.allclose(by_scale, [wanted])


def test_zeros_are_made_up_for_in_the_sweep_that_rounds() -> None:
    """Less error than rounding and then setting to zero, and than the nearest numbers of what stays."""
    weight, x, second = problem()
    grid, keep = grid_of(2 * weight, 6), np.abs(weight) > np.quantile(np.abs(weight), 0.4)
    together = grid.rounded(weight, second, keep)
    assert not together[~keep].any() and np.allclose(grid.nearest(together), together)
    others = (grid.rounded(weight, second) * keep, grid.nearest(weight) * keep)
    errors = [float(np.square(x @ (w - weight)).mean()) for w in (together, *others)]
    assert errors[0] < 0.8 * min(errors[1:])
