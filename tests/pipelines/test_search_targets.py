"""Targets of a search, as they are written and judged."""

from __future__ import annotations

import pytest

from onnxprune.errors import UsageError
from onnxprune.pipelines.search_targets import QualityConstraint, amount, divergence_constraint, quality_constraint


@pytest.mark.parametrize(
    ("metric", "text", "found"),
    [
        ("value", "1%", (0.01, True)),
        ("value", "0.5", (0.5, False)),
        ("sqnr", "20dB", (20, False)),
        ("sqnr", "20", (20, False)),
        ("kl", " 1e-3 ", (1e-3, False)),
        ("error", "1%", (0.01, True)),
    ],
)
def test_amounts(metric, text, found):
    assert amount(metric, text) == found


@pytest.mark.parametrize("metric", ["value", "sqnr", "error"])
@pytest.mark.parametrize("text", ["", "much", "-1", "5 s", "%"])
def test_no_amounts(metric, text):
    with pytest.raises(UsageError, match=f"{metric}: .* is not an amount"):
        amount(metric, text)


def test_a_drop_is_absolute_or_a_share():
    for target, bound in ((QualityConstraint("value", 2.0), 88), (QualityConstraint("value", 0.1, True), 81)):
        assert target.bound({"value": 90.0}) == bound
    assert QualityConstraint("value", 0.1, True).bound({"value": -2.0}) == pytest.approx(-2.2)


def test_divergences():
    assert divergence_constraint("1%") == divergence_constraint("error=0.01") == QualityConstraint("error", 0.01)
    assert divergence_constraint("kl=0.05") == QualityConstraint("kl", 0.05)
    with pytest.raises(UsageError, match="no metric is called 'sqnr'"):
        divergence_constraint("sqnr=20")


def test_what_one_model_must_keep():
    assert quality_constraint(None, None) is None
    assert quality_constraint("1%", None) == QualityConstraint("value", 0.01, relative=True)
    assert quality_constraint(0.5, None) == QualityConstraint("value", 0.5)
    assert quality_constraint(None, "20dB") == quality_constraint(None, 20.0) == QualityConstraint("sqnr", 20.0)
    with pytest.raises(UsageError, match="two measures"):
        quality_constraint("1%", 20.0)
