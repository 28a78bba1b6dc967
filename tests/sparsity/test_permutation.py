"""The search for an order in which N of M neighbours keep most."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.sparsity import NofM, best_order, kept


def crowded(units: int, columns: int) -> np.ndarray:
    """Scores of which the first half of the units has nearly all: 2:4 keeps half of them as they stand."""
    rng = np.random.default_rng(units)
    scores = rng.random((units, columns)) * 0.01
    scores[: units // 2] += 1
    return scores


def test_large_scores_are_spread_over_all_neighbourhoods() -> None:
    scores, pattern = crowded(32, 10), NofM(2, 4)
    order = best_order(scores, pattern, np.random.default_rng(0))
    assert sorted(order) == list(range(32))
    assert kept(scores, pattern) < 0.52 * scores.sum()
    assert kept(scores[order], pattern) > 0.99 * scores.sum()
    assert all((order[i : i + 4] < 16).sum() == 2 for i in range(0, 32, 4))


def test_what_is_kept_is_what_the_pattern_keeps() -> None:
    scores = np.random.default_rng(0).random((8, 5))
    by_hand = sum(np.sort(scores[i : i + 4], axis=0)[2:].sum() for i in (0, 4))
    assert kept(scores, NofM(2, 4)) == pytest.approx(by_hand)


@pytest.mark.parametrize("pattern", [NofM(2, 4), NofM(1, 4), NofM(1, 3), NofM(4, 8)])
@pytest.mark.parametrize("units", [3, 8, 18, 64])
def test_an_order_never_keeps_less(units: int, pattern: NofM) -> None:
    scores = np.random.default_rng(units).random((units, 600)) ** 4
    order = best_order(scores, pattern, np.random.default_rng(1))
    assert sorted(order) == list(range(units))
    assert kept(scores[order], pattern) >= kept(scores, pattern)
    left_over = units % pattern.m
    assert list(order[units - left_over :]) == list(range(units - left_over, units))


def test_equal_scores_leave_the_order_alone() -> None:
    assert list(best_order(np.ones((16, 4)), NofM(2, 4), np.random.default_rng(0))) == list(range(16))


def test_a_seed_is_one_order() -> None:
    scores = np.random.default_rng(0).random((32, 40))
    one, other = (best_order(scores, NofM(2, 4), np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
