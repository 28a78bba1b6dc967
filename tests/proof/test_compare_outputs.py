"""How far outputs are apart, and how far they may be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from onnxprune import api
from onnxprune.proof.compare_outputs import difference
from onnxprune.proof.prove import tolerance_of
from onnxprune.proof.verdict import compare
from tests.graphs.net import Net


@pytest.mark.parametrize(
    ("wanted", "found", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 1.0], 0.5),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.inf, 1.0], [np.inf, 1.0], 0.0),
        ([np.inf, 1.0], [-np.inf, 1.0], math.inf),
        ([np.nan, 1.0], [np.inf, 1.0], math.inf),
        ([1.0, 1.0], [np.nan, 1.0], math.inf),
        ([np.nan, np.nan], [np.nan, np.nan], 0.0),
        ([], [], 0.0),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_differences_of_floats(wanted: list[float], found: list[float], error: float, dtype: Any) -> None:
    assert difference(np.array(wanted, dtype), np.array(found, dtype)) == error


@pytest.mark.parametrize(("wanted", "found", "error"), [([1, 2], [1, 2], 0), ([1, 2], [1, 3], 0.5), ([], [], 0)])
def test_differences_of_integers(wanted: list[int], found: list[int], error: float) -> None:
    assert difference(np.array(wanted, np.int64), np.array(found, np.int64)) == error


def test_sequences_and_maps_are_compared_element_by_element() -> None:
    """Outputs of classical models: a list of maps from classes to probabilities."""
    good = [{"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}]
    assert difference(good, [dict(reversed(m.items())) for m in good]) == 0
    assert difference(good, [{"a": 0.5, "b": 0.5}, {"a": 0.75, "b": 0.25}]) == pytest.approx(2 / 3)
    assert difference(good, good[:1]) == math.inf
    assert difference(good, [{"a": 0.5, "c": 0.5}, good[1]]) == math.inf
    assert difference([], []) == 0


def test_small_numbers_are_compared_on_their_own_scale() -> None:
    assert difference(np.array([1e-9], np.float32), np.array([2e-9], np.float32)) == pytest.approx(1.0)


def test_an_error_in_any_output_counts() -> None:
    good, bad = np.ones(3, np.float32), np.array([1, 1, 2], np.float32)
    verdict = compare(["a", "b", "c"], [good, good, good], [good, bad, good], dict.fromkeys("abc", 1e-4), [])
    assert not verdict.ok
    assert "output 'b'" in verdict.problem
    assert verdict.outputs == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert verdict.error == 1.0


def test_another_shape_is_an_error() -> None:
    verdict = compare(["a"], [np.ones((2, 3))], [np.ones((3, 2))], {"a": 1e-4}, [])
    assert not verdict.ok
    assert verdict.error == math.inf


def test_a_nan_difference_is_an_error() -> None:
    assert not compare(["a"], [np.ones(2)], [np.array([1, np.nan])], {"a": 1e-4}, []).ok


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-9), (np.float16, 3e-2)])
def test_the_tolerance_is_that_of_the_least_precise_type(dtype: Any, tolerance: float) -> None:
    net = Net(dtype=dtype)
    net.read(net.add("Relu", net.make((2, 5, 8), 2)), 2)
    assert tolerance_of(api.trace(net.proto())) == tolerance
