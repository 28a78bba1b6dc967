"""Repair of files that ONNX Runtime accepts and ONNX's checker refuses, where there is only one way to do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    defs,
    helper,
    shape_inference,
)

from onnxprune.errors import UsageError
from onnxprune.model.model import Model
from onnxprune.model.negative_sizes import refuse_negative_sizes
from onnxprune.model.node_order import order, scopes, unsorted
from onnxprune.model.protos import MICROSOFT, without_weights
from onnxprune.model.rank_of_inputs import shape_by_consumers
from onnxprune.model.shapes import contrib
from onnxprune.model.shapes.polynomials import Dims, symbol
from onnxprune.model.shapes.symbols import dims_of, sizes_of
from onnxprune.model.tensors import nodes
from onnxprune.system import killable

# Runs of shape inference, between which outputs of ONNX Runtime's own operators become known.
_MOST_ROUNDS = 64
# The IR version from which on an initializer may be no graph input.
_FIRST_UNLISTED = 4
# Input -> its sizes, as the caller gave them; a None leaves an axis as it is.
Shapes = Mapping[str, Sequence[int | None]]


@dataclass(frozen=True)
class Mend:
    """A flaw of a file, and its repair.

    Attributes:
        name: what the flaw is called.
        wrong: what is wrong; the report says it with what was done.
        is_needed: whether a model may have the flaw.
        put_right: changes the model, and says what of it was mended; what is in doubt stays as it is.
    """

    name: str
    wrong: str
    is_needed: Callable[[ModelProto, Shapes], bool]
    put_right: Callable[[ModelProto, Shapes], list[str]]


def mended(proto: ModelProto, shapes: Shapes | None = None) -> tuple[ModelProto, tuple[str, ...]]:
    """The model without its flaws, and what was mended; a model without flaws is returned as it is.

    Args:
        proto: the model; never changed.
        shapes: sizes of inputs that the file leaves open.

    Raises:
        UsageError: no input is called like one of `shapes`, or it has another shape.
    """
    shapes = dict(shapes or {})
    _check_names(proto, shapes)
    notes: list[str] = []
    copied = False
    for mend in MENDS:
        if mend.is_needed(proto, shapes):
            if not copied:
                proto, copied = _copy(proto), True
            done = mend.put_right(proto, shapes)
            notes += [f"{mend.wrong}: {', '.join(done)}"] if done else []
    return proto, tuple(notes)


def _copy(proto: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(proto)
    return copy


def _check_names(proto: ModelProto, shapes: Shapes) -> None:
    known = [value.name for value in _given(proto)]
    for name in shapes:
        if name not in known:
            raise UsageError(f"no input is called {name!r}", hint=f"known: {', '.join(known)}")


def _given(proto: ModelProto) -> Iterator[ValueInfoProto]:
    """The inputs that a caller gives."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    return (value for value in proto.graph.input if value.name not in stored)


# --- the order of nodes -----------------------------------------------------------------------------------


def _is_unsorted(proto: ModelProto, _: Shapes) -> bool:
    return any(unsorted(scope.node) for _, scope in scopes(proto))


def _sort(proto: ModelProto, _: Shapes) -> list[str]:
    done = []
    for place, scope in list(scopes(proto)):
        if unsorted(scope.node):
            found, rest = order(scope.node)
            if not rest:
                copies = [NodeProto.FromString(node.SerializeToString()) for node in scope.node]
                del scope.node[:]
                scope.node.extend(copies[i] for i in found)
                done.append(f"those of {place} are sorted")
    return done


# --- imports of operator sets -----------------------------------------------------------------------------

# Domains that ONNX Runtime imports by itself. The version of ONNX's own operators is in doubt where none is given.
_ONE_VERSION = frozenset((MICROSOFT, "com.microsoft.nchwc", "com.microsoft.experimental", "com.ms.internal.nhwc"))
_VERSIONED = frozenset(("ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"))


def _missing_imports(proto: ModelProto) -> Iterator[tuple[Any, str, int]]:
    """(the model or a function, a known domain that it uses and does not import, the version)."""
    for scope, root in ((proto, proto.graph), *((function, function) for function in proto.functions)):
        imported = {opset.domain for opset in scope.opset_import}
        used: dict[str, set[str]] = {}
        for node in nodes(root):
            used.setdefault(node.domain, set()).add(node.op_type)
        for domain, operators in used.items():
            if domain not in imported and domain in _ONE_VERSION | _VERSIONED:
                yield scope, domain, _version(domain, operators)


def _version(domain: str, operators: Iterable[str]) -> int:
    """The first version that has the operators as they are today, which ONNX Runtime runs."""
    known = [defs.get_schema(op, domain).since_version for op in operators if defs.has(op, domain)]
    return max(known, default=1)


def _lacks_imports(proto: ModelProto, _: Shapes) -> bool:
    return any(True for _ in _missing_imports(proto))


def _import(proto: ModelProto, _: Shapes) -> list[str]:
    missing = list(_missing_imports(proto))
    for scope, domain, version in missing:
        scope.opset_import.add(domain=domain, version=version)
    return [f"{domain} {version} is imported" for _, domain, version in missing]


