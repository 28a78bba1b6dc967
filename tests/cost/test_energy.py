"""The estimate of energy against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from onnxprune.cost import counts, estimate_energy
from onnxprune.model import load
from tests.graphs.net import Net
from tests.runtime.clocks import DIGITS

FLOAT, HALF, WHOLE, BYTE = 4.6e-12, 1.5e-12, 0.3e-12, 162.5e-12


def test_a_product_and_an_activation():
    net = Net()
    hidden = net.add("Relu", net.add("MatMul", net.input(["n", 6]), net.weight(6, 10)))
    net.output(hidden, ["n", 10])
    found = estimate_energy(net.model(), {"n": 3})
    assert found.macs == 3 * 60
    # The weights; what MatMul reads and makes; what Relu reads and makes.
    assert found.moved == 4 * (60 + 3 * 6 + 3 * 10 + 3 * 10 + 3 * 10)
    assert found.computing == pytest.approx(180 * FLOAT) and found.moving == pytest.approx(found.moved * BYTE)
    assert found.joules == found.computing + found.moving


def test_half_precision():
    net = Net()
    x, w = net.input(["n", 6], dtype=TensorProto.FLOAT16), net.const(np.zeros((6, 10), np.float16))
    net.output(net.add("MatMul", x, w), ["n", 10], TensorProto.FLOAT16)
    found = estimate_energy(net.model(), {"n": 1})
    assert found.computing == pytest.approx(60 * HALF) and found.moved == 2 * (60 + 6 + 10)


def quantized(*, activations: bool):
    """x -> [Q -> DQ] -> MatMul with a weight of int8 -> [Q -> DQ] -> Relu."""
    net = Net()
    scale, zero = net.const(np.float32(0.1)), net.const(np.int8(0))

    def whole(name: str) -> str:
        if not activations:
            return name
        return net.add("DequantizeLinear", net.add("QuantizeLinear", name, scale, zero), scale, zero)

    weight = net.add("DequantizeLinear", net.const(np.ones((6, 10), np.int8)), scale, zero)
    made = net.add("MatMul", whole(net.input([1, 6])), weight)
    net.output(net.add("Relu", whole(made)), [1, 10])
    return net.model()


def test_whole_numbers_are_moved_and_multiplied_as_such():
    """Behind the pair of nodes, bytes are read; Relu makes floats. A scale and a zero point are 5 bytes."""
    found = estimate_energy(quantized(activations=True))
    assert found.computing == pytest.approx(60 * WHOLE)
    assert found.moved == (60 + 5) + 6 + 10 + 10 + 4 * 10


def test_weights_alone_in_whole_numbers_are_multiplied_as_floats():
    found = estimate_energy(quantized(activations=False))
    assert found.computing == pytest.approx(60 * FLOAT)
    assert found.moved == (60 + 5) + 4 * (6 + 10 + 10 + 10)


def test_multiply_accumulates_are_those_of_the_costs():
    model = load(DIGITS)
    found = estimate_energy(model, {"batch": 5})
    assert found.macs == 5 * counts.of(model).macs
    assert found.computing == pytest.approx(found.macs * FLOAT)
    assert found.moved > counts.of(model).size
