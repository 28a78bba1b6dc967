"""Graphs brought to a recent version of ONNX, with operators that ONNX defines by a function written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx.inliner
import onnx.version_converter
from onnx import defs

from onnxprune.errors import ModelError

# The oldest version whose operators the rules of differentiation emit.
OLDEST = 18
# Functions are written in terms of others a few levels deep.
_LEVELS = 5


def converted(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Bring a graph to version `OLDEST` if it is older.

    Raises:
        ModelError: ONNX's converter cannot do it.
    """
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version >= OLDEST:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, OLDEST)
    except Exception as error:  # the converter raises RuntimeError, and others from its C++ code
        message = f"the model cannot be brought from version {version} of ONNX to {OLDEST}: {error}"
        raise ModelError(message, hint="export the model at a newer opset") from error


def written_out(proto: onnx.ModelProto, is_known: Callable[[onnx.NodeProto], bool]) -> onnx.ModelProto:
    """Replace operators that ONNX defines by a function, and that `is_known` refuses, by the function's nodes."""
    for _ in range(_LEVELS):
        found = {(n.domain, n.op_type) for n in proto.graph.node if not is_known(n) and _has_function(n)}
        if not found:
            break
        typed = onnx.shape_inference.infer_shapes(proto)
        try:
            proto = onnx.inliner.inline_selected_functions(typed, sorted(found), inline_schema_functions=True)
        except Exception:  # noqa: BLE001 - the inliner's C++ code raises what it likes; the operator stays as it is
            break
        del proto.graph.value_info[:]
    return proto


def _has_function(node: onnx.NodeProto) -> bool:
    try:
        schema: Any = defs.get_schema(node.op_type, node.domain)
    except defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)
