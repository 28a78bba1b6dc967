"""What labels of a model must be like: an array like its output, without the axis of the classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ValueInfoProto

from onnxprune.calibration import InputSpec, LabelSource, Source, is_label_source
from onnxprune.model import Model
from onnxprune.model.shapes.symbols import dims_of
from onnxprune.model.tensors import dtype_of
from onnxprune.recovery import class_axis


def wanted_labels(
    model: Model, name: str, data: Any, *, of_numbers: bool = False, output: ValueInfoProto | None = None
) -> InputSpec | LabelSource:
    """Say where labels come from, and what they must be like.

    Args:
        model: the model whose output they belong to.
        name: of their array in the data, "folder", or FILE.csv:COLUMN (.jsonl, too).
        data: the source of the inputs.
        of_numbers: labels are numbers, one for every number of the output; else class numbers.
        output: the output they belong to; the first if None.

    Returns:
        What to read.
    """
    spec = _spec(model, name, model.proto.graph.output[0] if output is None else output, of_numbers=of_numbers)
    if not is_label_source(spec.name):
        return spec
    return LabelSource(spec, data.data if isinstance(data, Source) else data)


def _spec(model: Model, name: str, output: ValueInfoProto, *, of_numbers: bool) -> InputSpec:
    rank = len(dims_of(output)) or 2
    entry = next(v for v in model.proto.graph.input if v.name not in model.initializers)
    dims = [(dims_of(entry) or ["batch"])[0], *(f"axis {i}" for i in range(1, rank))]
    if of_numbers:
        return InputSpec(name, np.dtype(np.float32), tuple(dims), "label")
    if _holds_classes(output):
        del dims[class_axis(len(dims))]
    return InputSpec(name, np.dtype(np.int64), tuple(dims), "label")


def _holds_classes(output: ValueInfoProto) -> bool:
    """Tell whether an output has an axis of classes: floats, of more than one axis."""
    return dtype_of(output.type.tensor_type.elem_type).kind in "fV" and (len(dims_of(output)) or 2) > 1
