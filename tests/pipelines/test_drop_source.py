"""Blocks dropped from any source of a model."""

from __future__ import annotations

import onnx
import pytest

import onnxprune
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model, load
from tests.pipelines.test_drop import residual


def test_the_kind_that_was_given_comes_back() -> None:
    proto = residual().proto() if hasattr(residual(), "proto") else residual()
    result = onnxprune.drop(proto, count=1)
    assert isinstance(result.model, onnx.ModelProto) and len(result.report.dropped) == 1
    assert isinstance(onnxprune.drop(load(proto), count=1).model, Model)


def test_something_must_be_asked_for() -> None:
    proto = residual().proto() if hasattr(residual(), "proto") else residual()
    with pytest.raises(UsageError, match="nothing says what to drop"):
        onnxprune.drop(proto)
    with pytest.raises((UsageError, GoalMissed)):
        onnxprune.drop(proto, params="0.001%")
