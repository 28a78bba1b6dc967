"""One scan of the graph: shapes from declarations and from operators."""

from __future__ import annotations

from onnx import TensorProto, helper

from onnxprune.model import load
from onnxprune.model.shapes.infer import infer
from tests.graphs.net import Net
from tests.model.shapes.test_infer import static_of


def test_static_shapes_through_a_network() -> None:
    net = Net()
    x = net.add("Conv", net.input([2, 3, 9, 7]), net.weight(8, 3, 3, 3), strides=[2, 1], pads=[1, 0, 1, 1])
    y = net.add("Flatten", net.add("MaxPool", x, kernel_shape=[2, 2]))
    static = static_of(net)
    assert static.shapes[x] == (2, 8, 5, 6)
    assert static.shapes[y] == (2, 8 * 4 * 5)
    assert static.dynamic == {}
    assert static.dtypes[y] == TensorProto.FLOAT


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
