"""Fixtures of these tests."""

from __future__ import annotations

import onnx
import pytest

import onnxprune
from onnxprune.rewriting import Plan
from tests.rewriting.planned import network


@pytest.fixture
def proto() -> onnx.ModelProto:
    return network()


@pytest.fixture
def plan(proto: onnx.ModelProto) -> Plan:
    return onnxprune.make_plan(proto, 0.5)
