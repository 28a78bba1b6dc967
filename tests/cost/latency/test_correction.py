"""Tables corrected by what was measured of a smaller model."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cost.latency.traced_models import NODES


def test_prediction_is_corrected_node_by_node(prediction):
    zero, seen = np.zeros(2, np.int64), np.array([12, 24])
    whole, narrow = sum(NODES.values()), prediction.total(seen)
    times = {"relu1": 2e-3 / 4, "relu2": 5 * 5e-3 / 16, "pool": 0.4e-3, "conv3": 0.5e-3 / 4}
    times = {name: times.get(name, seconds) for name, seconds in NODES.items()}
    found = prediction.anchored(whole).corrected(seen, times, sum(times.values()))
    assert found.total(zero) == pytest.approx(whole)
    assert found.total(seen) == pytest.approx(sum(times.values())) and found.total(seen) > 1.5 * narrow
    # Another share of the machine while nodes are timed is no news about any of them.
    slowed = {name: 1.7 * seconds for name, seconds in times.items()}
    again = prediction.anchored(whole).corrected(seen, slowed, sum(times.values()))
    for counts in (seen, np.array([4, 8]), np.array([15, 31])):
        assert again.total(counts) == pytest.approx(found.total(counts))
    for group, units in ((0, 16), (1, 32)):
        allowed = np.arange(units)
        for count, value in zip(allowed, found.along(seen, group, allowed), strict=True):
            at = seen.copy()
            at[group] = count
            assert value == pytest.approx(found.total(at))
