"""Weights of a few bits, block by block."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.model import load, to_proto
from onnxprune.rewriting import Blocks, with_blocks
from tests.graphs.net import Net
from tests.graphs.quantized import output


def chain(width: int = 48) -> Net:
    net = Net()
    x = net.add("MatMul", net.input(["n", width]), net.weight(width, 20, name="w1"), name="one")
    net.output(net.add("MatMul", net.add("Relu", x), net.weight(20, 8, name="w2"), name="two"))
    return net


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("bits", "tolerance"), [(4, 0.2), (8, 0.02)])
@pytest.mark.parametrize("size", [16, 32])
def test_outputs_are_those_of_the_rounded_weights(size: int, bits: int, tolerance: float, symmetric: bool) -> None:
    """By ONNX Runtime's kernel, against the weights as `Blocks.rounded` says that they act."""
    net = chain()
    model, blocks = load(net.proto()), Blocks(bits, size, symmetric)
    made = to_proto(with_blocks(model, ["one_node", "two_node"], blocks))
    assert [node.op_type for node in made.graph.node] == ["MatMulNBits", "Relu", "MatMulNBits"]
    x = np.random.default_rng(0).standard_normal((5, 48)).astype(np.float32)
    value = x
    for name in ("w1", "w2"):
        weight = model.array(name)
        numbers, scale, zero = blocks.rounded(weight)
        real = (numbers - zero[..., None].astype(float)) * scale[..., None]
        real = real.reshape(len(real), -1)[:, : len(weight)].T
        assert np.abs(real - weight).max() <= scale.max() * 0.51
        value = value @ real if name == "w2" else np.maximum(value @ real, 0)
    found = output(made, x)
    assert np.allclose(found, value, atol=1e-4)
    wanted = output(net.proto(), x)
    assert np.abs(found - wanted).max() < tolerance * np.abs(wanted).max()


def test_a_last_block_is_filled_up_and_other_nodes_stay() -> None:
    net = chain(width=40)
    made = to_proto(with_blocks(load(net.proto()), ["one_node"], Blocks(4, 32)))
    assert [node.op_type for node in made.graph.node] == ["MatMulNBits", "Relu", "MatMul"]
    assert {t.name for t in made.graph.initializer} >= {"w2"} and "w1" not in {t.name for t in made.graph.initializer}
    x = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    wanted, found = output(net.proto(), x), output(made, x)
    assert np.abs(found - wanted).max() < 0.2 * np.abs(wanted).max()


def test_zeros_stay_zeros() -> None:
    numbers, scale, zero = Blocks(4, 16).rounded(np.zeros((16, 2)))
    assert (numbers == zero[..., None]).all() and (scale == 1).all()
