"""Slices along axes of fewer than no positions, at which ONNX's shape inference and ONNX Runtime end the process."""

from __future__ import annotations

from onnxprune.errors import ModelError
from onnxprune.model.flatten import flattened
from onnxprune.model.inline import inlined
from onnxprune.model.model import Model
from onnxprune.model.shapes.infer import StaticInfo, infer
from onnxprune.model.tensors import nodes


def refuse_negative_sizes(model: Model, static: StaticInfo | None = None) -> None:
    """Refuse a model that slices what a window made that is larger than its input.

    Args:
        model: the model; laid out flat, if `static` is given.
        static: what is known of it; it is inferred where None and where the model has a Slice at all.

    Raises:
        ModelError: there is such a Slice.
    """
    if static is None:
        if not any(node.op_type == "Slice" for node in nodes(model.proto)):
            return
        model = flattened(inlined(model))
        static = infer(model)
    for node in model.proto.graph.node:
        if node.op_type != "Slice" or node.domain not in ("", "ai.onnx") or not node.input:
            continue
        sizes = static.dims.get(node.input[0]) or static.shapes.get(node.input[0], ())
        if any(isinstance(size, int) and size < 0 for size in sizes):
            shape = ", ".join(map(str, sizes))
            raise ModelError(
                f"{model.name}: Slice {node.name!r} reads {node.input[0]!r} of shape [{shape}]",
                hint="a window is larger than what it slides over: export the model with larger inputs",
            )
