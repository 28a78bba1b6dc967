"""Rows that are equal, or multiples of each other."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.criteria.clusters import clusters

KEYS = np.zeros((5, 1), np.int64)


def test_multiples_have_the_first_and_their_factor() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 1.0], [2.0, 4.0], [0.5, 1.0], [-1.0, -2.0]])
    ids, factors = clusters(KEYS, rows, 1e-9)
    assert ids.tolist() == [0, 1, 0, 0, 4], "a negative factor is none"
    assert factors == pytest.approx([1, 1, 2, 0.5, 1])


def test_equal_rows_only() -> None:
    rows = np.array([[1.0, 2.0], [2.0, 4.0], [1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    ids, factors = clusters(KEYS, rows, 1e-9, up_to_factor=False)
    assert ids.tolist() == [0, 1, 0, 3, 3] and (factors == 1).all()


def test_zeros_and_what_is_no_number_are_alone() -> None:
    rows = np.array([[0.0, 0.0], [0.0, 0.0], [np.nan, 1.0], [np.nan, 1.0], [np.inf, 1.0]])
    assert clusters(KEYS, rows, 1e-9)[0].tolist() == [0, 1, 2, 3, 4]


def test_keys_keep_rows_apart() -> None:
    rows = np.ones((5, 2))
    assert clusters(np.array([[0], [1], [0], [1], [2]]), rows, 1e-9)[0].tolist() == [0, 1, 0, 1, 4]


@pytest.mark.parametrize(("off", "alike"), [(1e-7, True), (1e-3, False)])
def test_the_tolerance_is_relative_to_the_largest_entry(off: float, alike: bool) -> None:
    rows = np.array([[100.0, 1.0], [100.0, 1.0 + 100 * off]])
    assert (clusters(KEYS[:2], rows, 1e-5)[0].tolist() == [0, 0]) is alike


def test_many_rows_against_all_pairs() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((6, 4))
    of = rng.integers(0, 6, 60)
    ids, factors = clusters(np.zeros((60, 1), np.int64), base[of] * rng.uniform(0.1, 10, (60, 1)), 1e-9)
    assert all((ids[i] == ids[j]) == (of[i] == of[j]) for i in range(60) for j in range(60))
    assert (factors > 0).all() and (factors[ids] == 1).all()
