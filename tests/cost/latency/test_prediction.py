"""What a smaller model will take, from tables of its operators."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.cost.latency.correction import CorrectionCurve
from tests.cost.latency.traced_models import NODES


def test_prediction_is_what_the_parts_take(prediction):
    zero = np.zeros(2, np.int64)
    assert prediction.total(zero) == pytest.approx(sum(NODES.values()))
    # Of 16 channels 4 remain, of 32 channels 8.
    found = prediction.total(np.array([12, 24]))
    assert found == pytest.approx(2e-3 / 4 + 5e-3 / 16 + 1e-3 / 4 + 0.5e-3 / 4 + 0.25e-3, rel=1e-6)
    # What no node takes is overhead; nodes that take more than the run were timed on a slower machine.
    for seconds in (1.0, 1e-3):
        assert prediction.anchored(seconds).total(zero) == pytest.approx(seconds)
    assert prediction.anchored(1.0).total(np.array([12, 24])) == pytest.approx(1.0 - prediction.total(zero) + found)
    assert prediction.anchored(1e-3).total(np.array([12, 24])) == pytest.approx(1e-3 * found / sum(NODES.values()))


def test_curves_are_straight_between_what_was_measured():
    curve = CorrectionCurve.of(10.0, [(5.0, 8.0)])
    assert curve(np.array([10.0, 7.5, 5.0, 0.0, 12.0])) == pytest.approx([10, 9, 8, 6, 12])
    # Faster than expected: in proportion below what was seen. Slower than the whole: no slower.
    assert CorrectionCurve.of(10.0, [(5.0, 2.0)])(np.array([2.5, 0.0])) == pytest.approx([1.0, 0.0])
    assert CorrectionCurve.of(10.0, [(5.0, 30.0)])(np.array([5.0, 2.0])) == pytest.approx([10.0, 10.0])
    assert CorrectionCurve.of(10.0, [])(np.array([3.0])) == pytest.approx([3.0])
    # What was measured twice is in the middle, and less work never takes longer.
    assert CorrectionCurve.of(10.0, [(5.0, 4.0), (5.0, 6.0)])(np.array([5.0])) == pytest.approx([5.0])
    assert (np.diff(CorrectionCurve.of(10.0, [(2.0, 7.0), (4.0, 3.0)])(np.linspace(0, 10, 50))) >= 0).all()


def test_along_is_the_total_for_every_allowed_count(prediction):
    rng = np.random.default_rng(0)
    for group, units in ((0, 16), (1, 32)):
        counts = np.array([rng.integers(0, 15), rng.integers(0, 31)])
        allowed = np.arange(units)
        found = prediction.along(counts, group, allowed)
        for count, value in zip(allowed, found, strict=True):
            at = counts.copy()
            at[group] = count
            assert value == pytest.approx(prediction.total(at))
