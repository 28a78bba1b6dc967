"""Models of old versions of ONNX compute the same after they are brought to a new one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.autodiff.standard import converted
from onnxprune.model import Model
from onnxprune.runtime import Session


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("operator", "version", "scale"),
    [*(("Upsample", 9, s) for s in (2.0, 1.5, 3.0)), *(("Resize", 10, s) for s in (2.0, 1.5, 0.5))],
)
def test_resampling_places_its_positions_as_before(operator: str, version: int, scale: float, mode: str) -> None:
    kinds = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", [1, 2, 8, 8]), ("y", None))]
    scales = numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "scales")
    node = helper.make_node(operator, ["x", "scales"], ["y"], mode=mode)
    graph = helper.make_graph([node], "resampling", kinds[:1], kinds[1:], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(np.float32)}
    with Session(Model(model)) as old, Session(Model(converted(model))) as new:
        assert np.abs(old.run(feeds)[0] - new.run(feeds)[0]).max() < 1e-5
