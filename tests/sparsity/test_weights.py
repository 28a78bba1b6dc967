"""Weights of contractions as matrices, whatever their layout, and those that cannot be changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune import api
from onnxprune.sparsity import contraction_weights
from tests.graphs.net import Net
from tests.graphs.quantized import in_blocks


def net_of(op: str, shape: tuple[int, ...], weight: tuple[int, ...], **attributes: Any) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    net = Net()
    x = net.input(shape)
    w = net.const(rng.standard_normal(weight).astype(np.float32), "w")
    net.output(net.add(op, x, w, **attributes))
    return net.proto()


CASES = [
    ("MatMul", (5, 8), (8, 6), {}, (1, 8, 6)),
    ("Gemm", (5, 8), (6, 8), {"transB": 1}, (1, 8, 6)),
    ("Conv", (1, 4, 9, 9), (6, 4, 3, 3), {}, (1, 36, 6)),
    ("Conv", (1, 4, 9, 9), (6, 2, 3, 3), {"group": 2}, (2, 18, 3)),
    ("ConvTranspose", (1, 4, 9, 9), (4, 6, 3, 3), {}, (1, 36, 6)),
]


@pytest.mark.parametrize(("op", "shape", "weight", "attributes", "matrix"), CASES)
def test_a_weight_is_a_matrix_and_back(
    op: str, shape: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any], matrix: tuple[int, ...]
) -> None:
    proto = net_of(op, shape, weight, **attributes)
    ((found,), left) = contraction_weights(api.trace(proto))
    assert found.name == "w" and left == {} and found.shape == weight and found.nodes[1] == op
    value = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    assert found.as_matrix(value).shape == matrix and (found.groups, found.width) == matrix[:2]
    assert found.outputs == matrix[0] * matrix[2]
    assert (found.tensor(found.as_matrix(value)) == value).all()


def test_a_matrix_multiplies_as_the_node_does() -> None:
    """Columns of outputs, rows of inputs, channels of a kernel's position side by side."""
    proto = net_of("Conv", (1, 4, 9, 9), (6, 4, 3, 3))
    ((found,), _) = contraction_weights(api.trace(proto))
    value = onnx.numpy_helper.to_array(proto.graph.initializer[0])
    matrix = found.as_matrix(value)[0]
    assert found.channels == 4
    assert (matrix[:4, 2] == value[2, :, 0, 0]).all() and (matrix[4:8, 2] == value[2, :, 0, 1]).all()


def test_a_weight_behind_a_transpose_is_seen_through_it() -> None:
    net = Net()
    w = net.const(np.arange(48, dtype=np.float32).reshape(6, 8), "w")
    net.output(net.add("MatMul", net.input((5, 8)), net.add("Transpose", w, perm=[1, 0])))
    ((found,), _) = contraction_weights(api.trace(net.proto()))
    value = np.arange(48, dtype=np.float32).reshape(6, 8)
    assert (found.as_matrix(value)[0] == value.T).all() and (found.tensor(found.as_matrix(value)) == value).all()


def test_a_weight_that_a_caller_may_override_is_left() -> None:
    proto = net_of("MatMul", (5, 8), (8, 6))
    proto.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (8, 6)))
    found, left = contraction_weights(api.trace(proto))
    assert found == [] and left == {"w": "is a default that a caller may override"}


def packed(bits: int, width: int = 32) -> onnx.ModelProto:
    net = Net()
    x = net.add("Relu", net.add("MatMul", net.input(["n", width]), net.weight(width, 48, name="a")))
    net.output(net.add("MatMul", x, net.weight(48, 8, name="b")))
    return in_blocks(net.proto(), bits)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_numbers_that_share_a_byte_are_the_inputs_in_their_order(bits: int) -> None:
    groups = api.trace(packed(bits))
    (first, second), left = contraction_weights(groups)
    assert (first.shape, second.shape, left) == ((48, 2, 16), (8, 3, 16), {})
    value = groups.tracing.weight_value(first.name)
    assert value is not None
    matrix = first.as_matrix(value)
    np.testing.assert_array_equal(matrix[0], value.reshape(48, 32).T)
    np.testing.assert_array_equal(first.tensor(matrix), value)
    assert first.order.tolist() == list(range(32))


def test_a_last_block_that_is_not_full_stays() -> None:
    (weight,), left = contraction_weights(api.trace(packed(4, width=40)))
    assert weight.shape == (8, 3, 16)
    assert [*left.values()] == ["its layout is not known"]
