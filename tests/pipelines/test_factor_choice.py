"""Which weights become products, and of which forms."""

from __future__ import annotations

import pytest

import onnxprune
from onnxprune.errors import GoalMissed
from tests.graphs.net import Net
from tests.pipelines.test_low_rank import DIGITS

TIMED = "onnxprune.pipelines.factor_choice.ProductTimer.slower"


def test_products_that_are_slower_are_not_taken(monkeypatch):
    monkeypatch.setattr(TIMED, lambda timer, weights, products: [n for n in products if n == "fc.weight"])
    options = {"round_to": 1, "ratio": 0.3}
    report = onnxprune.compress(DIGITS, **options).low_rank
    assert report is not None and report.left["fc.weight"] == "its products are slower than the one"
    assert "fc.weight" not in {w.name for w in report.weights}
    monkeypatch.setattr(TIMED, lambda timer, weights, products: [w.name for w in weights])
    with pytest.raises(GoalMissed, match="slower"):
        onnxprune.compress(DIGITS, **options)


def test_a_form_that_is_slower_gives_way_to_another(monkeypatch):
    """Of a convolution the spatial form alone is fast enough."""
    net = Net()
    net.output(net.add("Conv", net.input((1, 32, 9, 9)), net.weight(32, 32, 3, 3, name="w"), pads=[1] * 4))
    asked = []

    def slow(timer, weights, products):
        asked.append(products["w"].form)
        return [] if products["w"].form == "spatial" else ["w"]

    monkeypatch.setattr(TIMED, slow)
    (weight,) = onnxprune.compress(net.proto(), ratio=0.5, round_to=1).low_rank.weights
    assert weight.form == "spatial" and len({*asked}) == len(asked)


def test_forms_that_are_asked_for():
    for form in ("channel", "spatial", "tucker"):
        report = onnxprune.compress(DIGITS, ratio=0.3, forms=[form], round_to=1, allow_slower=True).low_rank
        kinds = {w.form for w in report.weights if len(w.shape) == 4}
        assert kinds == {form}
    with pytest.raises(onnxprune.errors.UsageError, match="--form"):
        onnxprune.compress(DIGITS, ratio=0.3, forms=["cube"])
