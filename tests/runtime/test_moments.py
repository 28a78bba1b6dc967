"""Moments that are added up in parts are those of all values together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.layers import ActivationMoments
from onnxprune.runtime import Moments, PairMoments, WidePairMoments, moments


@pytest.mark.parametrize("shape", [(1, 7, 1, 1), (1, 1, 5, 1), (1, 7, 5, 1), (1, 1, 1, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_moments(shape: tuple[int, ...], dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed in parts of any size, they are those of all values together; the mean is large on purpose."""
    monkeypatch.setattr(moments, "SLAB", 250)
    rng = np.random.default_rng(0)
    runs = [(rng.standard_normal((n, 7, 5, 3)) + 30 * (n > 1)).astype(dtype) for n in (4, 1, 3)]
    for x in runs:
        x[0, 0] = 0
    found = ActivationMoments(shape)
    assert [found.add(x) for x in runs] == [True] * 3
    x = np.concatenate(runs).astype(np.float64)
    away = tuple(a for a, n in enumerate(shape) if n == 1)
    close = {"rtol": 1e-5}
    np.testing.assert_allclose(found.mean, x.mean(away, keepdims=True), **close)
    np.testing.assert_allclose(found.mean_absolute, np.abs(x).mean(away, keepdims=True), **close)
    np.testing.assert_allclose(found.variance, x.var(away, keepdims=True), **close)
    np.testing.assert_allclose(found.zeros, (x == 0).mean(away, keepdims=True), **close)
    np.testing.assert_allclose(found.norm, np.sqrt(np.square(x).mean(away, keepdims=True)), **close)


def test_double_precision_keeps_all_digits_of_a_small_deviation() -> None:
    """In single precision a deviation of a ten-thousandth of the mean has some three digits."""
    rng = np.random.default_rng(1)
    runs = [(1000 + 0.1 * rng.standard_normal((64, 4, 9))).astype(np.float32) for _ in range(3)]
    wanted = np.concatenate(runs).astype(np.float64).var((0, 2), keepdims=True)
    plain, exact = Moments((1, 4, 1)), Moments((1, 4, 1), np.float64)
    for run in runs:
        assert plain.add(run) and exact.add(run)
    np.testing.assert_allclose(exact.variance, wanted, rtol=1e-12)
    assert np.abs(plain.variance / wanted - 1).max() > 1e-9


def test_arrays_of_other_sizes_are_left_out() -> None:
    assert not Moments((1, 4)).add(np.zeros((3, 5), np.float32))
    assert not Moments((1, 4)).add(np.zeros((4,), np.float32))


@pytest.mark.parametrize("shifted", [True, False])
def test_moments_of_pairs(shifted: bool) -> None:
    """Merged in any order, they are those of all rows; about zero where nothing can be shifted."""
    rng = np.random.default_rng(2)
    x, y = (rng.standard_normal((2, 60, size)) + 5 for size in (4, 3))
    parts = [
        PairMoments.of(x[:, rows], y[:, rows], shifted=shifted) for rows in (slice(0, 7), slice(7, 8), slice(8, 60))
    ]
    for found in ((parts[0] + parts[1]) + parts[2], parts[2] + (parts[1] + parts[0])):
        mean_x, mean_y = x.mean(1) * shifted, y.mean(1) * shifted
        a, b = x - mean_x[:, None], y - mean_y[:, None]
        assert found.count == 60
        np.testing.assert_allclose(found.x, mean_x, rtol=1e-12)
        np.testing.assert_allclose(found.y, mean_y, rtol=1e-12)
        np.testing.assert_allclose(found.xx, a.transpose(0, 2, 1) @ a / 60, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.xy, a.transpose(0, 2, 1) @ b / 60, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.yy, np.square(b).mean(1), rtol=1e-12)


@pytest.mark.parametrize("shifted", [True, False])
def test_wide_moments_are_the_same_without_their_matrix(shifted: bool) -> None:
    rng = np.random.default_rng(3)
    x, y = (rng.standard_normal((2, 30, size)) + 5 for size in (50, 3))
    cuts = [slice(0, 7), slice(7, 8), slice(8, 30)]

    def merged(kind: type[PairMoments]) -> PairMoments:
        first, second, third = (kind.of(x[:, rows], y[:, rows], shifted=shifted) for rows in cuts)
        return (first + second) + third

    plain, wide = merged(PairMoments), merged(WidePairMoments)
    weight = rng.standard_normal((2, 50, 4))
    assert isinstance(wide, WidePairMoments) and not wide.xx.size and wide.count == 30
    np.testing.assert_allclose(wide.half.transpose(0, 2, 1) @ wide.half, plain.xx, atol=1e-12)
    np.testing.assert_allclose(wide.times(weight), plain.times(weight), atol=1e-11)
    for name in ("x", "y", "xy", "yy", "size"):
        np.testing.assert_allclose(getattr(wide, name), getattr(plain, name), rtol=1e-12, atol=1e-12)
