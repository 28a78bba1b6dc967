"""Parameters of a model that are looked at and replaced."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune import api
from onnxprune.layers import Parameters, linear_layer
from onnxprune.model import load, to_proto
from tests.graphs.net import Net, array_of


def chain(bias: bool = False) -> onnx.ModelProto:
    net = Net()
    held = [net.weight(6, name="bias")] if bias else []
    h = net.add("Gemm", net.input([2, 4]), net.weight(4, 6, name="w1"), *held, name="h")
    net.output(net.add("MatMul", net.add("Relu", h, name="r"), net.weight(6, 3, name="w2"), name="y"))
    return net.proto()


def test_replaced_weights_are_in_the_finished_model_alone() -> None:
    model = load(chain())
    parameters = Parameters(model)
    assert parameters.changes == {}
    parameters.store("w1", np.full((4, 6), 2.5))
    assert (parameters.value("w1") == 2.5).all() and set(parameters.changes) == {"w1"}
    done = to_proto(parameters.finished())
    assert (array_of(done, "w1") == 2.5).all() and array_of(done, "w1").dtype == np.float32
    assert not (model.array("w1") == 2.5).any(), "the model that was given stays"


def test_who_reads_whom() -> None:
    parameters = Parameters(load(chain()))
    assert parameters.descendants(["r"]) == {"r", "y"} and {"h", "r"} <= parameters.ancestors(["y"])
    (consumer,) = [parameters.only_consumer("h")]
    assert consumer is not None and consumer.op_type == "Relu" and parameters.only_consumer("y") is None
    assert parameters.is_own("w1") and not parameters.is_own("h") and not parameters.is_own("")
    assert parameters.is_stored("w1") and parameters.is_constant("w1") and not parameters.is_constant("h")


@pytest.mark.parametrize("bias", [False, True])
def test_a_shift_goes_into_the_bias_or_makes_one(bias: bool) -> None:
    proto = chain(bias)
    groups = api.trace(proto)
    parameters, amount = Parameters(load(proto)), np.arange(6.0)
    view = groups.tracing.views[0][0]
    layer = linear_layer(view, next(n for n in parameters.proto.graph.node if n.op_type == "Gemm"))
    assert layer is not None
    parameters.shift(layer, amount)
    done = to_proto(parameters.finished())
    onnx.checker.check_model(done)
    name = done.graph.node[0].input[2]
    before = array_of(proto, "bias") if bias else 0
    np.testing.assert_allclose(array_of(done, name), before + amount, rtol=1e-6)


def test_a_bias_behind_a_product_is_the_next_sum() -> None:
    net = Net()
    h = net.add("MatMul", net.input([2, 4]), net.weight(4, 6, name="w"), name="h")
    net.output(net.add("Add", net.const(np.ones(6, np.float32), "b"), h))
    proto = net.proto()
    parameters = Parameters(load(proto))
    layer = linear_layer(api.trace(proto).tracing.views[0][0], parameters.proto.graph.node[0])
    assert layer is not None
    node, slot = parameters.bias(layer, 6) or (None, -1)
    assert node is not None and node.op_type == "Add" and slot == 0
    assert parameters.bias(layer, 5) is None, "of another length"


def test_new_names_avoid_those_that_are_there() -> None:
    parameters = Parameters(load(chain()))
    assert parameters.add("new", np.ones(2, np.float32)) == "new"
    other = parameters.add("w1", np.ones(2, np.float32))
    assert other != "w1" and parameters.is_own(other)


def test_scale_and_bias_of_a_norm() -> None:
    net = Net()
    lines = [net.const(np.ones(4, np.float32) * (i + 1), n) for i, n in enumerate(("s", "b", "m", "v"))]
    net.output(net.add("BatchNormalization", net.input([2, 4, 3]), *lines))
    parameters = Parameters(load(net.proto()))
    assert parameters.scale_and_bias(parameters.proto.graph.node[0]) == ("s", "b")
    assert Parameters(load(chain())).scale_and_bias(chain().graph.node[0]) is None
