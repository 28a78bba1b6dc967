"""Factors behind norms that move into the layers that read them, and which may not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.model import load, to_proto
from onnxprune.rewriting import RotateStep, rotatable_groups, why_not_linear, with_rotation
from onnxprune.rewriting.rotate import nearest_orthogonal
from onnxprune.rewriting.unit_scales import scales, with_own_readers
from onnxprune.tracing import Group, Groups, trace
from tests.graphs.linear import WIDTH, normed
from tests.graphs.net import run

NORMS = ("", "RMSNormalization", "SimplifiedLayerNormalization")


def traced(proto: onnx.ModelProto) -> tuple[Groups, Group]:
    groups = trace(load(proto))
    return groups, next(g for g in groups.groups if g.name == "table")


def values(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}


def basis() -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("tied", [False, True])
def test_a_stream_between_norms_is_rotated(norm: str, tied: bool) -> None:
    proto = normed(norm=norm, tied=tied)
    groups, group = traced(proto)
    assert why_not_linear(groups, group) == ""
    found = to_proto(with_rotation(groups, [RotateStep("table", (basis(),))]))
    before, after, turn = values(proto), values(found), nearest_orthogonal(basis())
    for number in range(3):
        np.testing.assert_array_equal(after[f"scale{number}"], np.ones(WIDTH))
    np.testing.assert_allclose(after["table"], before["table"] @ turn, atol=1e-6)
    np.testing.assert_allclose(after["up0"], turn.T @ np.diag(before["scale0"]) @ before["up0"], atol=1e-6)
    last = after["table_scaled"].T if tied else after["last"]
    whole = before["table"].T if tied else before["last"]
    np.testing.assert_allclose(last, turn.T @ np.diag(before["scale2"]) @ whole, atol=1e-5)
    assert len(found.graph.node) == len(proto.graph.node)
    feeds = {"ids": np.random.default_rng(1).integers(0, 16, (3, 5))}
    (one,), (other,) = (run(p, feeds=feeds).values() for p in (proto, found))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_only_a_weight_that_others_read_gets_a_copy() -> None:
    groups, group = traced(normed(tied=False))
    assert with_own_readers(groups, [group]) is groups
    assert [len(scale.readers) for scale in scales(groups, group)] == [1, 1, 1]
    groups, group = traced(normed(tied=True))
    assert [r.is_shared for scale in scales(groups, group) for r in scale.readers] == [False, False, True]
    own = with_own_readers(groups, [group])
    np.testing.assert_array_equal(own.model.array("table_scaled"), groups.model.array("table"))
    copied = next(g for g in own.groups if g.name == "table")
    assert [r.is_shared for scale in scales(own, copied) for r in scale.readers] == [False, False, False]


def changed(edit: str) -> onnx.ModelProto:
    """The network in single steps, with something that keeps the scales where they are."""
    proto = normed()
    scaled = next(n for n in proto.graph.node if "scale1" in n.input)
    if edit == "another reader":
        product = next(n for n in proto.graph.node if scaled.output[0] in n.input)
        bent = onnx.helper.make_node("Relu", [scaled.output[0]], ["bent"])
        proto.graph.node.insert(list(proto.graph.node).index(product), bent)
        product.input[0] = "bent"
    elif edit == "one scale for two norms":
        next(n for n in proto.graph.node if "scale0" in n.input).input[1] = "scale1"
    elif edit == "another power":
        powers = {node.input[1] for node in proto.graph.node if node.op_type == "Pow"}
        for tensor in proto.graph.initializer:
            if tensor.name in powers:
                tensor.CopyFrom(numpy_helper.from_array(np.float32(4), tensor.name))
    elif edit == "a length of squares":
        for node in proto.graph.node:
            node.op_type = "ReduceL2" if node.op_type == "ReduceMean" else node.op_type
    return proto


@pytest.mark.parametrize("edit", ["another reader", "one scale for two norms", "another power", "a length of squares"])
def test_what_keeps_a_stream_as_it_is(edit: str) -> None:
    groups, group = traced(changed(edit))
    assert why_not_linear(groups, group) != ""
    assert "table" not in rotatable_groups(groups)
