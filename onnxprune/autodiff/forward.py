"""The training copy of a model: one batch shape, one precision, operators that have rules, and every shape measured.

The deployed model is never touched: the copy is brought to a recent version of ONNX, functions and decided branches
are written out, and half-precision numbers become float32. Shapes and types come from one run with every tensor as an
output, so no rule needs arithmetic on shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.autodiff.builder import GraphBuilder, Shape, Value
from onnxprune.autodiff.gpu_only import without_gpu_operators
from onnxprune.autodiff.lowering.registry import find_lowering
from onnxprune.autodiff.parameters import default_parameters
from onnxprune.autodiff.registry import find_vjp, has_zero_gradient
from onnxprune.autodiff.standard import converted, written_out
from onnxprune.autodiff.straight_line import body_weights, fixed_tensors, hoist, names_read, straightened
from onnxprune.errors import ModelError
from onnxprune.model import Model, inlined
from onnxprune.model.protos import SMALL, graphs, keep
from onnxprune.runtime import Session
from onnxprune.typing import Array

# Functions hold branches and loops, which hold functions, a few levels deep.
_ROUNDS = 4
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
# Attributes that hold an element type.
_TYPE_ATTRIBUTES = frozenset(("dtype", "to", "output_dtype", "stash_type", "softmax_precision"))


@dataclass(eq=False)
class Forward:
    """A model laid out for differentiation.

    Attributes:
        graph: its nodes and the constants among its tensors.
        parameters: name -> elements of the initializers to differentiate by, as float32 or float64.
        inputs: graph inputs by name.
        outputs: graph outputs by name.
    """

    graph: GraphBuilder
    parameters: Mapping[str, Array]
    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]


def lay_out(model: Model, feeds: Mapping[str, Array], parameters: Iterable[str] | None = None) -> Forward:
    """Make the training copy of a model at the batch shape of `feeds`.

    Args:
        model: any model.
        feeds: name -> array for every graph input.
        parameters: float initializers to differentiate by; those that look like weights if None.

    Raises:
        ModelError: an operator cannot be brought to a recent version of ONNX.
        RunError: the model does not run on these inputs.
    """
    fed = {name: single(np.asarray(value)) for name, value in feeds.items()}
    proto, arrays = modern(model, fed)
    for _ in range(_ROUNDS):  # functions hold branches, and branches functions
        before = len(proto.graph.node)
        proto = straightened(proto, arrays, lambda graph: {**fed, **_run_all(graph, arrays, fed)})
        proto = without_functions(proto, arrays, fed, is_known=_is_known)
        if len(proto.graph.node) == before:
            break
    nodes = [node for graph in graphs(proto.graph) for node in graph.node]
    sparse = {s.values.name for s in model.proto.graph.sparse_initializer}  # dense gradients would fill them up
    trained = {name: array for name, array in arrays.items() if name not in sparse}
    chosen = default_parameters(nodes, trained) if parameters is None else list(parameters)
    unknown = [name for name in chosen if name not in arrays or arrays[name].dtype.kind != "f"]
    if unknown:
        raise ModelError(f"the model has no float initializer {unknown[0]!r}", hint="name initializers of the model")
    return _measured(proto, arrays, fed, {name: arrays[name] for name in chosen})


def modern(model: Model, feeds: Mapping[str, Array]) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Bring a model to a recent version of ONNX and to single precision, with its constants apart.

    Args:
        model: any model.
        feeds: name -> array for graph inputs of known shape; may be empty.

    Returns:
        A graph without initializers, and the elements of the initializers and Constant nodes by name.

    Raises:
        ModelError: an operator cannot be brought to a recent version.
    """
    proto, arrays = _separated(inlined(model))
    proto = _with_weights_declared(proto, arrays, feeds, converted)
    _widen(proto.graph)
    without_gpu_operators(proto, arrays)
    return proto, arrays


