"""Biases of whole numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxprune import api
from onnxprune.layers import Parameters, quantized_parameters, weighted_layer
from onnxprune.layers.quantized_bias import quantized_bias
from onnxprune.model import load
from tests.graphs.quantized import quantizable, quantized


@pytest.mark.parametrize("form", ["qdq", "qdq-tensor", "operators"])
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_an_amount_is_added_in_steps_of_input_times_weight(form: str, factor: float) -> None:
    """Also where the scales of the weight become others."""
    proto, data = quantizable("conv")
    proto = quantized(proto, form, [{"x": data}])
    parameters = Parameters(load(proto))
    view = next(v for v, _ in api.trace(proto).tracing.views if v.node.op_type in ("Conv", "QLinearConv"))
    layer = weighted_layer(view)
    assert layer is not None
    own, bias = quantized_parameters(parameters, layer), quantized_bias(parameters, layer, 16)
    assert own is not None and bias is not None and own.shifted and bias.follows(parameters, own.grid)
    dtype = parameters.value(bias.name).dtype

    def real(scales: np.ndarray) -> np.ndarray:
        unit = parameters.value(bias.scale).reshape(-1) if bias.scale else layer.step[0] * scales
        return parameters.value(bias.name) * unit

    before, amount = real(own.grid.scales), np.linspace(-1, 1, 16)
    grid = replace(own.grid, scales=own.grid.scales * factor)
    bias.write(parameters, layer, (own.grid, grid), amount)
    assert np.allclose(real(grid.scales), before + amount, atol=2e-3)
    assert parameters.value(bias.name).dtype == dtype == np.int32


def test_a_float_bias_is_none() -> None:
    proto, _ = quantizable("conv")
    view = next(v for v, _ in api.trace(proto).tracing.views if v.node.op_type == "Conv")
    layer = weighted_layer(view)
    assert layer is not None and quantized_bias(Parameters(load(proto)), layer, 16) is None
