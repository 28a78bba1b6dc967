"""Factors and inverses by blocks are those of LAPACK."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.layers import Cholesky, LowRankFactor, inverse, quick_factor
from onnxprune.layers.positive_definite import SMALL
from onnxprune.typing import Array


def moment(rng: np.random.Generator, *shape: int, ridge: float) -> Array:
    rows = rng.standard_normal((*shape[:-1], 2 * shape[-1], shape[-1])) * np.geomspace(1, 30, shape[-1])
    second = np.swapaxes(rows, -1, -2) @ rows
    size = np.trace(second, axis1=-1, axis2=-2)[..., None, None] / shape[-1]
    return second + ridge * size * np.eye(shape[-1])


@pytest.mark.parametrize("ridge", [1e-1, 1e-6])
@pytest.mark.parametrize("shape", [(1,), (7,), (SMALL,), (SMALL + 1,), (2 * SMALL + 3,), (777,), (3, 300), (2, 2, 5)])
def test_it_is_the_inverse(shape: tuple[int, ...], ridge: float) -> None:
    matrix = moment(np.random.default_rng(len(shape)), *shape, ridge=ridge)
    before = matrix.copy()
    found, wanted = inverse(matrix), np.linalg.inv(matrix)
    assert np.array_equal(matrix, before) and found.dtype == wanted.dtype
    away = np.abs(matrix @ found - np.eye(shape[-1])).max()
    assert away <= max(10 * np.abs(matrix @ wanted - np.eye(shape[-1])).max(), 1e-12)
    assert np.abs(found - wanted).max() <= 1e-9 * np.abs(wanted).max()


def test_single_precision_stays() -> None:
    matrix = moment(np.random.default_rng(0), 600, ridge=1e-1).astype(np.float32)
    found = inverse(matrix)
    assert found.dtype == np.float32 and np.abs(matrix @ found - np.eye(600)).max() < 1e-3


@pytest.mark.parametrize("size", [3, 2 * SMALL])
def test_singular_matrices_are_told(size: int) -> None:
    with pytest.raises(np.linalg.LinAlgError):
        inverse(np.zeros((size, size)))


@pytest.mark.parametrize("shape", [(5,), (400,), (3, 300)])
def test_single_precision_is_taken_where_outputs_do_not_notice(shape: tuple[int, ...]) -> None:
    matrix = moment(np.random.default_rng(1), *shape, ridge=1e-2)
    found = quick_factor(matrix)
    assert found.dtype == np.float32
    weight = np.random.default_rng(2).standard_normal((*shape, 3))
    lost = found.solve(matrix @ weight) - weight
    assert (lost * (matrix @ lost)).sum() < 1e-6 * (weight * (matrix @ weight)).sum()


def test_a_direction_that_outweighs_all_others_takes_double_precision() -> None:
    matrix = moment(np.random.default_rng(3), 400, ridge=1e-9) + 1e12
    found = quick_factor(matrix[None])
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found.inverse(), inverse(matrix[None]))


def test_no_digits_are_lost_from_block_to_block() -> None:
    """Activations behind a Relu, with a common part and few rows: an inverse by blocks of inverses is wrong by far."""
    rng = np.random.default_rng(4)
    rows = np.maximum(rng.standard_normal((2000, 1200)) * np.geomspace(0.01, 3, 1200) + 5 * rng.random((2000, 1)), 0)
    second = np.cov(rows.T, bias=True)
    matrix = second + 1e-4 * second.diagonal().mean() * np.eye(1200)
    weight = rng.standard_normal((1200, 4))
    for lost in (Cholesky(matrix).solve(matrix @ weight) - weight, inverse(matrix) @ (matrix @ weight) - weight):
        assert (lost * (matrix @ lost)).sum() < 1e-18 * (weight * (matrix @ weight)).sum()


@pytest.mark.parametrize("size", [4, 2 * SMALL + 3])
def test_the_factor_is_that_of_lapack(size: int) -> None:
    matrix = moment(np.random.default_rng(5), size, ridge=1e-3)
    found, wanted, given = Cholesky(matrix), np.linalg.cholesky(matrix), np.random.default_rng(6).random((size, 7))
    np.testing.assert_allclose(wanted @ found.lower(given), given, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(wanted.T @ found.upper(given), given, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.solve(given), np.linalg.solve(matrix, given), rtol=1e-7)


def test_a_singular_matrix_is_told_in_either_precision() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        quick_factor(np.zeros((1, 4, 4)))


@pytest.mark.parametrize("ridge", [10.0, 1e-3])
def test_few_rows_stand_for_a_wide_matrix(ridge: float) -> None:
    rng = np.random.default_rng(4)
    half, given = rng.standard_normal((2, 20, 90)) + 1, rng.standard_normal((2, 90, 5))
    added = ridge * np.square(half).sum(axis=(1, 2), keepdims=True) / 90
    found = LowRankFactor(half, added).solve(given)
    wanted = np.linalg.solve(np.swapaxes(half, 1, 2) @ half + added * np.eye(90), given)
    np.testing.assert_allclose(found, wanted, atol=1e-9 * np.abs(wanted).max())
