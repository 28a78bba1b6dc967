"""Outputs that are ids are judged by the last floats before them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxprune import api, criteria
from onnxprune.allocation import Options
from onnxprune.model import load
from onnxprune.model.telling_tensors import last_floats
from onnxprune.tracing import trace
from onnxprune.typing import Array
from tests.graphs.net import Net

BRANCHES = {"argmax": "ArgMax", "threshold": "Greater", "topk": "TopK", "cast": "ArgMax"}


def network(end: str) -> onnx.ModelProto:
    """Two branches, one of which counts little in the sum, and what becomes of it."""
    rng = np.random.default_rng(0)
    net = Net()
    x, parts = net.input([4, 8], name="x"), []
    for name, factor in (("loud", 1.0), ("faint", 0.1)):
        hidden = net.add("Relu", net.add("MatMul", x, net.const(rng.normal(size=(8, 16)).astype("f4"), name=name)))
        read = net.add("MatMul", hidden, net.const(rng.normal(size=(16, 6)).astype("f4"), name=f"{name}_read"))
        parts.append(net.add("Mul", read, net.const(np.float32(factor))))
    total = net.add("Add", *parts)
    if end == "floats":
        net.output(total)
    elif end == "argmax":
        net.output(net.add("ArgMax", total, axis=1), dtype=TensorProto.INT64)
    elif end == "cast":
        best = net.add("ArgMax", net.add("Softmax", total), axis=1)
        net.output(net.add("Cast", best, to=TensorProto.INT32), dtype=TensorProto.INT32)
    elif end == "threshold":
        net.output(net.add("Greater", total, net.const(np.float32(0.5))), dtype=TensorProto.BOOL)
    else:
        _, ids = net.add("TopK", total, net.const(np.array([2], np.int64)), outputs=2)
        net.output(ids, dtype=TensorProto.INT64)
    return net.proto()


def data(count: int = 48) -> list[dict[str, Array]]:
    return [{"x": np.random.default_rng(i).normal(size=(4, 8)).astype(np.float32)} for i in range(count)]


@pytest.mark.parametrize("end", ["argmax", "cast", "threshold", "topk"])
def test_scores_and_repair_are_those_of_the_floats(end: str) -> None:
    found = {}
    for made in ("floats", end):
        groups = trace(load(network(made)))
        scores = criteria.score(groups, "obs", 0, data())
        found[made] = {group.name: float(scores[group.classes].max()) for group in groups.groups}
    assert found[end] == pytest.approx(found["floats"], rel=1e-5)


@pytest.mark.parametrize("end", ["argmax", "threshold", "topk"])
def test_the_repair_is_judged_and_reported(end: str) -> None:
    floats, ids = (api.run(load(network(made)), Options(ratio=0.5), data=data()).recovery for made in ("floats", end))
    assert floats is not None
    assert ids is not None
    assert ids.after.is_known
    assert ids.after.error == pytest.approx(floats.after.error, rel=1e-4)
    assert ids.after.top1 == floats.after.top1


def test_sizes_are_no_ids_of_what_they_measure() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 4] x) => (int64[2] s, int64[N] a) {
      r = Relu(x)
      s = Shape(r)
      p = Exp(x)
      a = ArgMax<axis = 1, keepdims = 0>(p)
    }"""
    dtypes = {"x": 1, "r": 1, "p": 1, "s": 7, "a": 7}
    assert last_floats(onnx.parser.parse_model(text).graph, dtypes) == ["p"]
