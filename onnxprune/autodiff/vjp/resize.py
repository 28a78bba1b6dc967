"""Resampling. A Resize is linear and works axis by axis, so its adjoint is one product of matrices for each axis.

The matrix of an axis is measured: the operator itself is run on an identity matrix. That makes every mode exact with no
formula of any mode written down here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.registry import BackwardNode, register_vjp
from onnxprune.autodiff.vjp.layout import along_axis
from onnxprune.model import Model
from onnxprune.runtime import Session
from onnxprune.typing import Array

Gradients = Sequence[Value | None]


@register_vjp("Resize")
def _resize(node: BackwardNode) -> Gradients:
    gradient = node.dy
    for axis in range(node.x.rank):
        if node.x.shape[axis] != node.y.shape[axis] or _part(node, axis) is not None:
            gradient = _undone(node, gradient, axis)
    return node.only_first(gradient)


def _undone(node: BackwardNode, gradient: Value, axis: int) -> Value:
    """The gradient before one axis was resampled."""
    size, made = node.x.shape[axis], node.y.shape[axis]
    matrix = _matrix(node, axis)
    copies = made // size
    if made % size == 0 and np.array_equal(matrix, np.repeat(np.eye(size, dtype=matrix.dtype), copies, 1)):
        shape = gradient.shape
        return gradient.reshape([*shape[:axis], size, copies, *shape[axis + 1 :]]).sum([axis + 1])
    return along_axis(gradient, axis, np.ascontiguousarray(matrix.T))


def _matrix(node: BackwardNode, axis: int) -> Array:
    """The matrix [size, new size] of one axis."""
    options = {k: v for k, v in node.attributes.items() if k not in ("axes", "keep_aspect_ratio_policy")}
    options.pop("extrapolation_value", None)  # what is beyond a part is a constant, with no gradient
    sizes = node.x.shape[axis], node.y.shape[axis]
    return axis_matrix(options, *sizes, _scale(node, axis), _part(node, axis)).astype(node.dy.dtype)


def axis_matrix(
    options: Mapping[str, Any], size: int, made: int, scale: float | None, part: tuple[float, float] | None = None
) -> Array:
    """Measure what Resize does to one axis: what it makes of an identity matrix.

    Args:
        options: attributes of the operator, but for its axes.
        size: length of the axis.
        made: length afterwards.
        scale: factor of the axis as it is given; None where lengths are given.
        part: what is cropped to, as shares of the length; None for all of it.

    Returns:
        float32[size, made]; its product with a row along the axis is the resampled row.
    """
    eye = np.eye(size, dtype=np.float32).reshape(size, 1, size, 1)
    values, names = {"s": np.array([1, 1, scale or 1, 1], np.float32)}, ["x", "", "s"]
    if scale is None:
        values, names = {"s": np.array([size, 1, made, 1], np.int64)}, ["x", "", "", "s"]
    if part is not None:
        values["roi"], names[1] = np.array([0, 0, part[0], 0, 1, 1, part[1], 1], np.float32), "roi"
    graph = helper.make_graph(
        [helper.make_node("Resize", names, ["y"], **options)],
        "axis",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, eye.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with Session(Model(model), threads=1) as session:
        result: Array = session.run({"x": eye})[0]
    return result.reshape(size, made)


def _part(node: BackwardNode, axis: int) -> tuple[float, float] | None:
    """The part of an axis that a Resize crops to, as shares of its length; None where it takes all."""
    if node.attributes.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        return None
    bounds = node.constant(1, "the part that Resize crops to")
    axes = [a % node.x.rank for a in node.attributes.get("axes", range(node.x.rank))]
    if axis not in axes:
        return None
    place = axes.index(axis)
    return float(bounds[place]), float(bounds[place + len(axes)])


def _scale(node: BackwardNode, axis: int) -> float | None:
    """The scale of an axis as it is given; None where sizes are given."""
    if not node.has(2) or not node.input(2).size:
        return None
    scales = node.constant(2, "the scale of Resize")
    axes = [a % node.x.rank for a in node.attributes.get("axes", range(node.x.rank))]
    return float(scales[axes.index(axis)])
