"""Numbers that stand for symbols."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from tests.graphs.net import Net
from tests.model.shapes.test_infer import static_of


def test_loops_of_conditions_over_sizes() -> None:
    """Where(Equal(shape, -1), ones, shape), as torch writes expand."""
    net = Net()
    x = net.input([2, 1, 8])
    shape = net.ints(2, 5, -1)
    kept = net.add(
        "Where", net.add("Equal", shape, net.ints(-1)), net.add("ConstantOfShape", net.ints(3), value=one()), shape
    )
    y = net.add("Expand", x, kept)
    assert static_of(net).shapes[y] == (2, 5, 8)


def one() -> onnx.TensorProto:
    return helper.make_tensor("one", TensorProto.INT64, [1], [1])


def test_two_numbers_that_differ_on_every_symbol() -> None:
    """Batch and length must not look alike, or a Reshape would be read wrongly."""
    net = Net()
    x = net.input(["batch", "length", 6])
    y = net.add("Reshape", x, net.ints(-1, 3, 2))
    static = static_of(net)
    assert static.sizes["batch"] != static.sizes["length"]
    assert static.dynamic[y] == {0}
