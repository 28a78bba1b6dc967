"""Sizes as polynomials: equal structure for equal sizes, bounds, exact division."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.model.shapes.entries import number
from onnxprune.model.shapes.polynomials import (
    Dim,
    bounds,
    broadcast_dims,
    compared,
    floor,
    is_known,
    largest,
    least_symbol,
    product,
    quotient,
    remainder,
    smallest,
    symbol,
    truncated,
    unknown,
)

N, M = symbol("n"), symbol("m")


def test_what_cancels_is_a_number() -> None:
    assert N - N + 4 == 4
    assert (N + 1) * (N - 1) - N * N == -1
    assert 0 * N == 0
    assert is_known(N * 3 - N - 2 * N)


def test_the_same_size_is_the_same_polynomial() -> None:
    assert (N + M) * (N - M) == N * N - M * M
    assert floor(N, 2) * 2 == 2 * floor(N, 2) != N
    assert largest(N, M) == largest(M, N)
    assert hash(N * M + 1) == hash(1 + M * N)


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        (N * M * 768, N * M * 12, 64),
        (N * N - M * M, N + M, N - M),
        (6 * N + 4, 2, 3 * N + 2),
        (6 * N + 3, 2, None),
        (N, M, None),
        (N, 0, None),
        (N * M, N, M),
    ],
)
def test_exact_division(one: Dim, other: Dim, wanted: Dim | None) -> None:
    assert quotient(one, other) == wanted


def test_division_that_leaves_a_rest_is_named_by_its_operands() -> None:
    assert str(floor(N, 2)) == "Div(n, 2)"
    assert floor(N, 2) == truncated(N, 2)
    assert floor(N - 5, 2) != truncated(N - 5, 2)
    assert remainder(4 * N, 2) == 0
    assert (truncated(-7, 2), floor(-7, 2)) == (-3, -4)


def test_bounds() -> None:
    assert bounds(3 * N + 2) == (2, float("inf"))
    assert bounds(2 - N) == (-float("inf"), 2)
    assert bounds(N - M) == (-float("inf"), float("inf"))
    assert bounds(unknown("Neg", N)) == (-float("inf"), float("inf"))


def test_clamps_and_comparisons_are_decided_where_bounds_allow() -> None:
    assert largest(N, 0) == N
    assert largest(N + 3, 2, N) == N + 3
    assert smallest(N, N + 1) == N
    assert smallest(4, 4) == 4
    assert not is_known(largest(N - 50, 0))
    assert not is_known(smallest(N, 1))
    assert compared("Equal", N, -1) == 0
    assert compared("GreaterOrEqual", N, 0) == 1
    assert compared("Less", N + 1, N) == 0
    assert not is_known(compared("Greater", N, 0))
    assert not is_known(compared("Equal", N, M))


def test_broadcasting() -> None:
    assert broadcast_dims((N, 1, 4), (M, 4)) == (N, M, 4)
    assert broadcast_dims((N,), (4,)) == (4,)
    assert broadcast_dims((N,), (N,)) == (N,)
    assert not is_known(broadcast_dims((N,), (M,))[0])
    with pytest.raises(ValueError, match="do not fit"):
        broadcast_dims((3,), (4,))


def test_expressions_that_are_used_twice_stay_small() -> None:
    made: Dim = N
    for _ in range(60):
        made = largest(made * made + M, made + 1 - M)
    assert len(str(made)) < 200
    for _ in range(60):
        made = (made + M) * (made + N)
    assert len(str(made)) < 10_000
    assert not is_known(product([made, made]))


def test_whether_a_size_is_zero_is_not_asked() -> None:
    with pytest.raises(TypeError, match="not known"):
        bool(N)


def value(size: Any, numbers: dict[str, int]) -> int:
    made = number(size, numbers)
    assert made is not None
    return made


# A name -> the new size and its number, of two sizes, their numbers, what is added, and a divisor.
MAKES: dict[str, Callable[..., tuple[Any, int]]] = {
    "add": lambda one, other, first, second, step, by: (one + other + step, first + second + step),
    "sub": lambda one, other, first, second, step, by: (one - other + step, first - second + step),
    "mul": lambda one, other, first, second, step, by: (one * other, first * second),
    "floor": lambda one, other, first, second, step, by: (floor(one + step, by), (first + step) // by),
    "truncated": lambda one, other, first, second, step, by: (truncated(one + step, by), int((first + step) / by)),
}


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_quotients_in_a_common_form_are_the_same_numbers(data: st.DataObject) -> None:
    """Sums, products and divisions of two symbols, drawn and followed both as sizes and as numbers."""
    numbers = {"n": data.draw(st.integers(0, 90)), "m": data.draw(st.integers(0, 9))}
    pool = [(symbol(name), numbers[name]) for name in numbers] + [(k, k) for k in (1, 2, 3, 5, 7)]
    for _ in range(data.draw(st.integers(1, 8))):
        (one, first), (other, second) = (data.draw(st.sampled_from(pool)) for _ in range(2))
        step = data.draw(st.integers(-9, 9))
        what = data.draw(st.sampled_from(sorted(MAKES)))
        by = data.draw(st.integers(1, 12))
        made = MAKES[what](one, other, first, second, step, by)
        assert value(made[0], numbers) == made[1]
        low, high = bounds(made[0])
        assert low <= made[1] <= high
        pool.append(made)


def test_chains_of_windows_are_one_quotient() -> None:
    """What a speech encoder's convolutions leave of N samples, and what exporters make of it: both say the same."""
    n = symbol("n", 400)
    left: Any = n
    for kernel, stride in ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)):
        left = floor(left - kernel, stride) + 1
    exported = truncated(truncated(truncated(n, 80) - 3, 2) - 1, 2) + 1
    assert left == exported == floor(n - 400, 320) + 1
    assert least_symbol(left, 1) == ("n", 400)


def test_towards_zero_is_not_down_where_numbers_may_be_negative() -> None:
    n = symbol("n")
    assert truncated(n - 3, 2) != floor(n - 3, 2)
    assert truncated(symbol("n", 3) - 3, 2) == floor(symbol("n", 3) - 3, 2)
    assert least_symbol(floor(n - 3, 2) + 1, 1) == ("n", 3)
    assert least_symbol(n + 4, 1) == ("n", -3)
    assert least_symbol(2 * n, 1) is None and least_symbol(n * n, 1) is None and least_symbol(4, 1) is None


def test_division_by_a_sum_of_what_sorts_before_other_factors() -> None:
    batch, length = symbol("batch"), floor(symbol("A", 400), 320) - 1
    assert quotient(product([batch, 12, length, 64]), product([length, 64])) == 12 * batch
    assert quotient(batch * length + 1, length) is None
