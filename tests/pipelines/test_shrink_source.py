"""Any source of a model shrunk."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.model import Model, load
from tests.pipelines.test_shrink import alive, layers


def dead() -> onnx.ModelProto:
    first, biases, second = alive()
    first[:, 2], biases[2] = 0, 0
    return layers(first, biases, second)


def test_the_kind_that_was_given_comes_back() -> None:
    proto = dead()
    assert isinstance(onnxprune.shrink(proto).model, onnx.ModelProto)
    assert isinstance(onnxprune.shrink(proto.SerializeToString()).model, onnx.ModelProto)
    assert isinstance(onnxprune.shrink(load(proto)).model, Model)


def test_the_report_is_of_what_was_done() -> None:
    result = onnxprune.shrink(dead(), data=np.ones((8, 4), np.float32))
    assert result.report.units == 1 and result.report.verdict is not None and result.report.verdict.ok
    assert onnxprune.shrink(dead(), verify=False).report.verdict is None


def test_a_range_for_all_inputs_or_for_one() -> None:
    first, biases, second = (np.abs(part) for part in alive())
    first[:, 5], biases[5] = 1.0, -9.0
    proto = layers(first, biases, second)
    assert [onnxprune.shrink(proto, input_range=r).report.units for r in ((0, 2), {"x": (0, 2)}, None)] == [1, 1, 0]
    with pytest.raises(UsageError):
        onnxprune.shrink(proto, input_range={"nothing": (0, 2)})
