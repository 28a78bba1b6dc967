"""What depends on symbols, and what does not after all."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.graphs.net import INT64, Net
from tests.model.shapes.test_infer import static_of


def test_what_depends_on_symbols_is_dynamic() -> None:
    net = Net()
    x = net.input(["batch", "length", 6])
    y = net.add("MatMul", x, net.weight(6, 8))
    turned = net.add("Transpose", y, perm=[2, 0, 1])
    flat = net.add("Reshape", y, net.ints(-1, 8))
    constant = net.add("Relu", net.weight(3, 3))
    static = static_of(net)
    assert static.dynamic[y] == {0, 1}
    assert static.dynamic[turned] == {1, 2}
    assert static.dynamic[flat] == {0}
    assert constant not in static.dynamic
    assert static.shapes[flat] == (static.sizes["batch"] * static.sizes["length"], 8)


def size_of(net: Net) -> tuple[str, str]:
    """An input of [batch, 6], and the vector of one entry that is its batch."""
    x = net.input(["batch", 6])
    return x, net.add("Slice", net.add("Shape", x), net.ints(0), net.ints(1))


def test_what_a_clamp_or_a_comparison_of_a_size_makes_is_dynamic() -> None:
    net = Net()
    _, n = size_of(net)
    above = net.add("Greater", n, net.ints(50))
    made = {
        "max": net.add("Max", net.add("Sub", n, net.ints(50)), net.ints(0)),
        "min": net.add("Min", n, net.ints(1)),
        "clip": net.add("Clip", n, net.const(np.int64(40)), net.const(np.int64(90))),
        "greater": net.cast(above, INT64),
        "not": net.add("Not", above),
        "and": net.add("And", above, net.add("Less", n, net.ints(80))),
        "where": net.add("Where", above, net.ints(7), net.ints(3)),
        "division": net.add("Div", n, net.ints(1000)),
        "modulo": net.add("Mod", net.add("Div", n, net.ints(64)), net.ints(2)),
        "floats": net.cast(net.add("Floor", net.add("Mul", net.cast(n, TensorProto.FLOAT), scalar(net, 0.01))), INT64),
        "largest": net.add("ReduceMax", net.add("Concat", n, net.ints(60), axis=0)),
        "picked": net.add("Gather", net.ints(4, 4, 4, 4, 5), net.add("Min", n, net.ints(4))),
    }
    static = static_of(net)
    assert {what for what, name in made.items() if name in static.constant_values} == set()
    assert all(name in static.example_values for name in made.values())


def scalar(net: Net, value: float) -> str:
    return net.const(np.float32(value))


def test_what_does_not_depend_on_a_size_after_all_is_static() -> None:
    net = Net()
    x, n = size_of(net)
    made = {
        "cancelled": (net.add("Add", net.add("Sub", n, n), net.ints(4)), [4]),
        "quotient": (net.add("Div", net.add("Mul", n, net.ints(64)), net.add("Mul", net.ints(8), n)), [8]),
        "other entry": (net.add("Slice", net.add("Shape", x), net.ints(1), net.ints(2)), [6]),
        "rank": (net.add("Shape", net.add("Shape", x)), [2]),
        "same either way": (net.add("Where", net.add("Greater", n, net.ints(9)), net.ints(5), net.ints(5)), [5]),
        "never": (net.cast(net.add("Equal", n, net.ints(-1)), INT64), [0]),
        "at least": (net.add("Min", net.ints(3), net.add("Add", n, net.ints(3))), [3]),
        "whole": (net.add("Mod", net.add("Mul", n, net.ints(12)), net.ints(4)), [0]),
    }
    static = static_of(net)
    for what, (name, wanted) in made.items():
        assert name in static.constant_values, what
        assert static.constant_values[name].tolist() == wanted, what


def test_sizes_that_are_the_same_by_chance_are_dynamic() -> None:
    """A map of 16 and of 24 gives the same pool of 1; a slice of a length is as long as the length allows."""
    net = Net()
    x = net.input(["batch", 3, "height", 16])
    small = net.add(
        "MaxPool", net.add("Conv", x, net.weight(4, 3, 3, 3), strides=[9, 9]), kernel_shape=[1, 1], strides=[4, 4]
    )
    part = net.add("Slice", x, net.ints(0), net.ints(5), net.ints(2))
    resized = net.add(
        "Resize", x, "", "", net.add("Concat", net.ints(2, 3, 8), net.add("Div", heights(net, x), net.ints(99)), axis=0)
    )
    static = static_of(net)
    assert static.dynamic[small] == {0, 2}
    assert static.dynamic[part] == {0, 2}
    assert 3 in static.dynamic[resized]


def heights(net: Net, x: str) -> str:
    return net.add("Add", net.add("Slice", net.add("Shape", x), net.ints(2), net.ints(3)), net.ints(200))


def test_the_rest_of_a_reshape_is_static_where_the_dynamic_sizes_cancel() -> None:
    net = Net()
    x = net.input(["batch", "length", 768])
    shape = net.add("Shape", x)
    front = net.add("Slice", shape, net.ints(0), net.ints(2))
    heads = net.add("Reshape", x, net.add("Concat", front, net.ints(12, -1), axis=0))
    merged = net.add("Reshape", net.add("Transpose", heads, perm=[0, 2, 1, 3]), net.ints(-1, 12, 64))
    static = static_of(net)
    assert static.dynamic[heads] == {0, 1}
    assert static.shapes[heads][2:] == (12, 64)
    assert static.dynamic[merged] == {0}
