"""Any source of a model compressed."""

from __future__ import annotations

from pathlib import Path

import onnx

import onnxprune
from onnxprune.model import Model, load

DIGITS = str(Path(__file__).parents[2] / "models" / "digits.onnx")


def test_the_kind_that_was_given_comes_back() -> None:
    assert isinstance(onnxprune.compress(DIGITS, verify=False).model, onnx.ModelProto)
    assert isinstance(onnxprune.compress(load(DIGITS), verify=False).model, Model)


def test_without_ranks_the_outputs_stay_and_with_them_weights_become_products() -> None:
    exact = onnxprune.compress(DIGITS)
    assert exact.exact is not None and exact.exact.verdict is not None and exact.exact.verdict.ok
    assert exact.low_rank is exact.plan is None
    products = onnxprune.compress(DIGITS, ranks={"fc.weight": 16}, allow_slower=True)
    assert products.exact is None and products.plan is not None
    assert [(step.tensor, step.rank) for step in products.plan.factors] == [("fc.weight", 16)]
    both = onnxprune.compress(DIGITS, exact=True, ranks={"fc.weight": 16}, allow_slower=True, verify=False)
    assert both.exact is not None and both.low_rank is not None
