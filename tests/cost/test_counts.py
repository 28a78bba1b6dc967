"""What a model costs, counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.cost import counts
from onnxprune.model import load
from tests.graphs.net import Net

MODELS = Path(__file__).parents[2] / "models"


def test_a_chain_by_hand() -> None:
    net = Net()
    h = net.add("Conv", net.input(["n", 3, 8, 8]), net.weight(6, 3, 3, 3, name="a"), net.weight(6), pads=[1] * 4)
    h = net.add("Flatten", net.add("GlobalAveragePool", h))
    net.output(net.add("Gemm", h, net.weight(6, 5, name="b"), net.weight(5)), ["n", 5])
    found = counts.of(load(net.proto()))
    conv, gemm = found.layers
    assert (conv.weight, conv.shape, conv.params, conv.macs) == ("a", (6, 3, 3, 3), 168, 6 * 3 * 9 * 64)
    assert (gemm.weight, gemm.shape, gemm.params, gemm.macs) == ("b", (6, 5), 35, 30), "for one sample"
    assert (found.params, found.macs, found.size) == (203, conv.macs + 30, 4 * 203)


def test_a_batch_that_is_fixed_counts_whole() -> None:
    net = Net()
    net.output(net.add("MatMul", net.input([7, 4]), net.weight(4, 3)))
    assert counts.of(load(net.proto())).macs == 7 * 12


def test_groups_and_products_of_activations() -> None:
    net = Net()
    x = net.input([1, 4, 6])
    h = net.add("MatMul", x, net.add("Transpose", x, perm=[0, 2, 1]))
    net.output(net.add("Conv", h, net.weight(4, 2, 1), group=2))
    product, conv = counts.of(load(net.proto())).layers
    assert (product.weight, product.shape, product.params, product.macs) == ("", (1, 4, 4), 0, 4 * 4 * 6)
    assert conv.macs == 4 * 2 * 4


def test_a_weight_that_two_nodes_read_is_stored_once() -> None:
    net = Net()
    w = net.weight(4, 4, name="w")
    net.output(net.add("MatMul", net.add("MatMul", net.input([1, 4]), w), w))
    found = counts.of(load(net.proto()))
    assert (found.params, found.macs) == (16, 32)


def test_numbers_for_symbols() -> None:
    net = Net()
    net.output(net.add("MatMul", net.input(["n", "t", 4]), net.weight(4, 3)), ["n", "t", 3])
    model = load(net.proto())
    assert counts.of(model, {"t": 7}).macs == 7 * 12 and counts.of(model, {"t": 7, "n": 5}).macs == 7 * 12


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_bytes_go_by_the_type(dtype: type) -> None:
    net = Net(dtype=dtype)
    net.output(net.add("MatMul", net.input([1, 4]), net.weight(4, 3)))
    assert counts.of(load(net.proto())).size == 12 * np.dtype(dtype).itemsize


def test_sizes_and_masks_are_no_parameters() -> None:
    net = Net()
    h = net.add("Reshape", net.input([2, 6]), net.ints(3, 4))
    net.output(net.add("Where", net.const(np.ones((3, 4), bool)), h, net.const(np.float32(0))))
    assert counts.of(load(net.proto())).params == 1 and isinstance(net.proto(), onnx.ModelProto)


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("lstm", {"/LSTM": 12, "/linear_1/MatMul": 32}),
        ("dcgan", {"/up/ConvTranspose": 16, "/up_2/ConvTranspose": 1}),
        ("bert", {"/layer/mlp/linear/MatMul": 36, "/layer/MatMul": 0}),
    ],
)
def test_widths_are_what_an_output_has_of_its_weight(name, widths):
    """Channels of convolutions both ways, features of products, hidden units; a product of two activations has none."""
    found = {layer.name: layer.width for layer in counts.of(load(MODELS / f"{name}.onnx")).layers}
    assert {layer: found[layer] for layer in widths} == widths