def without_functions(
    proto: onnx.ModelProto,
    arrays: dict[str, Array],
    feeds: Mapping[str, Array],
    *,
    is_known: Callable[[onnx.NodeProto], bool],
) -> onnx.ModelProto:
    """Replace operators that `is_known` refuses by the functions that ONNX defines them by; `arrays` gets constants.

    Args:
        proto: a graph as `modern` returns it.
        arrays: elements of its constants by name.
        feeds: name -> array for graph inputs of known shape; may be empty.
        is_known: whether a node may stay.

    Returns:
        The graph, in which operators without a function stay as they are.
    """
    return _with_weights_declared(proto, arrays, feeds, partial(written_out, is_known=is_known))


def _is_known(node: onnx.NodeProto) -> bool:
    """Whether a node is differentiated, lowered, or ends gradients."""
    known = find_vjp(node.domain, node.op_type) or find_lowering(node.domain, node.op_type)
    return known is not None or has_zero_gradient(node)


def _with_weights_declared(
    proto: onnx.ModelProto,
    arrays: dict[str, Array],
    feeds: Mapping[str, Array],
    change: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> onnx.ModelProto:
    """Change a graph by a function of ONNX that wants types: small arrays as initializers, the others as inputs."""
    graph = proto.graph
    for value in graph.input:
        if value.name in feeds:
            array = feeds[value.name]
            value.CopyFrom(helper.make_tensor_value_info(value.name, _elem_type(array), array.shape))
    for name, array in arrays.items():
        graph.input.append(helper.make_tensor_value_info(name, _elem_type(array), array.shape))
        if array.size <= SMALL:
            graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
    changed = change(proto)
    keep(changed.graph.input, lambda value: value.name not in arrays)
    arrays.update((t.name, numpy_helper.to_array(t)) for t in changed.graph.initializer if t.name not in arrays)
    del changed.graph.initializer[:]
    for node in changed.graph.node:
        if node.op_type == "Constant" and not node.domain:
            arrays[node.output[0]] = single(_constant(Model(changed), node))
    keep(changed.graph.node, lambda node: node.op_type != "Constant" or bool(node.domain))
    return changed


# --- weights apart from the graph --------------------------------------------------------------------------


def _separated(model: Model) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The graph with its initializers as inputs, and their elements."""
    proto = onnx.ModelProto()
    source = model.proto
    proto.ir_version = max(source.ir_version, 8)  # older files list initializers as inputs
    proto.opset_import.extend(source.opset_import)
    graph = proto.graph
    graph.name = source.graph.name or "graph"
    arrays: dict[str, Array] = {}
    for tensor in source.graph.initializer:
        arrays[tensor.name] = single(model.array(tensor))
    for sparse in source.graph.sparse_initializer:
        arrays[sparse.values.name] = single(model.array(sparse.values.name))
    for node in source.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            arrays[node.output[0]] = single(_constant(model, node))
        else:
            graph.node.add().CopyFrom(node)
    inner = body_weights(source.graph)
    arrays.update((name, single(model.array(weight.tensor))) for name, weight in inner.items())
    hoist(graph, inner)
    graph.input.extend(value for value in source.graph.input if value.name not in arrays)
    graph.output.extend(source.graph.output)
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    return proto, arrays


def _constant(model: Model, node: onnx.NodeProto) -> Array:
    if not node.attribute:  # ONNX's inliner drops attributes that a function leaves to their defaults
        raise ModelError(f"Constant {node.name or node.output[0]!r} has no value")
    attribute = node.attribute[0]
    if attribute.name == "value":
        return model.array(attribute.t)
    if attribute.name == "sparse_value":
        raise ModelError(f"Constant {node.name!r} is sparse", hint="make its value dense")
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return np.asarray(helper.get_attribute_value(attribute), kinds.get(attribute.name))


def single(array: Array) -> Array:
    """Turn half-precision numbers into float32; leave other arrays as they are."""
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


def _widen(graph: onnx.GraphProto) -> None:
    """Replace half precision by float32 in everything that a graph declares."""
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _HALF:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _HALF:
                attribute.i = TensorProto.FLOAT
            elif attribute.HasField("t") and attribute.t.data_type in _HALF:
                attribute.t.CopyFrom(numpy_helper.from_array(single(numpy_helper.to_array(attribute.t))))
            for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                for tensor in body.initializer:
                    if tensor.data_type in _HALF:
                        tensor.CopyFrom(numpy_helper.from_array(single(numpy_helper.to_array(tensor)), tensor.name))
                _widen(body)


# --- runs --------------------------------------------------------------------------------------------------


def _run_all(proto: onnx.ModelProto, arrays: Mapping[str, Array], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor that the nodes of a graph make; those of types that numpy lacks (4 bits) by way of float32."""
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    graph = probe.graph
    del graph.output[:]
    names = list(dict.fromkeys(o for node in graph.node for o in node.output if o))
    graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    used = set(names_read(graph.node))
    given = {name: array for name, array in arrays.items() if name in used}
    for name, array in given.items():
        if _is_plain(array) and array.size > SMALL:  # sizes must be known where the runtime infers shapes
            graph.input.append(helper.make_tensor_value_info(name, _elem_type(array), array.shape))
        else:
            graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
    fed = {value.name: given.get(value.name, feeds.get(value.name)) for value in graph.input}
    missing = [name for name, array in fed.items() if array is None]
    if missing:
        raise ModelError(f"graph input {missing[0]!r} is not fed", hint="feed every input of the model")
    inputs = {name: array for name, array in fed.items() if array is not None}
    with Session(Model(probe), threads=1, optimised=False) as session:
        narrow = session.narrow
        if not narrow:
            return _results(session, inputs, names)
    keep(graph.output, lambda value: value.name not in narrow)
    casts = {name: f"{name}/as_float" for name in narrow}
    for name, cast in casts.items():
        graph.node.append(helper.make_node("Cast", [name], [cast], to=TensorProto.FLOAT))
        graph.output.append(helper.make_empty_tensor_value_info(cast))
    with Session(Model(probe), threads=1, optimised=False) as session:
        made = _results(session, inputs, [casts.get(name, name) for name in names])
    kinds = {name: helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(kind)) for name, kind in narrow.items()}
    return {name: made[casts[name]].astype(kinds[name]) if name in narrow else made[name] for name in names}


