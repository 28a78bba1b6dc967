"""Quantising in Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import UsageError
from tests.graphs.quantized import output, quantizable


def test_a_path_gives_a_proto_and_keeps_the_file(tmp_path: Path) -> None:
    proto, data = quantizable("products")
    onnx.save(proto, tmp_path / "m.onnx")
    before = (tmp_path / "m.onnx").read_bytes()
    result = onnxprune.quantize(str(tmp_path / "m.onnx"), data=[{"x": data}])
    assert isinstance(result.model, onnx.ModelProto) and (tmp_path / "m.onnx").read_bytes() == before
    assert result.report.form == "qdq" and result.report.judged.sqnr > 20 and result.report.speed is None
    found, wanted = output(result.model, data[:4]), output(proto, data[:4])
    assert np.abs(found - wanted).max() < 0.2 * np.abs(wanted).max()


def test_a_pruned_model_is_quantised_and_a_quantised_one_pruned() -> None:
    proto, data = quantizable("products")
    runs = [{"x": part} for part in np.split(data, 12)]
    small = onnxprune.prune(proto, 0.5, data=runs).model
    both = onnxprune.quantize(small, data=runs, form="blocks", block_size=16)
    again = onnxprune.prune(both.model, 0.5, data=runs)
    assert again.report.recovery is not None and again.report.recovery.kept
    assert "MatMulNBits" in {node.op_type for node in again.model.graph.node}


def test_a_drop_needs_a_measure() -> None:
    with pytest.raises(UsageError):
        onnxprune.quantize(quantizable("conv")[0], max_drop="1%")