def _by_alias(proto: ModelProto) -> list[NodeProto]:
    """Nodes of ONNX's own domain by its other name, where only its empty name is imported."""
    found = []
    for scope, root in ((proto, proto.graph), *((function, function) for function in proto.functions)):
        if "ai.onnx" not in {opset.domain for opset in scope.opset_import}:
            found += [node for node in nodes(root) if node.domain == "ai.onnx"]
    return found


def _is_by_alias(proto: ModelProto, _: Shapes) -> bool:
    return bool(_by_alias(proto))


def _drop_alias(proto: ModelProto, _: Shapes) -> list[str]:
    found = _by_alias(proto)
    for node in found:
        node.domain = ""
    return [f"that of {len(found)} is empty"]


# --- types and shapes of inputs and outputs ---------------------------------------------------------------


def is_incomplete(value: ValueInfoProto) -> bool:
    """Whether a tensor is declared without its type or its shape."""
    kind = value.type.WhichOneof("value")
    if kind is None:
        return True
    return kind == "tensor_type" and not (value.type.tensor_type.elem_type and value.type.tensor_type.HasField("shape"))


def _lacks_shape(value: ValueInfoProto) -> bool:
    return value.type.WhichOneof("value") == "tensor_type" and not value.type.tensor_type.HasField("shape")


def _inputs_lack_shapes(proto: ModelProto, _: Shapes) -> bool:
    return any(map(_lacks_shape, proto.graph.input))


def _give_shapes(proto: ModelProto, shapes: Shapes) -> list[str]:
    """Give inputs the shape that the caller gives, that the stored weight has, or that its consumers ask for."""
    stored = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    done = []
    for value in filter(_lacks_shape, proto.graph.input):
        dims: Sequence[int | None] | None = shapes.get(value.name, stored.get(value.name))
        if dims is None:
            dims = shape_by_consumers(proto.graph, value.name)
        if dims is not None:
            _put_shape(value, dims)
            done.append(f"'{value.name}' is {_bracketed(dims)}")
    return done


def _put_shape(value: ValueInfoProto, dims: Iterable[int | None]) -> None:
    shape = value.type.tensor_type.shape
    shape.SetInParent()
    for size in dims:
        dim = shape.dim.add()
        if size is not None:
            dim.dim_value = size


def _open_sizes(proto: ModelProto, shapes: Shapes) -> dict[str, int]:
    """Numbers that the caller gives to symbolic axes of inputs that have a shape.

    Raises:
        UsageError: an input has another shape.
    """
    shaped = {value.name for value in proto.graph.input if not _lacks_shape(value)}
    return sizes_of(proto.graph, {name: shape for name, shape in shapes.items() if name in shaped})


def _are_open(proto: ModelProto, shapes: Shapes) -> bool:
    return bool(shapes and _open_sizes(proto, shapes))


def _fix_sizes(proto: ModelProto, shapes: Shapes) -> list[str]:
    """Put numbers in the place of the symbolic axes, wherever the graph declares them."""
    numbers, graph = _open_sizes(proto, shapes), proto.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim, called in zip(value.type.tensor_type.shape.dim, dims_of(value), strict=True):
            if called in numbers:
                dim.dim_value = numbers[str(called)]
    return [f"'{value.name}' is {_bracketed(dims_of(value))}" for value in graph.input if value.name in shapes]


def _bracketed(dims: Iterable[int | str | None]) -> str:
    return f"[{', '.join('?' if d is None else str(d) for d in dims)}]"


def _outputs_are_incomplete(proto: ModelProto, _: Shapes) -> bool:
    return any(map(is_incomplete, proto.graph.output))


def _type_outputs(proto: ModelProto, _: Shapes) -> list[str]:
    """Give outputs the type and the shape that shape inference finds."""
    done = []
    found = _inferred(proto)
    for value in filter(is_incomplete, proto.graph.output):
        known = found.get(value.name)
        if known is None or known.WhichOneof("value") is None:
            continue
        own, new = value.type.tensor_type, known.tensor_type
        if value.type.WhichOneof("value") is None:
            value.type.CopyFrom(known)
        elif known.HasField("tensor_type"):
            own.elem_type = own.elem_type or new.elem_type
            if new.HasField("shape") and not own.HasField("shape"):
                own.shape.CopyFrom(new.shape)
        done.append(f"'{value.name}' is {_shown(value)}")
    return done


