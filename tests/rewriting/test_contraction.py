"""Contractions merged with what is in front of them or behind, against what the operators compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune import api
from onnxprune.layers import linear_layer
from onnxprune.layers.affine import affine_of
from onnxprune.rewriting.contraction import Contraction, ContractionBias, merged_product, stored_bias, taken_in
from tests.graphs.net import Net


def chain(*steps: tuple[str, tuple[int, ...], dict[str, Any]], shape: tuple[int, ...]) -> list[Contraction]:
    """The contractions of a chain, with biases where the weight's outputs say so."""
    net = Net()
    x = net.input(shape)
    for i, (op, weight, attributes) in enumerate(steps):
        outputs = weight[0] if op == "Conv" else weight[1]
        bias = [net.weight(outputs, name=f"b{i}")] if op in ("Conv", "Gemm") else []
        x = net.add(op, x, net.weight(*weight, name=f"w{i}"), *bias, **attributes)
    net.output(x)
    groups = api.trace(net.proto())
    found = []
    for view, _ in groups.tracing.views:
        layer = linear_layer(view)
        assert layer is not None
        value = groups.tracing.stored_value(view.node.input[1])
        assert value is not None
        bias = None
        if len(view.node.input) > 2:
            values = groups.tracing.stored_value(view.node.input[2])
            assert values is not None
            bias = ContractionBias(view.node, 2, values.astype(np.float64), True)
        found.append(Contraction(view, layer, layer.as_matrix(value.astype(np.float64)), value.shape, bias))
    return found


def test_products_in_a_row_are_one() -> None:
    one, two = chain(("Gemm", (4, 6), {}), ("Gemm", (6, 3), {}), shape=(2, 4))
    merged = merged_product(one, two)
    assert merged is not None
    kept, shape, weight, values = merged
    assert kept is two and shape == (4, 3) and one.bias is not None and two.bias is not None
    np.testing.assert_allclose(weight[0], one.weight[0] @ two.weight[0])
    np.testing.assert_allclose(values, one.bias.values @ two.weight[0] + two.bias.values)
    assert stored_bias(one) == 6 and one.outputs == 6 and one.is_pointwise


@pytest.mark.parametrize(("pads", "merges"), [([0] * 4, True), ([1] * 4, False)])
def test_a_bias_in_front_of_padding_is_not_taken_in(pads: list[int], merges: bool) -> None:
    one, two = chain(("Conv", (6, 4, 1, 1), {}), ("Conv", (3, 6, 3, 3), {"pads": pads}), shape=(1, 4, 8, 8))
    merged = merged_product(one, two)
    assert (merged is not None) is merges and two.sees_whole_windows is merges
    if merged is not None:
        assert merged[1] == (3, 4, 3, 3) and merged[2].shape == (1, 36, 3)


def test_a_pointwise_one_behind_a_convolution() -> None:
    one, two = chain(("Conv", (6, 4, 3, 3), {"pads": [1] * 4}), ("Conv", (3, 6, 1, 1), {}), shape=(1, 4, 8, 8))
    merged = merged_product(one, two)
    assert merged is not None and merged[0] is one and merged[1] == (3, 4, 3, 3)


def test_groups_are_left_apart() -> None:
    one, two = chain(("Conv", (6, 2, 1, 1), {"group": 2}), ("Conv", (3, 6, 1, 1), {}), shape=(1, 4, 8, 8))
    assert merged_product(one, two) is None and not one.is_pointwise


def test_a_scale_and_a_shift_in_front_go_into_weight_and_bias() -> None:
    net = Net()
    scale = net.const(np.array([1.0, 2.0, 3.0, 4.0], np.float32), "scale")
    h = net.add("Add", net.input([2, 4]), scale, name="h")
    net.output(net.add("Gemm", h, net.weight(4, 6, name="w"), net.weight(6, name="b")))
    groups = api.trace(net.proto())
    add, gemm = (view for view, _ in groups.tracing.views)
    layer, affine = linear_layer(gemm), affine_of(groups.tracing, add)
    weight, bias = (groups.tracing.stored_value(n) for n in ("w", "b"))
    assert layer is not None and affine is not None and weight is not None and bias is not None
    of = Contraction(
        gemm, layer, layer.as_matrix(weight.astype(np.float64)), weight.shape,
        ContractionBias(gemm.node, 2, bias.astype(np.float64), True),
    )  # fmt: skip
    taken = taken_in(of, "h", affine)
    assert taken is not None
    np.testing.assert_allclose(taken[0], of.weight)
    np.testing.assert_allclose(taken[1], bias + np.array([1.0, 2, 3, 4]) @ weight, rtol=1e-6)
    assert taken_in(of, "other", affine) is None


def test_constants_along_the_outputs() -> None:
    (of,) = chain(("Conv", (6, 4, 3, 3), {}), shape=(1, 4, 8, 8))
    assert (of.line(np.arange(6.0).reshape(6, 1, 1)) == np.arange(6)).all() and of.line(np.ones((2, 2))) is None
    rows = of.line_in(np.arange(4.0).reshape(4, 1, 1))
    assert rows is not None and rows.shape == (1, 36, 1) and rows[0, :10, 0].tolist() == [0] * 9 + [1]
