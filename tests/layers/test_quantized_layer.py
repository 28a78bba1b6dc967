"""Weight and bias of a layer of whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import api
from onnxprune.layers import Parameters, layer_weight, quantized_parameters, weighted_layer
from onnxprune.model import load
from tests.graphs.quantized import DYNAMIC, FORMS, quantizable, quantized


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_is_what_names_say(form: str) -> None:
    proto, data = quantizable("products" if form == "blocks" else "conv")
    proto = quantized(proto, form, [{"x": data}])
    parameters = Parameters(load(proto))
    tracing = api.trace(proto).tracing
    layers = [layer for view, _ in tracing.views if (layer := weighted_layer(view)) is not None]
    for layer in layers:
        parameters = Parameters(load(proto))
        own = quantized_parameters(parameters, layer)
        assert own is not None
        groups, _, outputs = own.grid.entry.shape
        weight = layer.as_matrix(layer_weight(tracing, layer))
        own.write(0.5 * weight, np.full(groups * outputs, 0.5))
        assert set(parameters.changes) == set(own.names)
        changed = layer.as_matrix(own.weight.value(parameters.value))
        assert np.allclose(changed, 0.5 * weight, atol=1.01 * own.grid.scales.max())


def test_a_bias_is_not_made() -> None:
    """Kernels of whole numbers may take none."""
    proto, data = quantizable("products")
    proto = quantized(proto, "operators", [{"x": data}])
    parameters = Parameters(load(proto))
    for view, _ in api.trace(proto).tracing.views:
        layer = weighted_layer(view)
        own = None if layer is None else quantized_parameters(parameters, layer)
        assert own is None or not own.shifted


def test_a_float_weight_has_none() -> None:
    proto, _ = quantizable("products")
    parameters = Parameters(load(proto))
    layers = [layer for view, _ in api.trace(proto).tracing.views if (layer := weighted_layer(view)) is not None]
    assert len(layers) == 2 and not any(quantized_parameters(parameters, layer) for layer in layers)


def test_scales_that_others_read_do_not_grow() -> None:
    proto, _ = quantizable("products")
    proto = quantized(proto, DYNAMIC, [])
    tracing = api.trace(proto).tracing
    parameters = Parameters(load(proto))
    layer = next(layer for view, _ in tracing.views if (layer := weighted_layer(view)) is not None)
    own = quantized_parameters(parameters, layer)
    assert own is not None and own.grows
    proto.graph.node.append(type(proto.graph.node[0])(op_type="Identity", input=[own.weight.scale], output=["copy"]))
    other = quantized_parameters(Parameters(load(proto)), layer)
    assert other is not None and not other.grows
