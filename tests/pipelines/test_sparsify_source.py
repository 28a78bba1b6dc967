"""Any source of a model made sparse."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.model import Model, load

DIGITS = str(Path(__file__).parents[2] / "models" / "digits.onnx")


def test_the_kind_that_was_given_comes_back() -> None:
    assert isinstance(onnxprune.sparsify(DIGITS, 0.5, verify=False).model, onnx.ModelProto)
    assert isinstance(onnxprune.sparsify(load(DIGITS), 0.5, verify=False).model, Model)


def test_options_are_those_of_sparsify_options() -> None:
    result = onnxprune.sparsify(DIGITS, pattern="2:4", only=["fc.weight"])
    (weight,) = result.report.weights
    assert weight.name == "fc.weight" and weight.zeros * 2 == weight.elements
    assert [step.tensor for step in result.plan.zeros] == ["fc.weight"]
    assert result.report.verdict is not None and result.report.verdict.ok
    with pytest.raises(TypeError):
        onnxprune.sparsify(DIGITS, patern="2:4")
    with pytest.raises(UsageError, match="no weight or node matches"):
        onnxprune.sparsify(DIGITS, only=["nothing"])
