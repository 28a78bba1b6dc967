"""Measurements as curves, and as a report that can be read again."""

from __future__ import annotations

import json

import pytest

from onnxprune.errors import UsageError
from onnxprune.pipelines import Curve, Point, Sensitivity
from tests.pipelines.test_sensitivity import FEW, sensitivity


@pytest.mark.parametrize("metric", ["error", "sqnr", "cosine", "kl", "top1"])
def test_damage_is_nought_for_no_change_and_grows(metric):
    found = sensitivity(metric=metric, ratios=(0.1, 0.9), samples=64)
    assert all(found.damage(c.points[1]) >= found.damage(c.points[0]) >= 0 for c in found.curves)
    assert max(found.damage(c.points[1]) for c in found.curves) > 0.05


def test_a_report_can_be_read_again():
    found = sensitivity(**FEW)
    again = Sensitivity.from_json(json.dumps(found.as_json(), allow_nan=False))
    assert again.curves == found.curves and again.curves_of("kl") == found.curves_of("kl")
    for text in ("{}", "[]", "no", '{"format": "onnxprune-sensitivity", "version": 1}'):
        with pytest.raises(UsageError, match="not a sensitivity report"):
            Sensitivity.from_json(text)


def test_damage_by_units_goes_through_the_measurements_and_never_falls():
    points = tuple(Point(n, n / 8, {"error": e}) for n, e in ((2, 1.0), (4, 0.5), (6, 3.0)))
    found = Sensitivity((Curve("g", "channel", True, 8, points),), "error", (0.25, 0.5, 0.75))
    (damage,) = found.damage_by_units().values()
    assert damage.tolist() == pytest.approx([0, 0.5, 1, 1, 1, 2, 3, 4, 5])
