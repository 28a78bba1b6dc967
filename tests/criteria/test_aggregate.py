"""Scores of coupled members made one."""

from __future__ import annotations

import onnx
import pytest

import onnxprune
from onnxprune.allocation import Options
from onnxprune.errors import UsageError


@pytest.mark.parametrize("name", ["random", "ensemble:l1,l2"])
def test_what_combines_nothing_takes_no_aggregation(net: onnx.ModelProto, name: str) -> None:
    with pytest.raises(UsageError, match="does not combine members"):
        onnxprune.make_plan(net, criterion=name, aggregate="max")


@pytest.mark.parametrize("option", ["aggregate", "normalize"])
def test_options_that_do_not_exist(option: str) -> None:
    with pytest.raises(UsageError, match="is called 'best'"):
        Options(**{option: "best"})
