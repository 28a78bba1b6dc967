"""Which nodes are layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune import api
from onnxprune.layers import Convolution, Product
from onnxprune.layers.recognize import layer_at, linear_layer
from tests.graphs.net import Net


def view_of(op: str, *inputs: Any, dtype: Any = np.float32, **attributes: Any) -> Any:
    """The view of a node: a list is the shape of an input, a tuple that of a weight."""
    net = Net(dtype=dtype)
    names = [net.input(s) if isinstance(s, list) else net.const(np.ones(s, dtype)) for s in inputs]
    net.output(net.add(op, *names, **attributes))
    return api.trace(net.proto()).tracing.views[-1][0]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "kind"),
    [
        ("Conv", ([1, 4, 5], (6, 4, 3)), {}, Convolution),
        ("ConvTranspose", ([1, 4, 5], (4, 6, 3)), {}, Convolution),
        ("Gemm", ([2, 4], (4, 6), (6,)), {}, Product),
        ("MatMul", ([2, 4], (4, 6)), {}, Product),
        ("MatMul", ((6, 4), [4, 2]), {}, Product),
        ("Einsum", ([2, 4], (4, 6)), {"equation": "ij,jk->ik"}, Product),
    ],
)
def test_layers(op: str, inputs: tuple[Any, ...], attributes: dict[str, Any], kind: type) -> None:
    layer = linear_layer(view_of(op, *inputs, **attributes))
    assert isinstance(layer, kind) and layer.input == "x"


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("MatMul", ([2, 4], [4, 6]), {}),
        ("Add", ([2, 4], (4,)), {}),
        ("Relu", ([2, 4],), {}),
        ("Einsum", ([2, 4], (4, 6), (6, 3)), {"equation": "ij,jk,kl->il"}),
        ("ConvTranspose", ([1, 4, 5], (4, 6, 3)), {"auto_pad": "SAME_UPPER"}),
    ],
)
def test_what_is_none(op: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> None:
    assert linear_layer(view_of(op, *inputs, **attributes)) is None


def test_integers_are_no_layer_of_their_own_but_at_a_slot() -> None:
    view = view_of("MatMul", [2, 4], (4, 6), dtype=np.int32)
    assert linear_layer(view) is None and isinstance(layer_at(view, 1), Product)


def test_a_recurrence_is_a_layer_by_its_slot_alone() -> None:
    view = view_of("LSTM", [3, 2, 4], (1, 20, 4), (1, 20, 5), hidden_size=5)
    assert linear_layer(view) is None
    assert isinstance(layer_at(view, 1), Product) and layer_at(view, 2) is None


def test_the_weight_of_a_convolution_is_its_second_input() -> None:
    assert layer_at(view_of("Conv", (1, 4, 5), [6, 4, 3]), 0) is None
