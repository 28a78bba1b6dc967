"""Values that the graph computes from constants and sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxprune.model import load
from onnxprune.model.shapes.infer import infer
from tests.graphs.net import Net


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
