"""Sizes that operators make of sizes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from tests.graphs.net import Net
from tests.model.shapes.test_infer import static_of


@pytest.mark.parametrize("batch", [2, "batch"])
def test_targets_that_the_graph_computes(batch: int | str) -> None:
    """Shape, Gather, Unsqueeze, Concat, Reshape: as exporters split heads."""
    net = Net()
    x = net.input([batch, 5, 24])
    shape = net.add("Shape", x)
    front = [net.add("Unsqueeze", net.add("Gather", shape, net.const(np.int64(i))), net.ints(0)) for i in (0, 1)]
    size = net.add("Div", net.add("Gather", shape, net.ints(2)), net.ints(4))
    target = net.add("Concat", *front, net.ints(4), size, axis=0)
    y = net.add("Reshape", x, target)
    static = static_of(net)
    number = static.sizes.get("batch", 2)
    assert static.shapes[y] == (number, 5, 4, 6)
    assert static.constant_values[size].tolist() == [6]
    assert static.example_values[target].tolist() == [number, 5, 4, 6]
    assert (target in static.constant_values) == (batch == 2)
    assert static.dynamic.get(y, frozenset()) == (frozenset({0}) if batch == "batch" else frozenset())


def test_sizes_by_floats() -> None:
    """floor(size * scale), as upsampling computes it."""
    net = Net()
    x = net.input([2, 3, 8, 6])
    size = net.add("Slice", net.add("Shape", x), net.ints(2), net.ints(4))
    scaled = net.add("Mul", net.cast(size, TensorProto.FLOAT), net.const(np.array([1.5, 2], np.float32)))
    wanted = net.cast(net.add("Floor", scaled), TensorProto.INT64)
    sizes = net.add("Concat", net.add("Slice", net.add("Shape", x), net.ints(0), net.ints(2)), wanted, axis=0)
    y = net.add("Resize", x, "", "", sizes)
    assert static_of(net).shapes[y] == (2, 3, 12, 12)


def test_dims_that_are_sums() -> None:
    """`past + 1` follows `past`."""
    net = Net()
    past = net.input(["batch", "past", 8], "keys")
    mask = net.input(["batch", "past + 1"], "mask")
    net.add("Relu", past)
    y = net.add("Relu", mask)
    static = static_of(net)
    assert static.sizes["past + 1"] == static.sizes["past"] + 1
    assert static.dynamic[y] == {0, 1}


def test_the_last_of_an_axis_as_many_as_it_has() -> None:
    """`x[:, -length:]` where the axis is `length` long, as tables of distances are cut to the queries."""
    net = Net()
    x = net.input(["batch", "length", 8])
    length = net.add("Slice", net.add("Shape", x), net.ints(1), net.ints(2))
    y = net.add("Slice", x, net.add("Neg", length), net.ints(2**31), net.ints(1))
    shorter = net.add("Slice", x, net.add("Neg", net.add("Div", length, net.ints(2))), net.ints(2**31), net.ints(1))
    static = static_of(net)
    assert static.dims[y] == static.dims[x]
    assert static.dims[shorter][1] != static.dims[x][1]
