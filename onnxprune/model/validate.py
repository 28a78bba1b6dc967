"""Validity of a model: ONNX's checker on the graph alone, our own checks of the tensors."""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, defs, helper

from onnxprune.errors import ModelError
from onnxprune.model.external import locate
from onnxprune.model.node_order import cycle
from onnxprune.model.protos import skeleton
from onnxprune.model.tensors import byte_size, check_stored, is_external, nodes, tensors
from onnxprune.model.traps import refuse_traps
from onnxprune.system import killable

logger = logging.getLogger(__name__)

_SMALL = 1024
# Nodes of a cycle that a message names.
_MOST_NAMED = 6
_TEXT = {str}
# Elements; sparse weights are made dense to be cut.
LARGEST_SPARSE = 1 << 28
_BUILT_IN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"}
_UNREGISTERED = "onnxprune.unregistered"


def check_harmless(proto: ModelProto, name: str) -> None:
    """Refuses text that is not UTF-8, and nodes on which ONNX's shape inference never ends."""
    _check_text(proto, name)
    refuse_traps(proto, name)


def check_model(proto: ModelProto, folder: Path | None, name: str) -> None:
    """Refuses an invalid model; what is only unknown (operators, newer versions) is warned of.

    Args:
        proto: the model.
        folder: what external data is relative to; None puts off its check until the data is needed.
        name: what messages call the model.
    """
    sizes: dict[str, tuple[Path, int]] = {}
    external = False
    for tensor in tensors(proto):
        if not is_external(tensor):
            check_stored(tensor)
            continue
        external = True
        if folder is not None:  # else when the data is needed
            locate(tensor, folder, sizes)
    _check_sparse(proto, name)
    _check_declared(proto, name)
    _check_initializers(proto, name)
    stand_in = _without_weights(proto)
    if external:  # what is left of it; the checker would look for the file
        for tensor in filter(is_external, tensors(stand_in)):
            tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0]))
    _loosen(stand_in, name)
    try:
        with killable():
            onnx.checker.check_model(stand_in)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise _invalid(proto, name, str(error)) from error


def _check_text(proto: ModelProto, name: str) -> None:
    """Refuse text that is not UTF-8, wherever it stands: protobuf hands it out as bytes, or raises when it is read."""
    pending: list[Any] = [proto]
    while pending:
        message = pending.pop()
        kinds = _fields(message.DESCRIPTOR)
        for field, value in _held(message):
            if field.number not in kinds:
                continue
            repeated, is_message = kinds[field.number]
            values = value if repeated else (value,)
            if is_message:
                pending.extend(values)
            elif set(map(type, values)) - _TEXT:
                where = f"'{field.name}' of a {message.DESCRIPTOR.name}"
                raise ModelError(f"{name}: {where} is not UTF-8 text", hint="the file is damaged, or not of ONNX")


def _held(message: Any) -> Iterable[tuple[Any, Any]]:
    """The fields that are set, with their values; of a tensor not its data, which would be copied."""
    if message.DESCRIPTOR is not TensorProto.DESCRIPTOR:
        return message.ListFields()
    return [(field, getattr(message, field.name)) for field in message.DESCRIPTOR.fields if field.number in _OF_TENSORS]


@functools.cache
def _fields(kind: Any) -> dict[int, tuple[bool, bool]]:
    """Number of a field of a message that is a text or a message -> whether it is repeated, and whether a message."""
    texts, messages = kind.fields[0].TYPE_STRING, kind.fields[0].TYPE_MESSAGE
    return {f.number: (_is_repeated(f), f.type == messages) for f in kind.fields if f.type in (texts, messages)}


def _is_repeated(field: Any) -> bool:
    known = getattr(field, "is_repeated", None)  # newer than `label`
    return bool(field.label == field.LABEL_REPEATED if known is None else known)


# Fields of a tensor that hold texts.
_OF_TENSORS = frozenset(
    number for number, (repeated, is_message) in _fields(TensorProto.DESCRIPTOR).items() if repeated or not is_message
)


def _check_declared(proto: ModelProto, name: str) -> None:
    """Refuses inputs without a type or shape and outputs without a type, by their names."""
    for kind, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            tensor = value.type.tensor_type
            if value.type.WhichOneof("value") is None or (value.type.HasField("tensor_type") and not tensor.elem_type):
                raise ModelError(f"{name}: graph {kind} '{value.name}' has no type", hint="export the model again")
            if kind == "input" and value.type.HasField("tensor_type") and not tensor.HasField("shape"):
                raise ModelError(
                    f"{name}: graph input '{value.name}' has no shape, and its consumers leave it open",
                    hint=f"give it one: --shape {value.name}=1x3 (in Python shapes={{'{value.name}': (1, 3)}})",
                )


def _check_sparse(proto: ModelProto, name: str) -> None:
    """Refuses sparse weights whose indices lie outside, or that would be huge if they were dense."""
    for sparse in proto.graph.sparse_initializer:
        weight = sparse.values.name
        if min(sparse.dims, default=0) < 0 or math.prod(sparse.dims) > LARGEST_SPARSE:
            raise ModelError(f"{name}: sparse initializer '{weight}' has the shape {list(sparse.dims)}")
        if is_external(sparse.values) or is_external(sparse.indices):
            continue
        try:
            onnx.checker.check_sparse_tensor(sparse)
        except (onnx.checker.ValidationError, ValueError) as error:
            raise ModelError(f"{name}: sparse initializer '{weight}': {error}") from error


