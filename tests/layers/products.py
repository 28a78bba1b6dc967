"""Rows times matrix against the operator, for any layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnxprune.api import trace
from onnxprune.layers import LinearLayer, linear_layer

# Operator, shape of the input, shape of the weight, attributes, slot of the weight.
Case = tuple[str, list[int], list[int], dict[str, Any], int]


def check(case: Case) -> LinearLayer:
    """Hold a layer against its operator; the layer."""
    op, entering, factor, attributes, slot = case
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in (entering, factor))
    names = ["x", "w"] if slot == 1 else ["w", "x"]
    rank = {"bsd,dnh->bsnh": 4, "bsnh,nhd->bsd": 3}.get(attributes.get("equation", ""), len(entering))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, entering)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"d{i}" for i in range(rank)])]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)], "g", inputs, outputs, [numpy_helper.from_array(weight, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (y,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    ((view, _),) = trace(model).tracing.views
    layer = linear_layer(view)
    assert layer is not None and layer.input == "x"
    matrix = layer.as_matrix(weight)
    np.testing.assert_array_equal(layer.tensor(matrix, weight.shape), weight)
    assert layer.channels(layer.input_rows(x, layer.sample_positions(x, 7, rng))).shape[0] == len(matrix)
    rows = layer.input_rows(x, layer.sample_positions(x, 1 << 20, rng))
    found = rows @ matrix * layer.scale
    vectors = {
        "Conv": lambda: np.moveaxis(y, 1, -1).reshape(-1, len(matrix), found.shape[2]).swapaxes(0, 1),
        "Gemm": lambda: y[None],
        "MatMul": lambda: (y.T if slot == 0 else y).reshape(len(matrix), -1, found.shape[2]),
        "Einsum": lambda: y.reshape(len(matrix), -1, found.shape[2]),
    }[op.removesuffix("Transpose")]()
    for made, wanted in zip(found, vectors, strict=True):
        # Rows come in any order; random vectors do not meet by chance.
        nearest = np.abs(made[:, None] - wanted[None]).max(axis=2).min(axis=1)
        assert nearest.max() < 1e-4
        assert op.startswith("Conv") or len(made) == len(wanted)
    return layer
