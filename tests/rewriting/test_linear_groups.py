"""Which groups are linear: by the labels and the operators that meet them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.model import load
from onnxprune.rewriting import fibres, why_not_linear
from onnxprune.tracing import Groups, trace
from tests.graphs.linear import attention, bottleneck
from tests.graphs.net import Net

WIDTH = 6


def why(groups: Groups, name: str) -> str:
    return why_not_linear(groups, next(g for g in groups.groups if g.name == name))


def between(make: Callable[[Net, str], str]) -> onnx.ModelProto:
    """What `make` puts between two convolutions, of which the first is called first."""
    net = Net()
    x = net.add("Conv", net.input([2, 4, 5, 5]), net.weight(WIDTH, 4, 1, 1, name="first"), net.weight(WIDTH))
    x = make(net, x)
    net.output(net.add("Conv", x, net.weight(3, WIDTH, 1, 1), net.weight(3)))
    return net.proto()


LINEAR: dict[str, Callable[[Net, str], str]] = {
    "nothing": lambda net, x: x,
    "a pool": lambda net, x: net.add("AveragePool", x, kernel_shape=[2, 2]),
    "a sum with itself": lambda net, x: net.add("Add", x, net.add("AveragePool", x, kernel_shape=[1, 1])),
    "a constant for each": lambda net, x: net.add("Add", x, net.weight(WIDTH, 1, 1)),
    "one factor for all": lambda net, x: net.add("Mul", x, net.const(np.float32(3))),
    "a mask of places": lambda net, x: net.add("Mul", net.weight(1, 1, 5, 5), x),
    "one divisor for all": lambda net, x: net.add("Div", x, net.const(np.float32(3))),
    "layouts": lambda net, x: net.add("Transpose", net.add("Transpose", x, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2]),
    "a part of the map": lambda net, x: net.add("Slice", x, net.ints(1), net.ints(4), net.ints(2)),
    "a layer of its own": lambda net, x: net.add("Add", x, net.add("Conv", x, net.weight(WIDTH, WIDTH, 1, 1))),
}
LENGTHS = {
    "a root of squares": lambda net, x: net.add("ReduceL2", x, axes=[1], keepdims=1),
    "a sum of squares": lambda net, x: net.add("ReduceSumSquare", x, axes=[1], keepdims=1),
    "a mean of products": lambda net, x: net.add("ReduceMean", net.add("Mul", x, x), axes=[1], keepdims=1),
}
LINEAR |= {name: lambda net, x, of=of: net.add("Div", x, of(net, x)) for name, of in LENGTHS.items()}
BENT: dict[str, tuple[Callable[[Net, str], str], str]] = {
    "an activation": (lambda net, x: net.add("Relu", x), "Relu"),
    "a factor for each": (lambda net, x: net.add("Mul", x, net.weight(WIDTH, 1, 1)), "Mul"),
    "a square": (lambda net, x: net.add("Mul", x, x), "Mul"),
    "one constant for all": (lambda net, x: net.add("Add", x, net.const(np.float32(3))), "Add"),
    "a divided constant": (lambda net, x: net.add("Div", net.const(np.float32(3)), x), "Div"),
    "a maximum": (lambda net, x: net.add("MaxPool", x, kernel_shape=[2, 2]), "MaxPool"),
    "a depthwise layer": (
        lambda net, x: net.add("Conv", x, net.weight(WIDTH, 1, 1, 1), net.weight(WIDTH), group=WIDTH),
        "Conv",
    ),
    "a mean over them": (
        lambda net, x: net.add("Sub", x, net.add("ReduceMean", x, axes=[1], keepdims=1)),
        "is not the same linear function",
    ),
    "a sum over them": (
        lambda net, x: net.add("Div", x, net.add("ReduceSum", x, net.ints(1), keepdims=1)),
        "is not the same linear function",
    ),
    "squares of their own": (lambda net, x: net.add("Mul", x, x), "Mul"),
    "a norm": (
        lambda net, x: net.add(
            "BatchNormalization", x, *(net.const(np.linspace(1, 2, WIDTH, dtype=np.float32)) for _ in range(4))
        ),
        "BatchNormalization",
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_what_leaves_a_group_linear(name: str) -> None:
    assert why(trace(load(between(LINEAR[name]))), "first") == ""


@pytest.mark.parametrize("name", BENT)
def test_what_does_not(name: str) -> None:
    make, said = BENT[name]
    assert said in why(trace(load(between(make))), "first")


def test_the_stream_of_bottlenecks_is_linear_and_what_lies_between_is_not() -> None:
    groups = trace(load(bottleneck()))
    assert why(groups, "stem") == ""
    assert "Relu" in why(groups, "expand0")
    assert "Mul" in why(trace(load(bottleneck(scaled=True))), "stem")


def test_values_of_attention_are_linear_within_each_head() -> None:
    groups = trace(load(attention()), head_dims=True)
    assert [len(cell) for cell in next(g for g in groups.groups if g.name == "value").cells] == [4, 4]
    assert why(groups, "value") == ""
    whole = trace(load(attention()))
    assert "a part of its units, or several positions" in why(whole, whole.groups[0].name)


def test_a_group_that_a_flattened_map_holds_is_not() -> None:
    net = Net()
    x = net.add("Conv", net.input([1, 4, 5, 5]), net.weight(WIDTH, 4, 1, 1, name="first"))
    net.output(net.add("MatMul", net.add("Flatten", x), net.weight(WIDTH * 25, 3)))
    assert "several positions" in why(trace(load(net.proto())), "first")


def test_quantised_weights_stay() -> None:
    net = Net()
    x = net.add("Conv", net.input([1, 4, 5, 5]), net.weight(WIDTH, 4, 1, 1, name="first"))
    stored = net.const(net.rng.integers(-9, 9, (3, WIDTH, 1, 1)).astype(np.int8))
    second = net.add("DequantizeLinear", stored, net.const(np.float32(0.1)), net.const(np.int8(0)))
    net.output(net.add("Conv", x, second))
    assert "not stored as floats" in why(trace(load(net.proto())), "first")


@pytest.mark.parametrize(
    ("labels", "axis", "rank", "others", "rows"),
    [
        (np.arange(3), 1, 4, (), [[0, 1, 2]]),
        (np.arange(6).reshape(1, 2, 1, 3), 3, 4, (1,), [[0, 1, 2], [3, 4, 5]]),
        (np.arange(6).reshape(3, 2), 0, 2, (1,), [[0, 2, 4], [1, 3, 5]]),
    ],
)
def test_labels_by_row(labels: Any, axis: int, rank: int, others: tuple[int, ...], rows: list[list[int]]) -> None:
    found, lines = fibres(labels, axis, rank)
    assert (found, lines.tolist()) == (others, rows)
