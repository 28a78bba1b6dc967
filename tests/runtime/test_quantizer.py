"""ONNX Runtime's quantiser."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.errors import RunError
from onnxprune.model import Model, load, to_proto
from onnxprune.runtime.quantizer import quantized_dynamic, quantized_static
from tests.graphs.net import Net
from tests.graphs.quantized import output, quantizable


def named() -> tuple[Model, np.ndarray]:
    proto, data = quantizable("conv")
    for number, node in enumerate(proto.graph.node):
        node.name = f"node{number}"
    return load(proto), data


def operators(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.proto.graph.node)


CASES: list[tuple[dict[str, Any], str, int]] = [
    ({"operators": False, "weights": "int8", "activations": "uint8", "per_channel": True}, "DequantizeLinear", 16),
    ({"operators": False, "weights": "uint8", "activations": "uint8", "per_channel": False}, "DequantizeLinear", 1),
    ({"operators": True, "weights": "uint8", "activations": "uint8", "per_channel": False}, "QLinearConv", 1),
]


@pytest.mark.parametrize(("options", "operator", "scales"), CASES)
def test_weights_and_activations(options: dict[str, Any], operator: str, scales: int) -> None:
    model, data = named()
    made = quantized_static(model, [{"x": part} for part in np.split(data, 4)], [], **options)
    assert operators(made)[operator] >= 2
    kinds = {"int8": onnx.TensorProto.INT8, "uint8": onnx.TensorProto.UINT8}
    weights = [t for t in made.proto.graph.initializer if t.data_type == kinds[options["weights"]] and len(t.dims) == 4]
    assert len(weights) == 2
    counts = {int(np.prod(t.dims)) for t in made.proto.graph.initializer if t.name.endswith("_scale")}
    assert max(counts) == scales or scales == 16
    wanted, found = (output(to_proto(m), data[:8]) for m in (model, made))
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_nodes_that_stay() -> None:
    model, data = named()
    options: dict[str, Any] = CASES[0][0]
    made = quantized_static(model, [{"x": data}], ["node0"], **options)
    floats = [t for t in made.proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 4]
    assert len(floats) == 1


def test_ranges_at_run_time() -> None:
    model, _ = named()
    made = quantized_dynamic(model, [], weights="int8", per_channel=False)
    assert operators(made)["ConvInteger"] == 2 and operators(made)["DynamicQuantizeLinear"] == 2


def test_nothing_is_left_of_what_was_replaced() -> None:
    model, data = named()
    made = quantized_static(model, [{"x": data}], [], **CASES[0][0])
    used = {name for node in made.proto.graph.node for name in node.input}
    assert {t.name for t in made.proto.graph.initializer} <= used


def test_what_the_tool_refuses_is_an_error_of_ours() -> None:
    """Of one line, and nothing is left behind."""
    net = Net()
    net.output(net.add("MatMul", net.input(["n", 4]), net.weight(4, 4)))
    model = load(net.proto())
    with pytest.raises(RunError, match="cannot quantise the model"):
        quantized_static(model, [{"y": np.zeros((1, 4), np.float32)}], [], **CASES[0][0])


@pytest.mark.parametrize("suffix", ["_scale", "_zero_point", "_quantized"])
def test_tensors_that_are_called_as_the_tool_calls_its_own(suffix: str) -> None:
    """A factor for every channel, called as the tool calls the scale of the tensor that it makes."""
    net = Net(opset=13)
    x = net.add("Conv", net.input([4, 3, 6, 6], name="x"), net.weight(8, 3, 3, 3), name="first")
    factor = net.const(np.linspace(0.5, 2, 8, dtype=np.float32).reshape(8, 1, 1), f"second{suffix}")
    x = net.add("Mul", x, factor, name="second")
    bias = net.const(np.linspace(-1, 1, 8, dtype=np.float32))
    net.output(net.add("Conv", x, net.weight(8, 8, 3, 3), bias, name="third"))
    model = load(net.proto())
    data = np.random.default_rng(0).standard_normal((4, 3, 6, 6)).astype(np.float32)
    for operators in (False, True):
        made = quantized_static(model, [{"x": data}], [], **(CASES[0][0] | {"operators": operators}))
        wanted, found = (output(to_proto(m), data) for m in (model, made))
        assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
    assert any(t.name == f"second{suffix}" for t in model.proto.graph.initializer)  # not changed in place
