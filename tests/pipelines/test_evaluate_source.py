"""`onnxprune.evaluate` on any sources of models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

import onnxprune

DIGITS = Path(onnxprune.__file__).parents[1] / "models" / "digits.onnx"


def test_any_source_and_a_single_one(tmp_path: Path) -> None:
    test = np.load(DIGITS.with_name("digits_test.npz"))
    data = dict(test)
    one = onnxprune.evaluate(DIGITS, data, labels="label", samples=100)
    found = onnxprune.evaluate([str(DIGITS), DIGITS.read_bytes(), onnx.load(DIGITS)], data, labels="label", samples=100)
    assert one.labels == 100 and len(one.models) == 1 and len(found.models) == 3
    assert [model.metrics for model in found.models] == [one.models[0].metrics] * 3
