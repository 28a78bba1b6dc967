"""Indices, sizes and conditions that a graph computes from a dynamic size: what is cut is right at every size."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given

from onnxprune.errors import GoalMissed, RunError
from onnxprune.model import load, to_proto
from onnxprune.tracing import trace
from tests.graphs.net import FLOAT, array_of, prune, run, with_arrays
from tests.graphs.random_sizes import JOINS, SIZES, WIDTH, Sizes, computed
from tests.random.test_graphs import LONG, quick


def check(proto: onnx.ModelProto) -> None:
    """The result equals the original whose removed weights are zero, at sizes on both sides of every threshold."""
    try:
        outcome = prune(proto)
    except GoalMissed as missed:
        assert missed.message.startswith("nothing can be pruned"), missed.message
        return
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    masks = outcome.plan.masks(proto)
    zeroed = with_arrays(proto, {name: (array_of(proto, name) * kept).astype("f") for name, kept in masks.items()})
    for size in SIZES:
        feeds = {"x": np.random.default_rng(size).standard_normal((size, 6)).astype(np.float32)}
        try:
            wanted = run(zeroed, feeds=feeds)
        except RunError:
            continue
        for name, found in run(to_proto(outcome.model), feeds=feeds).items():
            np.testing.assert_allclose(found, wanted[name], rtol=1e-3, atol=1e-4, err_msg=f"batch {size}")


def test_random_sizes() -> None:
    @quick(35)
    @given(computed())
    def one(proto: onnx.ModelProto) -> None:
        check(proto)

    one()


@pytest.mark.parametrize("op", JOINS)
@pytest.mark.parametrize("use", ["broadcast", "cover"])
def test_an_axis_of_one_position_or_as_many_as_the_others(use: str, op: str) -> None:
    """At the sizes of the trace there is one: the axis is broadcast there, and only there."""
    net = Sizes(lambda _: 3)
    part = net.one_or_all(use, net.net.add("Greater", net.size, net.const(20)))
    net.net.output(net.net.add("MatMul", net.joined(op, part), net.net.weight(WIDTH, 3)), ["batch", 3], FLOAT)
    check(net.net.proto())


@pytest.mark.long
def test_many_sizes() -> None:
    @quick(LONG // 4)
    @given(computed())
    def one(proto: onnx.ModelProto) -> None:
        check(proto)

    one()


def test_the_reason_of_an_axis_of_one_position_or_more_names_the_node() -> None:
    net = Sizes(lambda _: 3)
    part = net.one_or_all("broadcast", net.net.add("Greater", net.size, net.const(20)))
    net.net.output(net.net.add("MatMul", net.joined("Add", part), net.net.weight(WIDTH, 3)), ["batch", 3], FLOAT)
    found = {(barrier.op, barrier.reason) for barrier in trace(load(net.net.proto())).barriers}
    assert ("Add", "one position or as many as the others, as sizes say that the run alone knows") in found
