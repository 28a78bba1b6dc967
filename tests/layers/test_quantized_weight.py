"""Weights of whole numbers: read and written as layers see them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnxprune import api
from onnxprune.layers import Parameters, weighted_layer
from onnxprune.layers.quantized_weight import QuantizedWeight, quantized_weight, weight_at
from onnxprune.model import load, to_proto
from tests.graphs.net import Net
from tests.graphs.quantized import FORMS, quantizable, quantized


def decoded(scale: tuple[int, ...], zero: bool, *, turned: bool = False, dtype: Any = np.int8, **attrs: Any) -> Any:
    """A product whose weight [8, 6] is decoded, perhaps behind a Transpose."""
    net = Net(opset=21)
    rng = np.random.default_rng(0)
    shape = (6, 8) if turned else (8, 6)
    inputs = [net.const(rng.integers(0, 7, shape).astype(dtype)), net.const(rng.uniform(0.5, 2, scale), dtype="f4")]
    inputs += [net.const(rng.integers(0, 5, scale).astype(dtype))] if zero else []
    w = net.add("DequantizeLinear", *inputs, name="w", **attrs)
    w = net.add("Transpose", w, perm=[1, 0]) if turned else w
    net.output(net.add("MatMul", net.input(["n", 8]), w))
    return net.proto()


CASES: dict[str, Any] = {
    "tensor": decoded((), zero=True),
    "tensor without zero": decoded((), zero=False, dtype=np.uint8),
    "column": decoded((6,), zero=True, axis=1),
    "row": decoded((8,), zero=True, axis=-2),
    "blocks": decoded((2, 6), zero=True, axis=0, block_size=4),
    "turned": decoded((6,), zero=True, turned=True, axis=0),
}


def of(parameters: Parameters, proto: onnx.ModelProto) -> list[tuple[Any, QuantizedWeight]]:
    layers = [layer for view, _ in api.trace(proto).tracing.views if (layer := weighted_layer(view)) is not None]
    found = [quantized_weight(layer, parameters, proto.opset_import) for layer in layers]
    return [(layer, weight) for layer, weight in zip(layers, found, strict=True) if weight is not None]


@pytest.mark.parametrize("name", CASES)
def test_the_value_is_that_of_the_graph(name: str) -> None:
    """The product with the identity is the weight, by ONNX's reference."""
    proto = CASES[name]
    parameters = Parameters(load(proto))
    ((_, weight),) = of(parameters, proto)
    (wanted,) = ReferenceEvaluator(proto).run(None, {"x": np.eye(8, dtype=np.float32)})
    assert np.allclose(weight.value(parameters.value), wanted, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_numbers_that_are_written_are_read(name: str) -> None:
    """Also by the graph; the scales stay."""
    proto = CASES[name]
    parameters = Parameters(load(proto))
    ((layer, weight),) = of(parameters, proto)
    assert weight.is_own(parameters, layer)
    grid = weight.grid(layer, parameters.value)
    wanted = grid.nearest(np.random.default_rng(1).standard_normal(grid.entry.shape))
    weight.write(parameters, layer, grid, grid.steps(wanted))
    assert set(parameters.changes) == {weight.steps}
    assert np.allclose(layer.as_matrix(weight.value(parameters.value)), wanted)
    (found,) = ReferenceEvaluator(to_proto(parameters.finished())).run(None, {"x": np.eye(8, dtype=np.float32)})
    assert np.allclose(found, wanted[0], atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_read_and_written(form: str) -> None:
    proto, data = quantizable("products")
    proto = quantized(proto, form, [{"x": data}])
    parameters = Parameters(load(proto))
    found = of(parameters, proto)
    assert len(found) == 2
    for layer, weight in found:
        grid, before = weight.grid(layer, parameters.value), weight.value(parameters.value)
        weight.write(parameters, layer, grid, grid.steps(layer.as_matrix(before)))
        assert np.array_equal(weight.value(parameters.value), before), "numbers of the grid stay as they are"
        kept = parameters.value(weight.steps)
        weight.write(parameters, layer, grid, grid.steps(-layer.as_matrix(before)))
        changed = parameters.value(weight.steps)
        assert changed.dtype == kept.dtype and changed.shape == kept.shape and not np.array_equal(changed, kept)


def test_a_weight_that_two_nodes_read_is_not_its_own() -> None:
    proto = decoded((), zero=True)
    proto.graph.node.append(onnx.helper.make_node("Identity", ["w"], ["other"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [8, 6]))
    parameters = Parameters(load(proto))
    ((layer, weight),) = of(parameters, proto)
    assert not weight.is_own(parameters, layer)


@pytest.mark.parametrize("form", ["qdq", "blocks"])
def test_what_a_node_decodes_is_found_without_its_layer(form: str) -> None:
    proto, data = quantizable("products")
    proto = quantized(proto, form, [{"x": data}])
    parameters = Parameters(load(proto))
    found = {w.steps: w for node in proto.graph.node if (w := weight_at(node)) is not None}
    for _, weight in of(parameters, proto):
        other = found[weight.steps]
        assert np.array_equal(other.value(parameters.value), weight.value(parameters.value))
        grid = other.decoded_grid(parameters.value)
        numbers = other.stored(parameters.value, grid.steps(other.value(parameters.value)))
        assert np.array_equal(numbers.astype(np.int16), parameters.value(weight.steps).astype(np.int16))
