"""Graphs brought to a recent version of ONNX, with operators that ONNX defines by a function written out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import onnx
import onnx.inliner
import onnx.version_converter
from onnx import defs, helper

from onnxprune.errors import ModelError
from onnxprune.model.protos import graphs

# The oldest version whose operators the rules of differentiation emit.
OLDEST = 18
# The version whose Resize says by attributes which positions it reads.
_NAMED_POSITIONS = 11
# The version from which on a Scan has no batch axis, and no lengths of its sequences.
_SINGLE_SAMPLES = 9
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
    if version < _SINGLE_SAMPLES:
        _refuse_lengths(proto)
    try:
        changed = onnx.version_converter.convert_version(proto, OLDEST)
    except Exception as error:  # the converter raises RuntimeError, and others from its C++ code
        message = f"the model cannot be brought from version {version} of ONNX to {OLDEST}: {error}"
        raise ModelError(message, hint="export the model at a newer opset") from error
    if version < _NAMED_POSITIONS:
        _name_positions(changed.graph)
    if version < _SINGLE_SAMPLES:
        _scan_over_samples(changed, proto)
    return changed


def _scans(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    nodes = (node for graph in graphs(proto.graph) for node in graph.node)
    return [node for node in nodes if node.op_type == "Scan" and not node.domain]


def _refuse_lengths(proto: onnx.ModelProto) -> None:
    """Refuse a Scan whose sequences have lengths of their own.

    Raises:
        ModelError: there is one.
    """
    for node in _scans(proto):
        if node.input[0]:
            raise ModelError(
                f"Scan {node.name or next(filter(None, node.output))!r} has sequences of unequal length, which only"
                f" version 8 of ONNX knows",
                hint="export the model at a newer opset",
            )


def _scan_over_samples(changed: onnx.ModelProto, before: onnx.ModelProto) -> None:
    """Let every Scan go over samples; the converter took the batch axis out of the shapes that it notes."""
    scans = _scans(changed)
    for node in reversed(scans):  # those inside of others first
        node.CopyFrom(_over_samples(node))
    if scans:
        del changed.graph.value_info[:]
        declared = {value.name: value for value in (*before.graph.input, *before.graph.output)}
        for value in (*changed.graph.input, *changed.graph.output):
            value.CopyFrom(declared.get(value.name, value))


def _over_samples(node: onnx.NodeProto) -> onnx.NodeProto:
    """A Scan of version 8, which had a batch axis, as a Scan over the samples of one that has none.

    ONNX's converter takes the place of the lengths out, and does nothing about the batch.
    """
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    body, stem = options["body"], next(filter(None, node.output))
    given = [f"{stem}/sample/{i}" for i in range(len(body.input))]
    made = [f"{stem}/sample/of/{i}" for i in range(len(body.output))]
    inner = helper.make_node(
        *("Scan", given, made),
        body=body,
        num_scan_inputs=options["num_scan_inputs"],
        scan_input_directions=options.get("scan_input_directions"),
    )

    def values(names: list[str], like: Iterable[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
        kinds = (value.type.tensor_type.elem_type for value in like)
        return [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, kinds, strict=True)]

    sample = helper.make_graph([inner], "sample", values(given, body.input), values(made, body.output))
    return helper.make_node("Scan", node.input, node.output, name=node.name, body=sample, num_scan_inputs=len(given))


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
