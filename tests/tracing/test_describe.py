"""What groups and barriers are called, and what they lock."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import api
from tests.graphs.net import Net, reasons_for
from tests.tracing.traced_nets import two_layers


def test_barriers_say_what_they_lock_and_how_much() -> None:
    net = two_layers()
    groups = api.trace(net.proto())
    found = {(b.reason, b.members): b.params for b in groups.barriers}
    assert found[f"graph input {net.inputs[0].name!r}", (("w_in", 0, 3),)] == 24
    assert found[f"graph output {net.outputs[0].name!r}", (("w_out", 1, 4),)] == 32
    assert len(found) == 2


def test_barriers_that_lock_most_come_first() -> None:
    params = [b.params for b in api.trace(two_layers().proto()).barriers]
    assert params == sorted(params, reverse=True)


def test_spatial_kernel_axes_are_no_news() -> None:
    net = Net()
    x = net.add("Conv", net.input([2, 3, 6, 6]), net.weight(8, 3, 3, 3, name="w"))
    net.read(x, 1)
    assert not reasons_for(api.trace(net.proto()), "w", 2)


def test_names_are_unique_whatever_the_tensors_are_called() -> None:
    """A weight that is cut by several groups, beside weights whose names look like numbered ones."""
    net = Net()
    for stem in ("w", "w#2", "w#3"):
        x = net.make((2, 5, 12), 2, weight=stem)
        for index, part in enumerate(net.add("Split", x, net.ints(4, 4, 4), outputs=3, axis=2)):
            net.read(part, 2, weight=f"{stem}_out{index}")
    groups = api.trace(net.proto()).groups
    names = [g.name for g in groups]
    assert len(names) == len(set(names)) == 9
    assert {"w", "w#2", "w#3"} <= set(names)


@pytest.mark.parametrize("name", ["onnx::MatMul_12", "12", "_3", "val_7", "/encoder/Constant_output_0"])
def test_weights_without_a_name_of_their_own_are_called_by_their_node(name: str) -> None:
    net = Net()
    net.read(net.add("Relu", net.make((2, 5, 8), 2, weight=name)), 2)
    (group,) = api.trace(net.proto()).groups
    assert group.name == "matmul_1_node"


@pytest.mark.parametrize("name", ["w", "onnx::Conv_7"])
def test_groups_of_whole_numbers_are_called_by_the_weight(name: str) -> None:
    """Quantisers decode a bias before the weight: a group is called by what is multiplied, or by who multiplies it."""
    net = Net(opset=13)
    x = net.input([1, 3, 6, 6])
    for index, (stored, read) in enumerate(((f"{name}_quantized", 3), ("v_quantized", 8))):
        scale = net.const(np.full(8, 0.1, np.float32))
        zero = [net.const(np.zeros(8, dtype)) for dtype in (np.int32, np.int8)]
        bias = net.add("DequantizeLinear", net.const(np.ones(8, np.int32), f"bias{index}"), scale, zero[0], axis=0)
        weight = net.const(np.ones((8, read, 3, 3), np.int8), stored)
        weight = net.add("DequantizeLinear", weight, scale, zero[1], axis=0, name=f"decoded{index}")
        x = net.add("Conv", x, weight, bias, pads=[1] * 4, name=f"conv{index}")
    net.output(x)
    proto = net.proto()
    for node in proto.graph.node:
        node.name = f"node of {node.output[0]}"
    (group,) = api.trace(proto).groups
    assert group.name == ("w_quantized" if name == "w" else "node of conv0")
