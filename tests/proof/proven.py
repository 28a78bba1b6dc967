"""Models, their cuts, and wrong results."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.graphs.net import Net, array_of, with_arrays


def network() -> onnx.ModelProto:
    net = Net()
    x = net.input(["batch", 5, 3])
    x = net.add("Relu", net.add("MatMul", x, net.weight(3, 8, name="w1")))
    x = net.add("Add", net.add("MatMul", x, net.weight(8, 6, name="w2")), net.weight(6, name="bias"))
    net.output(net.add("MatMul", net.add("Tanh", x), net.weight(6, 4, name="w3")), ["batch", 5, 4])
    return net.proto()


def spoil(model: onnx.ModelProto, name: str, change: Any) -> onnx.ModelProto:
    return with_arrays(model, {name: change(array_of(model, name).copy())})


def five_groups() -> onnx.ModelProto:
    net = Net()
    for index in range(5):
        x = net.make((2, 5, 8), 2, weight=f"a{index}")
        net.read(net.add("Relu", x), 2, weight=f"b{index}")
    return net.proto()


def scaled(value: np.ndarray, place: int) -> np.ndarray:
    value.reshape(-1)[place] *= 1.5
    return value
