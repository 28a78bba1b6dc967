"""Models as other libraries hold them, told by the module of their class; none is imported unless a model is of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from onnx import ModelProto

GRAPHSURGEON, ONNX_IR = "onnx_graphsurgeon", "onnx_ir"


def library_of(source: Any) -> str:
    """Name the library that an object comes from.

    Returns:
        The package of its class.
    """
    return type(source).__module__.partition(".")[0]


def proto_of(source: Any) -> ModelProto | None:
    """Convert a graph of graphsurgeon, a model of onnx_ir, or what torch's exporter returns.

    Args:
        source: an `onnx_graphsurgeon.Graph`, an `onnx_ir.Model`, an object with a `model_proto` such as
            `torch.onnx.ONNXProgram`, or anything else.

    Returns:
        The message; None for anything else. External data of `onnx_ir` stays external.
    """
    if library_of(source) == GRAPHSURGEON:
        from onnx_graphsurgeon import export_onnx

        return export_onnx(source)
    if _is_onnx_ir(source):
        return sys.modules[ONNX_IR].to_proto(source)
    made = getattr(source, "model_proto", None)
    return made if isinstance(made, ModelProto) else None


def folder_of(source: Any) -> Path | None:
    """Find the external data of a model of onnx_ir.

    Returns:
        The one folder that its external tensors lie in; None where there is none, or several.
    """
    if not _is_onnx_ir(source):
        return None
    tensors = (value.const_value for value in source.graph.initializers.values())
    folders = {os.fspath(tensor.base_dir) for tensor in tensors if hasattr(tensor, "base_dir")}
    return Path(folders.pop()) if len(folders) == 1 else None


def like(proto: ModelProto, source: Any) -> Any:
    """Convert a message to the kind of object that a source is.

    Args:
        proto: the message, with all data in it.
        source: what another model was made from.

    Returns:
        A graph of graphsurgeon or a model of onnx_ir where the source is one, else the message.
    """
    if library_of(source) == GRAPHSURGEON:
        return graph_of(proto)
    return sys.modules[ONNX_IR].from_proto(proto) if _is_onnx_ir(source) else proto


def graph_of(proto: ModelProto) -> Any:
    """Convert a message to graphsurgeon.

    Returns:
        An `onnx_graphsurgeon.Graph`.
    """
    from onnx_graphsurgeon import import_onnx

    return import_onnx(proto)


def _is_onnx_ir(source: Any) -> bool:
    return library_of(source) == ONNX_IR and hasattr(source, "graph")
