"""Operators that nothing is removed through."""

from __future__ import annotations

import onnx
import pytest

from onnxprune.tracing.rules.untraceable import UNTRACEABLE, why_whole


@pytest.mark.parametrize("op", sorted(UNTRACEABLE))
def test_they_exist_and_have_no_rule(op: str) -> None:
    assert onnx.defs.has(op) and why_whole("", op) == why_whole("ai.onnx", op) == UNTRACEABLE[op]


def test_other_domains_and_operators_have_no_reason() -> None:
    assert why_whole("com.example", "NonZero") is None and why_whole("", "Conv") is None
