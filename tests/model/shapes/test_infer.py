"""Sizes and values that are known before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.model import load
from onnxprune.model.shapes.infer import StaticInfo, infer
from onnxprune.model.shapes.symbols import dims_of, symbolic_dims
from tests.graphs.net import INT64, Net


def static_of(net: Net, **sizes: int) -> StaticInfo:
    proto = net.proto([onnx.ValueInfoProto(name=net.nodes[-1].output[0])] if not net.outputs else net.outputs)
    return infer(load(proto, check=False), sizes)


def test_static_shapes_through_a_network() -> None:
    net = Net()
    x = net.add("Conv", net.input([2, 3, 9, 7]), net.weight(8, 3, 3, 3), strides=[2, 1], pads=[1, 0, 1, 1])
    y = net.add("Flatten", net.add("MaxPool", x, kernel_shape=[2, 2]))
    static = static_of(net)
    assert static.shapes[x] == (2, 8, 5, 6)
    assert static.shapes[y] == (2, 8 * 4 * 5)
    assert static.dynamic == {}
    assert static.dtypes[y] == TensorProto.FLOAT


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


def test_a_value_that_only_the_run_knows_makes_no_static_size() -> None:
    net = Net()
    x = net.input([2, 8])
    y = net.add("Reshape", x, net.input([2], "target", dtype=INT64))
    z = net.add("Relu", y)
    static = static_of(net)
    assert len(static.shapes[y]) == len(static.shapes[z]) == 2
    assert static.dynamic[y] == static.dynamic[z] == {0, 1}


def test_declared_shapes_help_behind_unknown_operators() -> None:
    net = Net()
    x = net.input(["batch", 8])
    y = net.add("Mystery", x, domain="com.example")
    z = net.add("Relu", y)
    proto = net.proto([helper.make_tensor_value_info(z, TensorProto.FLOAT, None)])
    assert y not in infer(load(proto, check=False)).shapes
    proto.graph.value_info.append(helper.make_tensor_value_info(y, TensorProto.FLOAT, ["batch", 8]))
    static = infer(load(proto, check=False))
    assert static.shapes[y] == static.shapes[z] == (static.sizes["batch"], 8)
    assert static.dynamic[z] == {0}


def test_declared_shapes_over_other_symbols_tell_the_other_axes() -> None:
    net = Net()
    y = net.add("Mystery", net.input([2, 8]), domain="com.example")
    proto = net.proto([helper.make_tensor_value_info(y, TensorProto.FLOAT, [2, "unknown"])])
    static = infer(load(proto, check=False))
    assert static.shapes[y][0] == 2
    assert static.dynamic[y] == {1}


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


def test_sizes_that_the_graph_refuses_are_left_for_larger_ones() -> None:
    """Seven halvings: an image of 64 pixels vanishes."""
    net = Net()
    x = net.input(["batch", 1, "height", "width"])
    for _ in range(7):
        x = net.add("Conv", x, net.weight(1, 1, 3, 3), strides=[2, 2])
    static = static_of(net)
    assert min(static.shapes[x]) > 0
    assert static.sizes["height"] > 64


def test_two_numbers_that_differ_on_every_symbol() -> None:
    """Batch and length must not look alike, or a Reshape would be read wrongly."""
    net = Net()
    x = net.input(["batch", "length", 6])
    y = net.add("Reshape", x, net.ints(-1, 3, 2))
    static = static_of(net)
    assert static.sizes["batch"] != static.sizes["length"]
    assert static.dynamic[y] == {0}


def test_values_are_those_of_the_runtime() -> None:
    """Every integer subgraph that is evaluated gives what the runtime gives."""
    from tests.graphs.net import run

    net = Net()
    x = net.input([2, 3, 4, 5])
    shape = net.add("Shape", x)
    made = {
        "reverse": net.add("Slice", shape, net.ints(3), net.ints(-5), net.ints(0), net.ints(-1)),
        "odd": net.add("Slice", shape, net.ints(1), net.ints(9), net.ints(0), net.ints(2)),
        "negative-division": net.add("Div", net.add("Neg", shape), net.ints(2)),
        "modulo": net.add("Mod", net.add("Neg", shape), net.ints(3)),
        "fmod": net.add("Mod", net.add("Neg", shape), net.ints(3), fmod=1),
        "product": net.add("ReduceProd", shape, axes=[0], keepdims=1),
        "largest": net.add("ReduceMax", shape, keepdims=0),
        "sum": net.add("ReduceSum", shape, net.ints(0)),
        "running": net.add("CumSum", shape, net.const(np.int64(0))),
        "power": net.add("Pow", shape, net.ints(2)),
        "range": net.add("Range", net.const(np.int64(9)), net.const(np.int64(1)), net.const(np.int64(-3))),
        "tile": net.add("Tile", shape, net.ints(2)),
        "clip": net.add("Clip", shape, net.const(np.int64(3)), net.const(np.int64(4))),
        "where": net.add("Where", net.add("Greater", shape, net.ints(3)), shape, net.ints(-1)),
        "split": net.add("Split", shape, net.ints(1, 3), outputs=2, axis=0)[1],
        "size": net.add("Size", shape),
        "part": net.add("Shape", x, start=-3, end=-1),
        "scalar": net.add("Squeeze", net.add("Gather", shape, net.ints(-2))),
        "two": net.add("Transpose", net.add("Reshape", shape, net.ints(2, -1))),
        "less": net.cast(net.add("LessOrEqual", shape, net.ints(3)), TensorProto.INT64),
        "not": net.cast(net.add("Not", net.add("Equal", shape, net.ints(3))), TensorProto.INT64),
        "least": net.add("Min", shape, net.ints(4), net.ints(3)),
    }
    outputs = [onnx.ValueInfoProto(name=name) for name in made.values()]
    static = infer(load(net.proto(outputs), check=False))
    wanted: dict[str, Any] = run(net.proto(outputs))
    for what, name in made.items():
        assert name in static.constant_values, what
        np.testing.assert_array_equal(static.constant_values[name], wanted[name], err_msg=what)
        assert static.constant_values[name].dtype == wanted[name].dtype, what


@pytest.mark.parametrize("symbol", ["a+b", "a-b", "batch-9"])
def test_a_size_that_is_computed_from_unknown_or_too_small_ones_is_still_a_size(symbol: str) -> None:
    net = Net()
    x = net.input(["batch", symbol, 4], name="x")
    net.output(net.add("Relu", x))
    static = infer(load(net.proto()))
    assert min(static.shapes["x"]) > 0


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
