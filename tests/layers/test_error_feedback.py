"""Weights settled input by input."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.layers import settled, sweep_factor


def problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 200, 9)) @ rng.standard_normal((2, 9, 9))
    return rng.standard_normal((2, 9, 4)), np.swapaxes(x, 1, 2) @ x / 200


def test_the_factor_is_that_of_the_inverse() -> None:
    _, hessian = problem()
    factor = sweep_factor(hessian)
    assert np.allclose(factor, np.triu(factor))
    assert np.allclose(np.swapaxes(factor, 1, 2) @ factor @ hessian, np.eye(9), atol=1e-8)


@pytest.mark.parametrize("bounds", [[0, 9], [0, 4, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_later_inputs_are_re_fitted_to_what_is_settled(bounds: list[int]) -> None:
    """After every input, the later ones are the least-squares weights for the earlier ones as they were settled."""
    weight, hessian = problem()
    seen: list[np.ndarray] = []

    def settle(now: np.ndarray, i: int) -> np.ndarray:
        if i in bounds:
            seen.append(now.copy())
        return np.round(now[:, i])

    found = settled(weight, sweep_factor(hessian), bounds, settle)
    assert np.array_equal(found, np.round(found))
    for start, now in zip(bounds, seen, strict=False):
        error = weight[:, :start] - found[:, :start]
        rest = hessian[:, start:, start:]
        wanted = weight[:, start:] + np.linalg.solve(rest, hessian[:, start:, :start] @ error)
        assert np.allclose(now[:, start:], wanted)
        assert np.array_equal(now[:, :start], found[:, :start])


def test_what_stays_changes_nothing() -> None:
    weight, hessian = problem()
    assert np.array_equal(settled(weight, sweep_factor(hessian), [0, 9], lambda now, i: now[:, i]), weight)
