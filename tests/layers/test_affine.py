"""Nodes that multiply and shift, against what they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune import api
from onnxprune.layers.affine import Affine, affine_of
from tests.graphs.net import Net, run

CHANNELS = np.array([1.5, -2.0, 0.25, 3.0], np.float32)


def view_of(op: str, *constants: tuple[int, np.ndarray], count: int = 2, **attributes: Any) -> tuple[Any, Net]:
    """A node with constants at some slots and the input at the others."""
    net = Net()
    x = net.input([2, 4, 3])
    held = {slot: net.const(value, f"c{slot}") for slot, value in constants}
    net.output(net.add(op, *(held.get(slot, x) for slot in range(count)), **attributes))
    return api.trace(net.proto()), net


def affine(op: str, *constants: tuple[int, np.ndarray], count: int = 2, **attributes: Any) -> Affine | None:
    groups, _ = view_of(op, *constants, count=count, **attributes)
    ((view, _),) = groups.tracing.views
    return affine_of(groups.tracing, view)


@pytest.mark.parametrize(
    ("op", "slot"), [("Mul", 0), ("Mul", 1), ("Div", 1), ("Add", 0), ("Add", 1), ("Sub", 0), ("Sub", 1)]
)
def test_a_node_computes_what_its_view_says(op: str, slot: int) -> None:
    groups, net = view_of(op, (slot, CHANNELS[:, None]))
    ((view, _),) = groups.tracing.views
    found = affine_of(groups.tracing, view)
    assert found is not None and found.input == "x" and found.elements == 4
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    (y,) = run(net.proto(), feeds={"x": x}).values()
    np.testing.assert_allclose(found.scale * x + found.shift, y, rtol=1e-6)


def test_a_norm_with_statistics_is_one() -> None:
    lines = [(s, np.abs(CHANNELS) + s) for s in range(1, 5)]
    groups, net = view_of("BatchNormalization", *lines, count=5, epsilon=1e-3)
    ((view, _),) = groups.tracing.views
    found = affine_of(groups.tracing, view)
    assert found is not None and found.elements == 16
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    (y,) = run(net.proto(), feeds={"x": x}).values()
    np.testing.assert_allclose(found.scale * x + found.shift, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "constants"),
    [
        ("Div", [(0, CHANNELS[:, None])]),
        ("Div", [(1, np.array(0, np.float32))]),
        ("Mul", [(1, np.array(np.inf, np.float32))]),
        ("Add", [(1, np.array(np.nan, np.float32))]),
        ("Mul", []),
        ("Pow", [(1, np.array(2, np.float32))]),
    ],
)
def test_what_is_something_else_is_none(op: str, constants: list[tuple[int, np.ndarray]]) -> None:
    assert affine(op, *constants) is None


def test_a_constant_that_a_caller_may_override_is_none() -> None:
    net = Net()
    net.output(net.add("Mul", net.input([2, 4]), net.const(CHANNELS, "c")))
    proto = net.proto()
    proto.graph.input.append(helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [4]))
    groups = api.trace(proto)
    ((view, _),) = groups.tracing.views
    assert affine_of(groups.tracing, view) is None