def _check_initializers(proto: ModelProto, name: str) -> None:
    """Refuses initializers without a name, two of one name, and those of other ranks than their graph inputs."""
    given = {value.name: value.type.tensor_type for value in proto.graph.input}
    seen: set[str] = set()
    for weight, _, dims in _weights(proto):
        if weight in seen or not weight:
            raise ModelError(f"{name}: initializer '{weight}' " + ("is defined twice" if weight else "has no name"))
        seen.add(weight)
        if weight in given and given[weight].HasField("shape") and len(given[weight].shape.dim) != len(dims):
            raise ModelError(f"{name}: initializer '{weight}' has {len(dims)} axes, but not as a graph input")


def _weights(proto: ModelProto) -> list[tuple[str, int, Sequence[int]]]:
    """(name, data type, sizes) of every initializer."""
    plain = [(t.name, t.data_type, t.dims) for t in proto.graph.initializer]
    return plain + [(s.values.name, s.values.data_type, s.dims) for s in proto.graph.sparse_initializer]


def _without_weights(proto: ModelProto) -> ModelProto:
    """A copy whose weights became inputs: as valid as the model, and quick to check, whatever its size."""
    bare = skeleton(proto, "node", "sparse_initializer", "value_info", "quantization_annotation")
    for unchecked in ("metadata_props", "training_info"):
        bare.ClearField(unchecked)
    graph, listed = proto.graph, {value.name for value in proto.graph.input}
    for weight, data_type, dims in _weights(proto):
        if weight not in listed:
            bare.graph.input.append(helper.make_tensor_value_info(weight, data_type, dims))
    for node in graph.node:
        plain = node.op_type == "Constant" and len(node.attribute) == len(node.output) == 1
        tensor = node.attribute[0].t if plain else None
        if tensor is not None and tensor.data_type and byte_size(tensor) > _SMALL:
            value = helper.make_tensor_value_info(node.output[0], tensor.data_type, tensor.dims)
            bare.graph.input.append(value)
        else:
            bare.graph.node.append(node)
    return bare


def _loosen(bare: ModelProto, name: str) -> None:
    """Lets the checker pass over what is unknown rather than wrong."""
    for value in bare.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    if bare.ir_version > onnx.IR_VERSION:
        logger.warning("%s: IR version %d is newer than the installed onnx knows", name, bare.ir_version)
        bare.ir_version = onnx.IR_VERSION
    for opset in bare.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > defs.onnx_opset_version():
            logger.warning("%s: opset %d is newer than the installed onnx knows", name, opset.version)
    local = {(function.domain, function.name) for function in bare.functions}
    for scope, graphs in ((bare, bare.graph), *((function, function) for function in bare.functions)):
        versions = {opset.domain: opset.version for opset in scope.opset_import}
        known: dict[tuple[str, str], bool] = {}
        for node in nodes(graphs):
            key = node.domain, node.op_type
            if node.domain not in _BUILT_IN_DOMAINS:
                if node.domain not in versions:
                    logger.warning("%s: no opset is imported for domain '%s'", name, node.domain)
                    versions[node.domain] = 1
                    scope.opset_import.add(domain=node.domain, version=1)
                continue
            if key not in known:
                known[key] = key in local or _is_registered(node.domain, node.op_type, versions)
                if not known[key]:
                    logger.warning("%s: operator '%s' is not registered in ONNX", name, node.op_type)
            if not known[key]:
                node.domain = _UNREGISTERED
        if not all(known.values()):
            scope.opset_import.add(domain=_UNREGISTERED, version=1)


def _is_registered(domain: str, op_type: str, versions: Mapping[str, int]) -> bool:
    domain = "" if domain == "ai.onnx" else domain
    version = versions.get(domain, versions.get("ai.onnx") if not domain else None)
    if version is None:
        return True  # the checker says what is wrong
    try:
        schema = defs.get_schema(op_type, version, domain)
    except defs.SchemaError:
        return False
    return not schema.deprecated


def _invalid(proto: ModelProto, name: str, message: str) -> ModelError:
    """Turns the checker's message into one that says where, and what to do."""
    unsorted = re.search(r"topologically sorted, however input '(.*?)' of node", message)
    if not unsorted:
        return ModelError(f"{name}: {message.strip().splitlines()[0]}", hint="the exporter wrote an invalid model")
    value = unsorted[1]
    user = next((n for n in nodes(proto) if value in n.input), None)
    where = f"node '{user.name or user.output[0]}' ({user.op_type})" if user else "a node"
    if any(value in node.output for node in nodes(proto)):
        around = [f"'{label}'" for label in cycle(proto)]
        rest = f" and {len(around) - _MOST_NAMED} more" if len(around) > _MOST_NAMED else ""
        why = f" (a cycle: {', '.join(around[:_MOST_NAMED])}{rest})" if around else ""
        return ModelError(
            f"{name}: nodes are not sorted: {where} reads '{value}', which only a later node makes{why}",
            hint="nothing can run a cycle; export the model again" if around else "export the model again",
        )
    return ModelError(f"{name}: {where} reads '{value}', which nothing makes", hint="export it again")
