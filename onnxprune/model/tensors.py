"""The tensors of a model: all of them, how large each is, and whether it holds its data."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    helper,
    numpy_helper,
)

from onnxprune.errors import ModelError
from onnxprune.model.protos import bodies, bodies_in
from onnxprune.model.serialize import TYPED_DATA, Buffer

_SUB_BYTE_BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}


def nodes(root: ModelProto | GraphProto) -> Iterator[NodeProto]:
    """Yields every node, those of subgraphs, of model-local functions and of training graphs included."""
    pending: list[Any] = [root]
    if isinstance(root, ModelProto):
        pending = [root.graph, *root.functions]
        pending += [graph for info in root.training_info for graph in (info.initialization, info.algorithm)]
    while pending:
        for node in pending.pop().node:
            yield node
            pending.extend(bodies(node))


def tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Yields every tensor: initializers first, then those in attributes, subgraphs, functions, training."""
    graphs = [proto.graph]
    graphs += [graph for info in proto.training_info for graph in (info.initialization, info.algorithm)]
    for graph in graphs:
        yield from _stored(graph)
    for function in proto.functions:
        for attribute in function.attribute_proto:
            yield from _in_attribute(attribute)
    for node in nodes(proto):
        for attribute in node.attribute:
            yield from _in_attribute(attribute)


def _stored(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from _of_sparse(sparse)


def _of_sparse(sparse: SparseTensorProto) -> tuple[TensorProto, TensorProto]:
    return sparse.values, sparse.indices


def _in_attribute(attribute: AttributeProto) -> Iterator[TensorProto]:
    kind = attribute.type
    if kind == AttributeProto.TENSOR:
        yield attribute.t
    elif kind == AttributeProto.TENSORS:
        yield from attribute.tensors
    elif kind == AttributeProto.SPARSE_TENSOR:
        yield from _of_sparse(attribute.sparse_tensor)
    elif kind == AttributeProto.SPARSE_TENSORS:
        for sparse in attribute.sparse_tensors:
            yield from _of_sparse(sparse)
    for graph in bodies_in(attribute):
        yield from _stored(graph)


def is_external(tensor: TensorProto) -> bool:
    """Whether the tensor's data lies in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


@functools.cache
def item_bits(data_type: int) -> int:
    """Bits that one element takes in raw data."""
    try:
        name = TensorProto.DataType.Name(data_type)
        return _SUB_BYTE_BITS.get(name) or 8 * helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except (KeyError, ValueError) as error:
        raise ModelError(f"data type {data_type} is unknown to the installed onnx", hint="upgrade onnx") from error


def byte_size(tensor: TensorProto) -> int:
    """Size of a tensor's data as raw bytes, from its shape and type alone."""
    if tensor.data_type == TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"tensor '{tensor.name}' has a negative dimension: {list(tensor.dims)}")
    try:
        return -(-math.prod(tensor.dims) * item_bits(tensor.data_type) // 8)
    except ModelError as error:
        raise ModelError(f"tensor '{tensor.name}': {error.message}", hint=error.hint) from error


def check_stored(tensor: TensorProto) -> None:
    """Refuses a tensor that does not hold as much data as its shape and type ask for."""
    needed = byte_size(tensor)
    if tensor.HasField("segment"):
        raise ModelError(f"tensor '{tensor.name}' is stored in segments, which no runtime supports")
    if tensor.HasField("raw_data"):
        unit, found = "bytes", len(tensor.raw_data)
    else:
        unit, found = "values", sum(len(getattr(tensor, name)) for name in TYPED_DATA)
        needed = _typed_count(tensor)
    if found != needed:
        what = f"{found} {unit}" if found else "no data"
        raise ModelError(
            f"tensor '{tensor.name}' holds {what}, its shape {list(tensor.dims)} needs {needed}",
            hint="the file is damaged or was truncated; export it again",
        )


def _typed_count(tensor: TensorProto) -> int:
    """How many values a typed data field must hold: one per element, two for complex, one per byte of packed types."""
    bits = 8 if tensor.data_type == TensorProto.STRING else item_bits(tensor.data_type)
    per_element = 2 if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128) else 1
    return -(-math.prod(tensor.dims) * min(bits, 8) // 8) * per_element


def to_buffer(array: np.ndarray, tensor: TensorProto) -> Buffer:
    """The raw bytes of an array that is to be the data of a tensor; refused where the two do not fit."""
    expected = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if array.shape != tuple(tensor.dims) or array.dtype != expected:
        raise ModelError(
            f"tensor '{tensor.name}' is {expected} {list(tensor.dims)}, but its data is "
            f"{array.dtype} {list(array.shape)}"
        )
    if item_bits(tensor.data_type) < 8:
        return bytes(numpy_helper.from_array(array).raw_data)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def dtype_of(elem_type: int) -> np.dtype[Any]:
    """The numpy type of an ONNX element type."""
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except KeyError as error:
        raise ModelError(f"element type {elem_type} is unknown to the installed onnx") from error
