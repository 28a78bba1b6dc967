"""Which nodes are layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune import api
from onnxprune.layers import Convolution, Product, layer_weight
from onnxprune.layers.recognize import layer_at, linear_layer, weighted_layer
from tests.graphs.net import Net
from tests.graphs.quantized import BLOCKS, FORMS, KINDS, quantizable, quantized


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


@pytest.mark.parametrize(("kind", "form"), [(k, f) for k in KINDS for f in FORMS if (k, f) != ("conv", BLOCKS)])
def test_layers_of_whole_numbers(kind: str, form: str) -> None:
    """The layers of a quantised model make of its activations what those of the float model make, but for rounding."""
    proto, data = quantizable(kind)
    proto = quantized(proto, form, [{"x": data}])
    tracing = api.trace(proto).tracing
    layers = [layer for view, _ in tracing.views if (layer := weighted_layer(view)) is not None]
    assert len(layers) == 2
    plain = [w for w in api.trace(quantizable(kind)[0]).tracing.views if linear_layer(w[0])]
    for layer, (view, _) in zip(layers, plain, strict=True):
        float_layer = linear_layer(view)
        assert float_layer is not None
        stored = view.state.stored_value(view.node.input[float_layer.weight])
        assert stored is not None
        wanted, found = float_layer.as_matrix(stored), layer.as_matrix(layer_weight(tracing, layer))
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < (0.1 if form == BLOCKS else 0.01) * np.abs(wanted).max()


def test_activations_of_whole_numbers_are_read_as_what_they_stand_for() -> None:
    proto, data = quantizable("conv")
    proto = quantized(proto, "operators", [{"x": data}])
    view = next(v for v, _ in api.trace(proto).tracing.views if v.node.op_type == "QLinearConv")
    layer = weighted_layer(view)
    assert layer is not None and layer.step is not None and layer.input == view.node.input[0]
    scale, zero = layer.step
    values = np.full((1, 3, 9, 9), 7, np.uint8)
    rows = layer.input_rows(values, layer.sample_positions(values, 9, np.random.default_rng(0)))
    inside, padded = (7 - zero) * scale, 0.0
    assert {round(float(v), 5) for v in np.unique(rows)} <= {round(inside, 5), padded}


def test_a_weight_that_is_quantised_while_the_model_runs_is_none() -> None:
    net = Net()
    x, w = net.input([2, 4]), net.input([4, 6], "w")
    scale, zero = net.const(np.float32(0.1)), net.const(np.uint8(3))
    coded = [net.add("QuantizeLinear", name, scale, zero) for name in (x, w)]
    net.output(net.add("QLinearMatMul", coded[0], scale, zero, coded[1], scale, zero, scale, zero))
    assert weighted_layer(api.trace(net.proto()).tracing.views[-1][0]) is None
