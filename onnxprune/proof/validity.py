"""Validity of a rewritten model by ONNX's checker and strict shape inference."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto

from onnxprune.cost import functions
from onnxprune.model import Model
from onnxprune.model.protos import without_weights
from onnxprune.model.tensors import item_bits
from onnxprune.system import killable, shortage
from onnxprune.tracing import Groups

# Bytes of one tensor that is computed.
LARGEST_RUN = 1 << 30
LONGEST_LIST = 1 << 20


def too_large(groups: Groups) -> str:
    """Name what in the graph is too large to be run; a file of some bytes may ask for terabytes."""
    static, stored = groups.static, groups.tracing.model.initializers
    whole = 0
    for name, shape in static.shapes.items():
        size = math.prod(shape) * item_bits(static.dtypes.get(name) or TensorProto.FLOAT) // 8
        if size > LARGEST_RUN and name not in stored:
            return f"tensor {name!r} of shape {list(shape)} is too large to be run: smaller --sizes may help"
        whole += size
    # All tensors together are more than a run holds at any time; that is counted where they do not fit.
    short = shortage(functions.RUN_COPIES * whole) and shortage(functions.of_a_run(groups))
    return f"a run {short}: smaller --sizes may help" if short else ""


def has_long_list(groups: Groups) -> bool:
    """Tell whether the graph makes a list that onnx, which follows values of lists, would unfold in memory."""
    shapes, stored = groups.static.shapes, groups.model.initializers
    return any(len(shape) == 1 and shape[0] > LONGEST_LIST and name not in stored for name, shape in shapes.items())


def valid(original: Model, pruned: Model, *, values: bool = True) -> str:
    """Check a model that was made from another by ONNX's checker and strict shape inference.

    Args:
        original: the model before.
        pruned: the model after.
        values: follow the values of sizes and indices too.

    Returns:
        The complaint about `pruned`; empty without one, or where there is one about the original too.
    """
    problem = _complaint(pruned, values)
    return problem if problem and not _complaint(original, values) else ""


def _complaint(model: Model, values: bool) -> str:
    light = without_weights(model.proto)
    try:
        with killable():
            onnx.checker.check_model(light, full_check=True)
            onnx.shape_inference.infer_shapes(light, strict_mode=True, data_prop=values)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
        RuntimeError,
    ) as error:
        return str(error).strip().splitlines()[0]
    return ""
