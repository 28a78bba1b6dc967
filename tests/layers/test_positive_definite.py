"""The inverse by blocks is the inverse."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.layers import inverse
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
