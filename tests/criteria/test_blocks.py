"""Scores of blocks."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from onnxprune import api
from onnxprune.criteria import block_influence, block_params
from onnxprune.model.blocks import find_blocks
from onnxprune.model.data_flow import DataFlow
from tests.graphs.net import Net, run


def stack(scales: tuple[float, ...]) -> onnx.ModelProto:
    """Blocks x + scale * MatMul(Relu(MatMul(x)))."""
    net = Net()
    x = net.input(["n", 6])
    x = net.add("MatMul", x, net.weight(6, 6), name="entry")
    for i, scale in enumerate(scales):
        h = net.add("Relu", net.add("MatMul", x, net.weight(6, 8, name=f"up{i}"), name=f"h{i}"))
        x = net.add("Add", x, net.add("MatMul", h, net.weight(8, 6, name=f"down{i}", scale=scale)), name=f"s{i}")
    net.output(net.add("MatMul", x, net.weight(6, 3)), ["n", 3])
    return net.proto()


def test_influence_is_the_turn_of_the_stream() -> None:
    proto = stack((0.01, 1.0))
    groups = api.trace(proto)
    blocks = find_blocks(DataFlow(groups.tracing.model, groups.static))
    runs = [{"x": np.random.default_rng(i).standard_normal((7, 6)).astype(np.float32)} for i in range(2)]
    found = block_influence(groups, blocks, runs)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for b in blocks for n in (b.entry, b.exit))
    for block in blocks:
        pairs = [run(copy, feeds=feeds) for feeds in runs]
        x, y = (np.concatenate([p[n] for p in pairs]).astype(np.float64) for n in (block.entry, block.exit))
        cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        assert found[block.name] == pytest.approx(1 - cosines.mean(), abs=1e-6)
    small, large = sorted(found.values())
    assert small < 0.01 < large


def test_no_run_no_influence() -> None:
    groups = api.trace(stack((1.0,)))
    blocks = find_blocks(DataFlow(groups.tracing.model, groups.static))
    assert list(block_influence(groups, blocks, ()).values()) == [math.inf]


def test_parameters_are_those_that_go() -> None:
    groups = api.trace(stack((1.0, 1.0)))
    assert [block_params(groups, b) for b in find_blocks(DataFlow(groups.tracing.model, groups.static))] == [96, 96]
