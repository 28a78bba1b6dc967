"""Symbolic dims: which there are, and the numbers in their place."""

from __future__ import annotations

import onnx

from onnxprune.model import load
from onnxprune.model.shapes.infer import infer
from onnxprune.model.shapes.symbols import dims_of, symbolic_dims
from tests.graphs.net import INT64, Net
from tests.model.shapes.test_infer import static_of


def test_symbolic_dims_are_found_with_their_first_use() -> None:
    net = Net()
    net.input(["batch", "length"], "ids", dtype=INT64)
    net.input(["batch", 3, "height", None], "image")
    net.add("Relu", "image")
    found = symbolic_dims(net.proto().graph)
    assert {s: (u.tensor, u.axis) for s, u in found.items()} == {
        "batch": ("ids", 0),
        "length": ("ids", 1),
        "height": ("image", 2),
        "image[3]": ("image", 3),
    }
    assert dims_of(net.inputs[1]) == ["batch", 3, "height", "image[3]"]


def test_initializers_among_the_inputs_are_no_symbols() -> None:
    net = Net(8, ir_version=3)
    net.read(net.make((2, 5, 8), 2), 2)
    assert symbolic_dims(net.proto().graph) == {}


def test_numbers_can_be_given() -> None:
    net = Net()
    y = net.add("Relu", net.input(["batch", "length", 6]))
    static = static_of(net, batch=7, length=11)
    assert static.shapes[y] == (7, 11, 6)
    assert (static.sizes["batch"], static.sizes["length"]) == (7, 11)


def test_a_dim_without_a_name_is_given_by_its_place() -> None:
    net = Net()
    y = net.add("Relu", net.input([None, 6], "data"))
    assert infer(load(net.proto([onnx.ValueInfoProto(name=y)]), check=False), {"data[0]": 9}).shapes[y] == (9, 6)


def test_sizes_that_the_graph_refuses_are_left_for_larger_ones() -> None:
    """Seven halvings: an image of 64 pixels vanishes."""
    net = Net()
    x = net.input(["batch", 1, "height", "width"])
    for _ in range(7):
        x = net.add("Conv", x, net.weight(1, 1, 3, 3), strides=[2, 2])
    static = static_of(net)
    assert min(static.shapes[x]) > 0
    assert static.sizes["height"] > 64
