"""Sizes that convolutions leave: the numbers of the runtime, and equal to what exporters compute for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.model import load
from onnxprune.model.shapes.entries import number
from onnxprune.model.shapes.infer import infer
from tests.graphs.net import INT64, Net, prune, run

ATTRIBUTES: tuple[dict[str, Any], ...] = (
    {},
    {"strides": [2]},
    {"strides": [3], "pads": [2, 0]},
    {"dilations": [2], "pads": [1, 3]},
    {"strides": [2], "dilations": [3]},
    {"auto_pad": "VALID", "strides": [2]},
    {"auto_pad": "SAME_UPPER", "strides": [2]},
    {"auto_pad": "SAME_LOWER", "strides": [3]},
    {"auto_pad": "NOTSET", "pads": [0, 4], "strides": [5]},
)


@pytest.mark.parametrize("attrs", ATTRIBUTES, ids=str)
@pytest.mark.parametrize("kernel", [1, 2, 5])
def test_the_numbers_of_the_runtime(kernel: int, attrs: dict[str, Any]) -> None:
    net = Net()
    y = net.add("Conv", net.input(["batch", 3, "n"]), net.weight(4, 3, kernel), **attrs)
    net.output(y, ["batch", 4, None])
    proto = net.proto()
    static = infer(load(proto))
    *_, size = static.dims[y]
    (x,) = [value.name for value in proto.graph.input]
    ran = 0
    for n in range(1, 40):
        try:
            (found,) = run(proto, feeds={x: np.zeros((1, 3, n), np.float32)}).values()
        except Exception:  # noqa: BLE001 no window fits
            assert (number(size, {"n": n}) or 0) < 1 or str(size).startswith(y)
            continue
        assert number(size, {"n": n}) == found.shape[2], n
        ran += 1
    assert ran > 25


def encoder(length: Any) -> onnx.ModelProto:
    """Two convolutions, and heads that are laid out by a length which the graph computes from the number of samples."""
    net = Net()
    x = net.input(["batch", 1, "samples"], name="x")
    y = net.add("Relu", net.add("Conv", x, net.weight(16, 1, 10), strides=[5]))
    y = net.add("Conv", y, net.weight(32, 16, 3), strides=[2])  # (samples - 20) // 10 + 1
    y = net.add("Transpose", y, perm=[0, 2, 1])
    y = net.add("MatMul", y, net.weight(32, 24))
    samples = net.add("Slice", net.add("Shape", x), net.ints(2), net.ints(3))
    batch = net.add("Slice", net.add("Shape", x), net.ints(0), net.ints(1))
    target = net.add("Concat", batch, length(net, samples), net.ints(-1, 6), axis=0)
    heads = net.add("Transpose", net.add("Reshape", y, target), perm=[0, 2, 1, 3])
    back = net.add("Concat", batch, length(net, samples), net.ints(24), axis=0)
    y = net.add("Reshape", net.add("Transpose", net.add("Tanh", heads), perm=[0, 2, 1, 3]), back)
    net.output(net.add("MatMul", y, net.weight(24, 8)), ["batch", "length", 8])
    return net.proto()


def exported(net: Net, samples: str) -> str:
    """(samples // 10 - 2) + 1, as symbolic arithmetic simplifies it: the same."""
    return net.add("Add", net.add("Div", samples, net.ints(10)), net.ints(-1))


def nested(net: Net, samples: str) -> str:
    """(samples // 5 - 2) // 2, rounded towards zero: the same where a window fits, and other numbers below."""
    return net.add("Div", net.add("Sub", net.add("Div", samples, net.ints(5)), net.ints(2)), net.ints(2))


def other(net: Net, samples: str) -> str:
    """(samples - 12) // 10: the same for eight of ten numbers of samples."""
    return net.add("Div", net.add("Sub", samples, net.ints(12)), net.ints(10))


@pytest.mark.parametrize("length", [exported, nested])
def test_equal_lengths_let_channels_through(length: Any) -> None:
    proto = encoder(length)
    outcome = prune(proto)
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.verdict.error < 1e-5
    units = {group.units for group in outcome.groups.groups}
    assert units >= {16, 32} and units & {4, 6, 24}
    small = load(outcome.model).proto
    for samples in (20, 21, 29, 30, 137):
        x = np.random.default_rng(samples).standard_normal((2, 1, samples)).astype(np.float32)
        assert next(iter(run(small, feeds={"x": x}).values())).shape == (2, (samples - 10) // 10, 8)


def test_lengths_that_are_equal_by_chance_do_not() -> None:
    outcome = prune(encoder(other))
    assert outcome.verdict is not None and outcome.verdict.ok
    assert not {group.units for group in outcome.groups.groups} & {4, 6, 24}
    assert any("the run alone knows" in str(barrier.reason) for barrier in outcome.groups.barriers)


def test_a_convolution_that_nothing_needs_says_nothing_of_sizes() -> None:
    """The runtime leaves it out."""
    for is_needed in (True, False):
        net = Net()
        x = net.input(["batch", 1, "samples"], name="x")
        y = net.add("Conv", x, net.weight(1, 1, 9))
        samples = net.add("Slice", net.add("Shape", x), net.ints(2), net.ints(3))
        half = net.add("Div", net.add("Sub", samples, net.ints(4)), net.ints(2))
        net.output(y if is_needed else x, ["batch", 1, "left"])
        net.output(half, [1], dtype=INT64)
        entries = infer(load(net.proto())).entries[half]
        assert entries is not None
        assert ("TruncatedDiv" in str(entries.flat[0])) != is_needed


def test_a_convolution_in_a_branch_says_nothing_of_sizes() -> None:
    """It may not run at all; the length is what it is only where it does."""
    net = Net()
    x = net.input(["batch", 1, "samples"], name="x")
    body = Net()
    inner = body.add("Conv", x, body.weight(1, 1, 9))
    info = onnx.helper.make_tensor_value_info
    then = onnx.helper.make_graph(body.nodes, "then", [], [info(inner, onnx.TensorProto.FLOAT, None)], body.weights)
    other_body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [x], ["same"])], "else", [], [info("same", onnx.TensorProto.FLOAT, None)]
    )
    choice = net.input([], name="c", dtype=onnx.TensorProto.BOOL)
    y = net.add("If", choice, then_branch=then, else_branch=other_body)
    samples = net.add("Slice", net.add("Shape", x), net.ints(2), net.ints(3))
    half = net.add("Div", net.add("Sub", samples, net.ints(4)), net.ints(2))
    net.output(y, ["batch", 1, "left"])
    net.output(half, [1], dtype=INT64)
    static = infer(load(net.proto()))
    entries = static.entries[half]
    assert entries is not None and "TruncatedDiv" in str(entries.flat[0])
