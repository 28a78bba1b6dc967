"""A model as ONNX Runtime simplifies it, in the frame of the original: its inputs, outputs, notes and weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.helper import get_attribute_value as get_attribute

from onnxprune.model import Model, file_size, inlined
from onnxprune.model.graph import first_output, remove_dead
from onnxprune.model.protos import copy_except, graphs, keep
from onnxprune.runtime import CONSTANT_FOLDING, optimised_offline
from onnxprune.typing import Array

# What is always left out: fusions that store weights under other names (`fold` does the same, for more operators, and
# keeps the names), and the one that puts a product into the form of a matrix, with a Reshape on either side.
NEVER = ("ConvBNFusion", "ConvMulFusion", "ConvAddFusion", "MatMulBatchNormFusion", "MatMulAddFusion")
# What is left out besides, one attempt after the other: a computed constant may be larger than what computes it.
ATTEMPTS: tuple[tuple[str, ...], ...] = ((), (CONSTANT_FOLDING,))


def simplified(model: Model) -> Model:
    """Remove no-ops, share repeated expressions, and compute what depends on constants alone.

    Args:
        model: the model.

    Returns:
        The first attempt with no more nodes and bytes than the model has, and without operators of other domains; the
        model itself where there is none, or where nothing changes.
    """
    for without in ATTEMPTS:
        proto = optimised_offline(model, (*NEVER, *without))
        if proto is not None and _operators(proto) <= _operators(inlined(model).proto):
            made = _framed(model, proto)
            if count_nodes(made) <= count_nodes(model) and file_size(made) < file_size(model):
                return made
    return model


def count_nodes(model: Model) -> int:
    """Count the nodes of a model, with its functions written out where they are called, and those of bodies."""
    return sum(len(graph.node) for graph in graphs(inlined(model).proto.graph))


def _operators(proto: onnx.ModelProto) -> set[tuple[str, str]]:
    """The operators that are not ONNX's own."""
    nodes = (node for graph in graphs(proto.graph) for node in graph.node)
    return {(node.domain, node.op_type) for node in nodes if node.domain not in ("", "ai.onnx")}


def _framed(model: Model, optimised: onnx.ModelProto) -> Model:
    """The runtime's nodes with the inputs, outputs, notes and unchanged weights of the original."""
    proto = onnx.ModelProto()
    copy_except(model.proto, proto, "graph", "functions")
    old, graph = model.proto.graph, proto.graph
    replaced = ("node", "initializer", "sparse_initializer", "input", "quantization_annotation")
    copy_except(old, graph, *replaced)
    graph.node.extend(optimised.graph.node)
    _drop_defaults(model, graph)
    made = Model(optimised)
    sparse = {tensor.values.name: tensor for tensor in old.sparse_initializer}
    for tensor in optimised.graph.initializer:
        if not _is_stored_so(model, made, tensor):
            graph.initializer.append(tensor)
        elif tensor.name in sparse:
            graph.sparse_initializer.append(sparse[tensor.name])
        else:
            graph.initializer.append(model.initializers[tensor.name])
    for tensor in optimised.graph.sparse_initializer:
        graph.sparse_initializer.append(sparse.get(tensor.values.name, tensor))
    kept = made.stored
    graph.initializer.extend(model.initializers[n] for n in model.overridable - kept if n in model.initializers)
    graph.input.extend(v for v in old.input if v.name not in model.stored - model.overridable or v.name in kept)
    _list_initializers(proto)
    remove_dead(graph, model.overridable)
    tensors = {name for node in graph.node for name in (*node.input, *node.output)}
    graph.quantization_annotation.extend(q for q in old.quantization_annotation if q.tensor_name in tensors)
    values = {tensor.name: model.values[tensor.name] for tensor in graph.initializer if _is_made(model, tensor)}
    return replace(model, proto=proto, values=values)


def _drop_defaults(model: Model, graph: onnx.GraphProto) -> None:
    """Drop attributes that the runtime writes down though they have the values of their defaults."""
    versions = {entry.domain: entry.version for entry in model.proto.opset_import}
    given = {(first_output(n), a.name) for part in graphs(model.proto.graph) for n in part.node for a in n.attribute}
    for part in graphs(graph):
        for node in part.node:
            schema = _schema(node, versions)
            known = {} if schema is None else schema.attributes
            made = first_output(node)
            defaults = {name: known[name].default_value for name in known if (made, name) not in given}
            idle = {a.name for a in node.attribute if _is_same(a, defaults.get(a.name))}
            keep(node.attribute, lambda a: a.name not in idle)  # noqa: B023 it is called at once


def _is_same(one: onnx.AttributeProto, other: onnx.AttributeProto | None) -> bool:
    return other is not None and other.type == one.type and get_attribute(one) == get_attribute(other)


def _list_initializers(proto: onnx.ModelProto) -> None:
    """Before IR version 4, every initializer is also an input."""
    if proto.ir_version < 4:
        listed = {value.name for value in proto.graph.input}
        proto.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in proto.graph.initializer
            if t.name not in listed
        )


def _is_made(model: Model, tensor: TensorProto) -> bool:
    old = model.initializers.get(tensor.name)
    return tensor.name in model.values and old is not None and old == tensor


