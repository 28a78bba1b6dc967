"""Quantised weights behind nodes that move them, with a scale and a zero point per channel."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune import api
from onnxprune.model import load
from onnxprune.runtime import Session
from tests.graphs import two_judges
from tests.graphs.net import Net, group_of, prune, reasons_for

MOVES = ("Transpose", "Gather", "Reshape", "Slice", "Unsqueeze", "several")


def moved(net: Net, move: str, real: np.ndarray, name: str) -> str:
    """A tensor `real` that a node makes of a weight which holds its elements elsewhere."""
    n, m = real.shape
    if move == "Transpose":
        return net.add("Transpose", net.const(np.ascontiguousarray(real.T), name), perm=[1, 0])
    if move == "Gather":
        order = np.random.default_rng(m).permutation(m)
        stored = np.ascontiguousarray(real[:, np.argsort(order)])
        return net.add("Gather", net.const(stored, name), net.ints(*order.tolist()), axis=1)
    if move == "Reshape":
        return net.add("Reshape", net.const(real.reshape(n, m, 1), name), net.ints(n, m))
    if move == "Slice":
        return net.add("Slice", net.const(np.vstack([real, real]), name), net.ints(0), net.ints(n), net.ints(0))
    if move == "Unsqueeze":
        return net.add("Squeeze", net.add("Unsqueeze", net.const(real, name), net.ints(0)), net.ints(0))
    inner = net.const(np.ascontiguousarray(real.T).reshape(m, n, 1), name)
    return net.add("Transpose", net.add("Squeeze", inner, net.ints(2)), perm=[1, 0])


def layers(move: str, axis: int) -> onnx.ModelProto:
    """Two layers; the second reads what is never zero, so that its weights decide."""
    net, rng = Net(17), np.random.default_rng(0)

    def weight(n: int, m: int, name: str) -> str:
        stored = rng.integers(-100, 100, (n, m)).astype(np.int8)
        count = (n, m)[axis]
        scale = net.const(rng.uniform(0.01, 0.1, count).astype(np.float32))
        zero = net.const(rng.integers(-40, 40, count).astype(np.int8))
        return net.add("DequantizeLinear", moved(net, move, stored, name), scale, zero, axis=axis)

    hidden = net.add("Tanh", net.add("MatMul", net.input([3, 6]), weight(6, 8, "w_in")))
    net.output(net.add("MatMul", hidden, weight(8, 4, "w_out")), [3, 4])
    return net.proto()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("move", MOVES)
def test_what_stands_for_zero_is_followed_through_moves(move: str, axis: int) -> None:
    proto = layers(move, axis)
    outcome = prune(proto)
    assert outcome.verdict is not None and outcome.verdict.ok
    assert any(step.remove and step.exact for step in outcome.plan.steps)
    assert two_judges.check(proto, outcome.plan)


@pytest.mark.parametrize("move", MOVES)
def test_weights_behind_moves_are_seen_as_they_act(move: str) -> None:
    proto = layers(move, 1)
    (name,) = {n.output[0] for n in proto.graph.node if n.op_type == "DequantizeLinear"} & set(
        next(n.input for n in proto.graph.node if n.op_type == "MatMul")
    )
    tapped = onnx.ModelProto()
    tapped.CopyFrom(proto)
    tapped.graph.output.append(onnx.ValueInfoProto(name=name))
    tracing = api.trace(proto).tracing
    feeds = {proto.graph.input[0].name: np.zeros((3, 6), np.float32)}
    with Session(load(tapped)) as session:
        wanted = session.run(feeds, [name])[0]
    real = tracing.weight_value("w_in")
    assert real is not None
    np.testing.assert_allclose(np.sort(np.unique(real[real != 0])), np.sort(np.unique(wanted[wanted != 0])), rtol=1e-5)


def doubled() -> onnx.ModelProto:
    """Every stored column is read twice, with another zero point each time: no number in it is zero for both."""
    net, rng = Net(17), np.random.default_rng(0)
    stored = net.const(rng.integers(-100, 100, (6, 4)).astype(np.int8), "w_in")
    both = net.add("Gather", stored, net.ints(0, 1, 2, 3, 0, 1, 2, 3), axis=1)
    zero = net.const(np.arange(-8, 8, 2).astype(np.int8))
    w = net.add("DequantizeLinear", both, net.const(np.full(8, 0.1, np.float32)), zero, axis=1)
    hidden = net.add("Relu", net.add("MatMul", net.input([3, 6]), w))
    net.output(net.add("MatMul", hidden, net.weight(8, 4, name="w_out")), [3, 4])
    return net.proto()


def test_moves_that_are_not_followed_are_a_barrier() -> None:
    groups = api.trace(doubled())
    assert group_of(groups, "w_in", 1) is None
    assert any("zero points that differ" in reason for reason in reasons_for(groups, "w_in", 1))
