"""Sizes on the other sides of what a graph compares."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.model import load
from onnxprune.model.shapes.entries import number
from onnxprune.model.shapes.infer import StaticInfo, infer
from onnxprune.model.shapes.thresholds import other_sides
from tests.graphs.net import Net


def static_of(net: Net, made: str) -> StaticInfo:
    return infer(load(net.proto([onnx.ValueInfoProto(name=made)]), check=False))


def batch(net: Net) -> str:
    return net.add("Slice", net.add("Shape", net.input(["batch", 6])), net.ints(0), net.ints(1))


def sides(net: Net, made: str) -> list[int]:
    static = static_of(net, made)
    return [numbers["batch"] for numbers in other_sides(static, {"x": static.shapes["x"]}).tried]


def left(net: Net, made: str) -> list[str]:
    static = static_of(net, made)
    return list(other_sides(static, {"x": static.shapes["x"]}).left)


def test_both_sides_of_a_clamp_are_reached() -> None:
    net = Net()
    found = sides(net, net.add("Max", net.add("Sub", batch(net), net.ints(50)), net.ints(0)))
    assert max(found) > 50


def test_both_sides_of_a_comparison_and_its_edge_are_reached() -> None:
    net = Net()
    found = sides(net, net.add("Equal", batch(net), net.ints(300)))
    assert 300 in found
    assert max(found) > 300


def test_thresholds_inside_of_a_division_are_reached() -> None:
    net = Net()
    blocks = net.add("Div", batch(net), net.ints(64))
    found = sides(net, net.add("Where", net.add("Less", blocks, net.ints(2)), net.ints(4), net.ints(5)))
    assert any(n >= 128 for n in found)


def test_without_comparisons_there_is_nothing_to_try() -> None:
    net = Net()
    n = batch(net)
    target = net.add("Concat", n, net.ints(2, 3), axis=0)
    assert sides(net, net.add("Reshape", "x", target)) == []
    net = Net()
    assert sides(net, net.add("Expand", net.const(np.float32(1)), net.add("Max", batch(net), net.ints(1)))) == []


def test_sizes_that_need_too_much_memory_are_left_and_named() -> None:
    net = Net()
    most = net.add("Max", net.add("Sub", batch(net), net.ints(1 << 40)), net.ints(0))
    assert sides(net, most) == []
    (said,) = left(net, most)
    assert said == f"batch={(1 << 40) + 1}: such inputs are too large"


def test_more_sides_than_are_tried_are_named() -> None:
    net = Net()
    n = batch(net)
    steps = [net.add("Max", net.add("Sub", n, net.ints(10 * k)), net.ints(0)) for k in range(1, 9)]
    total = steps[0]
    for step in steps[1:]:
        total = net.add("Add", total, step)
    assert len(sides(net, total)) == 4
    assert left(net, total)
    assert all(said.endswith("enough other sizes are tried") for said in left(net, total))


def test_all_sides_of_a_comparison_leave_none() -> None:
    net = Net()
    assert left(net, net.add("Equal", batch(net), net.ints(300))) == []


def test_deep_arithmetic_of_sizes_takes_no_longer_than_it_is() -> None:
    """Expressions that are used twice, one in the other: written out they would have 2^60 parts, and huge numbers."""
    net = Net()
    size = batch(net)
    for step in range(60):
        squared = net.add("Mul", size, net.add("Add", size, net.ints(step)))
        size = net.add("Max", net.add("Div", squared, net.ints(7)), net.ints(1))
    assert len(sides(net, size)) <= 4


def test_long_arithmetic_of_sizes_is_followed() -> None:
    net = Net()
    size = batch(net)
    for _ in range(400):
        size = net.add("Max", net.add("Sub", size, net.ints(1)), net.ints(0))
    found = static_of(net, size).entries[size]
    assert found is not None
    assert [number(found.reshape(-1)[0], {"batch": n}) for n in (300, 400, 401, 1000)] == [0, 0, 1, 600]
