"""Bounds of one node's outputs: every number that the runtime makes lies inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune import api
from onnxprune.criteria.bounds import bounds_of
from tests.graphs.net import Net, run

LOW, HIGH = -2.0, 3.0
CASES: dict[str, Any] = {
    "Relu": lambda net, x: net.add("Relu", x),
    "Sigmoid": lambda net, x: net.add("Sigmoid", x),
    "Clip": lambda net, x: net.add("Clip", x, net.const(np.float32(-1)), net.const(np.float32(1))),
    "Neg": lambda net, x: net.add("Neg", x),
    "Abs": lambda net, x: net.add("Abs", x),
    "Add": lambda net, x: net.add("Add", x, net.weight(4)),
    "Sub": lambda net, x: net.add("Sub", net.weight(4), x),
    "Mul": lambda net, x: net.add("Mul", x, net.weight(4)),
    "MatMul": lambda net, x: net.add("MatMul", x, net.weight(4, 5)),
    "Gemm": lambda net, x: net.add("Gemm", x, net.weight(5, 4), net.weight(5), transB=1, alpha=0.5),
    "Transpose": lambda net, x: net.add("Transpose", x, perm=[1, 0]),
    "Concat": lambda net, x: net.add("Concat", x, net.weight(3, 4), axis=0),
    "Reshape": lambda net, x: net.add("Reshape", x, net.ints(4, 3)),
    "Softmax": lambda net, x: net.add("Softmax", x, axis=1),
    "ReduceMean": lambda net, x: net.add("ReduceMean", x, axes=[1]),
    "Max": lambda net, x: net.add("Max", x, net.weight(4)),
    "chain": lambda net, x: net.add("Relu", net.add("MatMul", net.add("Tanh", x), net.weight(4, 5))),
}


@pytest.mark.parametrize("case", CASES)
def test_what_runs_lies_inside(case: str) -> None:
    net = Net()
    y = CASES[case](net, net.input([3, 4]))
    net.output(y)
    proto = net.proto()
    found = bounds_of(api.trace(proto), {"x": (LOW, HIGH)}, {y}, 0.0).get(y)
    if found is None:
        pytest.skip("nothing is known of it, which is no error")
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.uniform(LOW, HIGH, (3, 4)).astype(np.float32)
        x[rng.random((3, 4)) < 0.3] = LOW
        x[rng.random((3, 4)) < 0.3] = HIGH
        value = run(proto, feeds={"x": x})[y]
        assert (value >= np.broadcast_to(found.low, value.shape) - 1e-5).all()
        assert (value <= np.broadcast_to(found.high, value.shape) + 1e-5).all()


@pytest.mark.parametrize(("case", "low", "high"), [("Relu", 0.0, 3.0), ("Neg", -3.0, 2.0), ("Clip", -1.0, 1.0)])
def test_bounds_are_tight_where_they_can_be(case: str, low: float, high: float) -> None:
    net = Net()
    y = CASES[case](net, net.input([3, 4]))
    net.output(y)
    found = bounds_of(api.trace(net.proto()), {"x": (LOW, HIGH)}, {y}, 0.0)[y]
    assert (np.asarray(found.low) == low).all() and (np.asarray(found.high) == high).all()