def _shown(value: ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return str(value.type.WhichOneof("value")).removesuffix("_type")
    kind = value.type.tensor_type
    name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    if not kind.HasField("shape"):
        return f"{name} of a shape that only a run tells"
    dims = (str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim)
    return f"{name} [{', '.join(dims)}]"


def _inferred(proto: ModelProto) -> dict[str, TypeProto]:
    """What shape inference says of the tensors of the graph."""
    light = without_weights(proto)
    refuse_negative_sizes(Model(light))
    for value in list(light.graph.output):
        if value.type.WhichOneof("value") is None:
            light.graph.output.remove(value)
    known: dict[str, TypeProto] = {}
    for _ in range(_MOST_ROUNDS):
        try:
            with killable():
                graph = shape_inference.infer_shapes(light, data_prop=True).graph
        except (shape_inference.InferenceError, ValueError, RuntimeError):
            graph = light.graph
        declared = (*graph.value_info, *graph.input, *graph.output)
        known = {t.name: helper.make_tensor_type_proto(t.data_type, t.dims) for t in graph.initializer}
        known |= {value.name: value.type for value in declared if not is_incomplete(value)}
        new = _behind_runtime_operators(proto, known)
        if not new:
            break
        light.graph.value_info.extend(new)
    return known


def _behind_runtime_operators(proto: ModelProto, known: Mapping[str, TypeProto]) -> list[ValueInfoProto]:
    """The outputs of operators that only ONNX Runtime has, as far as their inputs are known, and they are not."""
    found = []
    for node in proto.graph.node:
        inputs = [name for name in node.input if name]
        if node.domain != MICROSOFT or node.output[0] in known or any(name not in known for name in inputs):
            continue
        kinds = {name: known[name].tensor_type for name in inputs}
        dims = {name: _dims(name, kind) for name, kind in kinds.items()}
        told = contrib.infer_contrib(node, dims, {name: kind.elem_type for name, kind in kinds.items()}, {})
        for name, (dtype, sizes) in zip(node.output, told, strict=False):
            if name and sizes is not None:
                plain = [int(n) if isinstance(n, int) else None for n in sizes]
                found.append(helper.make_tensor_value_info(name, dtype, plain))
    return found


def _dims(name: str, kind: TypeProto.Tensor) -> Dims:
    """The sizes of a declared tensor; a symbol for each that is open."""
    return tuple(
        d.dim_value if d.HasField("dim_value") else symbol(f"{name}[{axis}]") for axis, d in enumerate(kind.shape.dim)
    )


# --- names and initializers -------------------------------------------------------------------------------


def _nameless(proto: ModelProto) -> Iterator[GraphProto]:
    return (scope for _, scope in scopes(proto) if isinstance(scope, GraphProto) and not scope.name)


def _lack_names(proto: ModelProto, _: Shapes) -> bool:
    return any(True for _ in _nameless(proto))


def _name_graphs(proto: ModelProto, _: Shapes) -> list[str]:
    found = list(_nameless(proto))
    for graph in found:
        graph.name = "graph"
    return [f"{len(found)} {'is' if len(found) == 1 else 'are'} called 'graph'"]


def _repeated(graph: GraphProto) -> list[int]:
    """The places of initializers that say again what one before them says."""
    first: dict[str, TensorProto] = {}
    return [i for i, tensor in enumerate(graph.initializer) if first.setdefault(tensor.name, tensor) is not tensor]


def _are_repeated(proto: ModelProto, _: Shapes) -> bool:
    return bool(_repeated(proto.graph))


def _drop_repeated(proto: ModelProto, _: Shapes) -> list[str]:
    """Drop initializers that are equal to an earlier one of their name; which of unequal ones is meant is in doubt."""
    stored = proto.graph.initializer
    places = _repeated(proto.graph)
    first = {tensor.name: tensor for tensor in reversed(stored)}
    if any(stored[place] != first[stored[place].name] for place in places):
        return []
    names = dict.fromkeys(stored[place].name for place in places)
    for place in reversed(places):
        del stored[place]
    return [f"the first '{name}' stays" for name in names]


def _unlisted(proto: ModelProto) -> list[TensorProto]:
    """The initializers that are no graph inputs, where the IR version wants them to be."""
    listed = {value.name for value in proto.graph.input}
    return [t for t in proto.graph.initializer if t.name not in listed] if proto.ir_version < _FIRST_UNLISTED else []


def _are_unlisted(proto: ModelProto, _: Shapes) -> bool:
    return bool(_unlisted(proto))


def _list_initializers(proto: ModelProto, _: Shapes) -> list[str]:
    missing = _unlisted(proto)
    proto.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in missing)
    return [f"{len(missing)} {'is listed' if len(missing) == 1 else 'are listed'}"]


MENDS = (
    Mend("names", "graphs had no name", _lack_names, _name_graphs),
    Mend("repeated", "initializers were stored twice", _are_repeated, _drop_repeated),
    Mend("listed", "initializers were no graph inputs, as IR version 3 wants", _are_unlisted, _list_initializers),
    Mend("sorted", "nodes were not in the order in which they run", _is_unsorted, _sort),
    Mend("aliases", "nodes were of domain 'ai.onnx', which is not imported", _is_by_alias, _drop_alias),
    Mend("opsets", "operator sets were not imported", _lacks_imports, _import),
    Mend("inputs", "inputs had no shape", _inputs_lack_shapes, _give_shapes),
    Mend("sizes", "sizes of inputs were open", _are_open, _fix_sizes),
    Mend("outputs", "outputs had no type or shape", _outputs_are_incomplete, _type_outputs),
)