def _is_stored_so(model: Model, made: Model, tensor: TensorProto) -> bool:
    """Whether the original stores a tensor under the same name, with the same content."""
    if tensor.name not in model.stored or tensor.data_location == TensorProto.EXTERNAL:
        return tensor.name in model.stored
    old = model.initializers.get(tensor.name)
    if tensor.data_type == TensorProto.STRING:
        return old is not None and list(old.string_data) == list(tensor.string_data)
    one, other = model.array(tensor.name), made.array(tensor)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


# --- nodes that do nothing ------------------------------------------------------------------------------------------


def without_identities(model: Model) -> Model:
    """Leave out nodes whose output is their input, also of models that the runtime does not simplify.

    Args:
        model: the model.

    Returns:
        The same without them; the model itself where there is none in its main graph.
    """
    inside = {name for body in list(graphs(model.proto.graph))[1:] for name in _defined(body)}
    fixed = inside | {value.name for value in model.proto.graph.output}
    instead: dict[str, str] = {}
    for node in model.proto.graph.node:
        if _is_identity(node) and node.output[0] not in fixed:
            instead[node.output[0]] = instead.get(node.input[0], node.input[0])
    if not instead:
        return model
    made = _renamed(model, instead)
    keep(made.proto.graph.node, lambda node: not (_is_identity(node) and node.output[0] in instead))
    return replace(made)


def _is_identity(node: onnx.NodeProto) -> bool:
    """Whether a node hands on its input; a Dropout does, unless an input or attribute may say that it trains."""
    if node.domain not in ("", "ai.onnx") or not node.output[0]:
        return False
    trains = len(node.input) > 2 or any(node.output[1:]) or any(a.name == "is_test" and not a.i for a in node.attribute)
    return node.op_type == "Identity" or (node.op_type == "Dropout" and not trains)


# --- equal weights --------------------------------------------------------------------------------------------


def with_shared_weights(model: Model) -> Model:
    """Store equal initializers once.

    Args:
        model: the model.

    Returns:
        The same with every reader of a copy reading the first; the model itself where no two are equal.
    """
    graph = model.proto.graph
    inside = {name for body in list(graphs(graph))[1:] for name in _defined(body)}
    fixed = inside | model.overridable | {value.name for value in graph.output}
    alike: dict[tuple[int, tuple[int, ...], int], list[TensorProto]] = {}
    for tensor in graph.initializer:
        if tensor.name not in fixed and tensor.data_type != TensorProto.STRING:
            key = (tensor.data_type, tuple(tensor.dims), _check(model.array(tensor)))
            alike.setdefault(key, []).append(tensor)
    instead: dict[str, str] = {}
    for tensors in alike.values():
        firsts: list[TensorProto] = []
        for tensor in tensors:
            same = next((t for t in firsts if model.array(t).tobytes() == model.array(tensor).tobytes()), None)
            if same is None:
                firsts.append(tensor)
            else:
                instead[tensor.name] = same.name
    return _renamed(model, instead) if instead else model


def _check(value: Array) -> int:
    """A number that is the same for equal arrays."""
    return hash(np.ascontiguousarray(value).tobytes())


def _defined(graph: onnx.GraphProto) -> set[str]:
    stored = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    return stored | {value.name for value in graph.input} | {o for node in graph.node for o in node.output}


def _renamed(model: Model, instead: dict[str, str]) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for graph in graphs(proto.graph):
        for node in graph.node:
            node.input[:] = [instead.get(name, name) for name in node.input]
        for value in graph.output:
            value.name = instead.get(value.name, value.name)
    made = replace(model, proto=proto, values={n: v for n, v in model.values.items() if n not in instead})
    _drop(proto, set(instead))
    return made


def _drop(proto: onnx.ModelProto, names: set[str]) -> None:
    for listed in (proto.graph.initializer, proto.graph.input, proto.graph.value_info):
        for index in range(len(listed) - 1, -1, -1):
            if listed[index].name in names:
                del listed[index]


# --- outputs that nothing reads -----------------------------------------------------------------------------------


def without_unread_outputs(model: Model) -> Model:
    """Leave out the optional outputs of nodes that nothing reads.

    Args:
        model: the model.

    Returns:
        The same without them; the model itself where all outputs are read or needed.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    uses = Counter[str]()
    for graph in graphs(proto.graph):
        uses.update(name for node in graph.node for name in node.input)
        uses.update(value.name for value in graph.output)
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    dropped = set[str]()
    for graph in graphs(proto.graph):
        for node in graph.node:
            is_optional = _optional_outputs(node, versions)
            for slot, name in enumerate(node.output):
                if name and not uses[name] and is_optional(slot):
                    node.output[slot] = ""
                    dropped.add(name)
            while len(node.output) > 1 and not node.output[-1]:
                del node.output[-1]
    if not dropped:
        return model
    _drop(proto, dropped)
    return replace(model, proto=proto)


def _optional_outputs(node: onnx.NodeProto, versions: dict[str, int]) -> Callable[[int], bool]:
    """Tells of the slot of an output whether a node may leave it out."""
    schema = _schema(node, versions)
    if schema is None:
        return lambda slot: False
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    return lambda slot: 0 < slot < len(schema.outputs) and schema.outputs[slot].option == optional


def _schema(node: onnx.NodeProto, versions: dict[str, int]) -> onnx.defs.OpSchema | None:
    """What ONNX says of the operator of a node; None where it is not ONNX's."""
    try:
        return onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return None
