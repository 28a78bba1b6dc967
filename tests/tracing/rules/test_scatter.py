"""Positions written into a tensor: which axes let units through."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import api
from tests.graphs.net import Net


def scattered(op: str, index: np.ndarray | None, updates: tuple[int, ...], **attributes: int) -> onnx.ModelProto:
    """MatMul -> scatter into it -> MatMul, over [6, 8]."""
    net = Net()
    h = net.add("MatMul", net.input([6, 4]), net.weight(4, 8, name="w1"))
    given = net.input(index.shape if index is not None else updates, "index", onnx.TensorProto.INT64)
    place = given if index is None else net.const(index)
    h = net.add(op, h, place, net.weight(*updates, name="updates"), **attributes)
    net.output(net.add("MatMul", h, net.weight(8, 3, name="w2")))
    proto = net.proto()
    if index is not None:
        kept = [v for v in proto.graph.input if v.name != "index"]
        del proto.graph.input[:]
        proto.graph.input.extend(kept)
    return proto


def sizes(proto: onnx.ModelProto) -> set[int]:
    return {g.units for g in api.trace(proto).groups}


ALL = np.broadcast_to(np.arange(8), (6, 8)).copy()


@pytest.mark.parametrize(
    ("op", "index", "updates", "attributes"),
    [
        ("ScatterElements", ALL, (6, 8), {"axis": 1}),
        ("ScatterElements", ALL - 8, (6, 8), {"axis": 1}),
        ("ScatterND", np.array([[0], [3]]), (2, 8), {}),
    ],
)
def test_units_go_through_and_the_result_is_proven(
    op: str, index: np.ndarray, updates: tuple[int, ...], attributes: dict[str, int]
) -> None:
    proto = scattered(op, index, updates, **attributes)
    assert 8 in sizes(proto)
    assert onnxprune.prune(proto, 0.5).report.verdict.ok


@pytest.mark.parametrize(
    ("op", "index", "updates", "attributes"),
    [
        ("ScatterElements", ALL[:, ::-1].copy(), (6, 8), {"axis": 1}),
        ("ScatterElements", ALL[:, :5].copy(), (6, 5), {"axis": 1}),
        ("ScatterElements", None, (6, 8), {"axis": 1}),
        ("ScatterND", np.array([[0, 1], [3, 2]]), (2,), {}),
    ],
)
def test_an_index_that_does_not_run_through_its_axis_locks_it(
    op: str, index: np.ndarray | None, updates: tuple[int, ...], attributes: dict[str, int]
) -> None:
    assert 8 not in sizes(scattered(op, index, updates, **attributes))
