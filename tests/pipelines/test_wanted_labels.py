"""Shapes and types of labels, by the output that they belong to."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune.calibration import InputSpec, LabelSource
from onnxprune.model import Model, load
from onnxprune.pipelines.wanted_labels import wanted_labels


def giving(dtype: int, *dims: int | str) -> Model:
    """A model with one output of this type and shape."""
    x = helper.make_tensor_value_info("x", dtype, ["n", *dims[1:]])
    y = helper.make_tensor_value_info("y", dtype, dims)
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize(
    ("dtype", "dims", "rank"),
    [
        (TensorProto.FLOAT, ("n", 10), 1),
        (TensorProto.FLOAT, ("n",), 1),
        (TensorProto.FLOAT, ("n", 7, 10), 2),
        (TensorProto.FLOAT, ("n", 10, 8, 8), 3),
        (TensorProto.INT64, ("n",), 1),
        (TensorProto.INT64, ("n", 8, 8), 3),
    ],
)
def test_classes_have_the_axes_of_the_output_but_that_of_the_scores(
    dtype: int, dims: tuple[int, ...], rank: int
) -> None:
    spec = wanted_labels(giving(dtype, *dims), "label", "inputs.npz")
    assert isinstance(spec, InputSpec)
    assert len(spec.dims) == rank and spec.dtype == np.int64 and spec.dims[0] == "n" and spec.what == "label"


def test_numbers_have_all_axes() -> None:
    spec = wanted_labels(giving(TensorProto.FLOAT, "n", 3), "target", "inputs.npz", of_numbers=True)
    assert isinstance(spec, InputSpec) and len(spec.dims) == 2 and spec.dtype == np.float32


def test_folders_and_columns_lie_beside_the_inputs() -> None:
    model = giving(TensorProto.FLOAT, "n", 10)
    for name in ("folder", "truth.csv:class"):
        assert isinstance(wanted_labels(model, name, "pictures"), LabelSource)
