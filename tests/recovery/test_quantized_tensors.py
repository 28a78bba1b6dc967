"""Which stored tensors of a quantised model training may change."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.model import Model, load
from onnxprune.recovery.quantized_tensors import quantized_tensors
from tests.graphs.net import Net
from tests.graphs.quantized import quantizable, quantized


def qdq() -> Model:
    proto, data = quantizable("conv")
    return load(quantized(proto, "qdq", [{"x": data}]))


def test_weights_and_biases_of_a_quantiser() -> None:
    model = qdq()
    found = quantized_tensors(model)
    kinds = {name: model.array(name).dtype.name for name in found.weights}
    assert sorted(kinds.values()) == ["int32", "int32", "int8", "int8"]
    assert found.biases == {name for name, kind in kinds.items() if kind == "int32"}
    assert not found.learned and not found.products


def test_all_scales_but_those_of_biases_are_learned() -> None:
    model = qdq()
    found = quantized_tensors(model, learn_scales=True)
    bias_scales = {found.weights[name].scale for name in found.biases}
    others = {n.input[1] for n in model.proto.graph.node if len(n.input) > 1 and n.op_type.endswith("izeLinear")}
    assert set(found.learned) == others - bias_scales
    assert set(found.products) == bias_scales


def test_a_bias_in_steps_of_its_own_fixes_what_it_is_added_to() -> None:
    """Kernels take the product of the scales for that of the bias, so these stay where it is another one."""
    model = qdq()
    name = next(iter(quantized_tensors(model).biases))
    scale = quantized_tensors(model).weights[name].scale
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        if tensor.name == scale:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), scale))
    whole, found = (quantized_tensors(m, learn_scales=True) for m in (model, load(proto)))
    assert set(whole.learned) - set(found.learned) == set(whole.products[scale])
    assert set(whole.products) - set(found.products) == {scale}


@pytest.mark.parametrize(("other", "learned"), [(False, 1), (True, 0)])
def test_scales_of_a_quantiser_and_its_decoder_are_learned_where_they_are_one(other: bool, learned: int) -> None:
    net = Net()
    x = net.input(["n", 4])
    scales = [net.const(np.float32(0.1)), net.const(np.float32(0.2))]
    zero = net.const(np.uint8(128))
    steps = net.add("QuantizeLinear", x, scales[0], zero)
    real = net.add("DequantizeLinear", steps, scales[other], zero)
    net.output(net.add("MatMul", real, net.weight(4, 4)))
    assert len(quantized_tensors(net.model(), learn_scales=True).learned) == learned


def test_numbers_that_a_caller_may_override_stay() -> None:
    net = Net(opset=21)
    numbers = net.const(np.arange(16, dtype=np.int8).reshape(4, 4))
    weight = net.add("DequantizeLinear", numbers, net.const(np.float32(0.1)))
    net.output(net.add("MatMul", net.input(["n", 4]), weight))
    assert len(quantized_tensors(net.model()).weights) == 1
    proto = net.proto()
    proto.graph.input.append(onnx.helper.make_tensor_value_info(numbers, onnx.TensorProto.INT8, [4, 4]))
    assert not quantized_tensors(load(proto)).weights
