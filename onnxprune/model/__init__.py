"""Load, look into, check, change and save an ONNX model without running it."""

from onnxprune.model.files import check_target, file_size, load, same_kind, save, to_graph, to_proto
from onnxprune.model.model import Model
from onnxprune.model.names import Names

__all__ = ["Model", "Names", "check_target", "file_size", "load", "same_kind", "save", "to_graph", "to_proto"]
