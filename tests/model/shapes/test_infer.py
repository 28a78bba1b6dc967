"""Sizes and values that are known before anything runs."""

from __future__ import annotations

import onnx

from onnxprune.model import load
from onnxprune.model.shapes.infer import StaticInfo, infer
from tests.graphs.net import INT64, Net


def static_of(net: Net, **sizes: int) -> StaticInfo:
    proto = net.proto([onnx.ValueInfoProto(name=net.nodes[-1].output[0])] if not net.outputs else net.outputs)
    return infer(load(proto, check=False), sizes)


def test_a_value_that_only_the_run_knows_makes_no_static_size() -> None:
    net = Net()
    x = net.input([2, 8])
    y = net.add("Reshape", x, net.input([2], "target", dtype=INT64))
    z = net.add("Relu", y)
    static = static_of(net)
    assert len(static.shapes[y]) == len(static.shapes[z]) == 2
    assert static.dynamic[y] == static.dynamic[z] == {0, 1}
