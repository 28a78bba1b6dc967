"""Graphs brought to a recent version of ONNX, with operators that ONNX defines by a function written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx.inliner
import onnx.version_converter
from onnx import defs, helper

from onnxprune.errors import ModelError

# The oldest version whose operators the rules of differentiation emit.
OLDEST = 18
# The version whose Resize says by attributes which positions it reads.
_NAMED_POSITIONS = 11
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
        changed = onnx.version_converter.convert_version(proto, OLDEST)
    except Exception as error:  # the converter raises RuntimeError, and others from its C++ code
        message = f"the model cannot be brought from version {version} of ONNX to {OLDEST}: {error}"
        raise ModelError(message, hint="export the model at a newer opset") from error
    if version < _NAMED_POSITIONS:
        _name_positions(changed.graph)
    return changed


def _name_positions(graph: onnx.GraphProto) -> None:
    """Say how every Resize of a graph places its positions: before version 11, Upsample and Resize had one way.

    ONNX's converter leaves the attributes to their defaults, which mean something else.
    """
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Resize":
            given = scales.get(node.input[2])
            # Towards the start where positions are copied, towards the end where some are left out.
            nearest = "ceil" if given is not None and given.size and given.min() < 1 else "floor"
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(helper.make_attribute("nearest_mode", nearest))


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
