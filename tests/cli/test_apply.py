"""`apply`: a plan carried out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from tests.cli.conftest import DIGITS, widths


def test_apply_zero_keeps_the_sizes(run, small, tmp_path):
    ran = run("apply", DIGITS, tmp_path / "plan.json", "-o", tmp_path / "zero.onnx", "--zero")
    assert ran.code == 0 and widths(tmp_path / "zero.onnx") == widths(Path(DIGITS))
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "zero.onnx").graph.initializer}
    assert np.sum(~weights["conv.weight"].any(axis=(1, 2, 3))) == 16
