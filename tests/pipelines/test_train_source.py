"""Any source of a model trained."""

from __future__ import annotations

from pathlib import Path

import onnx

import onnxprune
from tests.recovery.test_fine_tune import DATA, DIGITS, QUICK


def test_the_public_function(tmp_path: Path) -> None:
    small = onnxprune.prune(DIGITS, 0.75, data=DATA, verify=False).model
    result = onnxprune.train(small, DATA, 10, teacher=DIGITS, **QUICK)
    assert isinstance(result.model, onnx.ModelProto) and result.report.after <= result.report.before