def _results(session: Session, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    fed = {name: array for name, array in inputs.items() if name in session.inputs}
    return dict(zip(names, session.run(fed, names), strict=True))


def _is_plain(array: Array) -> bool:
    """Whether numpy itself has the type: the runtime takes no others from outside."""
    return array.dtype.isbuiltin == 1


def _elem_type(array: Array) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def _measured(
    proto: onnx.ModelProto, arrays: dict[str, Array], feeds: Mapping[str, Array], parameters: Mapping[str, Array]
) -> Forward:
    """Run once, keep all shapes and the values of tensors that depend on no parameter and no input, and lower."""
    results = _run_all(proto, arrays, feeds)
    opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    graph = GraphBuilder([*results, *arrays, *feeds], prefix="training", opset=opset)
    graph.constants.update((name, array) for name, array in arrays.items() if name not in parameters)
    for name, array in (*feeds.items(), *arrays.items(), *results.items()):
        if isinstance(array, np.ndarray):
            graph.value(name, array.shape, array.dtype)
    values = graph.values
    for name in fixed_tensors(proto.graph.node, {k: v for k, v in arrays.items() if k not in parameters}):
        if name in results and isinstance(results[name], np.ndarray):
            graph.constants[name] = results[name]
    for node in proto.graph.node:
        if all(o in graph.constants for o in node.output if o) and not _makes_output(node, proto.graph):
            continue
        _append(graph, node)
    names = [value.name for value in proto.graph.output]
    outputs = {name: values[name] for name in names if name in values}
    return Forward(graph, parameters, {n: values[n] for n in feeds}, outputs)


def _makes_output(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    made = set(node.output)
    return any(value.name in made for value in graph.output)


def _append(graph: GraphBuilder, node: onnx.NodeProto) -> None:
    """Add a node, or the nodes that it stands for."""
    lower = find_lowering(node.domain, node.op_type)
    inputs = [graph.values.get(i) for i in node.input]
    outputs = [graph.values.get(o) for o in node.output]
    if lower is None:
        graph.nodes.append(node)
        return
    results = lower(graph, node, inputs, outputs)
    if results is None:
        graph.nodes.append(node)
        return
    for name, result in zip(node.output, results, strict=False):
        if name and result is not None:
            graph.nodes.append(helper.make_node("Identity", [result.name], [name]))


__all__ = ["Forward", "Shape", "lay_out"]
