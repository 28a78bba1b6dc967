"""The tensors of a model: all of them, how large each is, where its data lies, and reading it.

Data may lie in other files, and models come from strangers: every location is checked before it is opened.
Nothing here holds more than one tensor.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
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
from onnxprune.model.serialize import TYPED_DATA, Blob, Buffer

_CHUNK = 1 << 24
_SUB_BYTE_BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}


@dataclass(frozen=True)
class Region:
    """Where a tensor's external data lies."""

    path: Path
    offset: int
    length: int


# --- what is in a model -----------------------------------------------------------------------------------


def nodes(root: ModelProto | GraphProto) -> Iterator[NodeProto]:
    """Yields every node, those of subgraphs, of model-local functions and of training graphs included."""
    pending: list[Any] = [root]
    if isinstance(root, ModelProto):
        pending = [root.graph, *root.functions]
        pending += [graph for info in root.training_info for graph in (info.initialization, info.algorithm)]
    while pending:
        for node in pending.pop().node:
            yield node
            for attribute in node.attribute:
                pending.extend(_subgraphs(attribute))


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


def _subgraphs(attribute: AttributeProto) -> Iterable[GraphProto]:
    if attribute.type == AttributeProto.GRAPH:
        return (attribute.g,)
    return attribute.graphs if attribute.type == AttributeProto.GRAPHS else ()


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
    for graph in _subgraphs(attribute):
        yield from _stored(graph)


# --- one tensor -------------------------------------------------------------------------------------------


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


def resolve(location: str, folder: Path, tensor: str) -> Path:
    """Finds the file of external data, which must lie in the model's folder (models come from strangers)."""
    where = f"external data of tensor '{tensor}': location '{location}'"
    windows = PureWindowsPath(location)
    if not location or "\0" in location or "\\" in location:
        raise ModelError(f"{where} is not a relative POSIX path", hint="export the model again")
    if location.startswith("/") or windows.drive or windows.root:
        raise ModelError(f"{where} is absolute", hint="external data must lie next to the model")
    if ".." in PurePosixPath(location).parts:
        raise ModelError(f"{where} leaves the model's folder", hint="external data must lie next to the model")
    path = folder / location
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        hint = "keep the model and its data file together, under the names that they were written with"
        raise ModelError(f"{where}: no such file in {folder}", hint=hint) from error
    if not real.is_relative_to(folder.resolve()):
        raise ModelError(f"{where} is a link out of the model's folder", hint=f"copy the file itself to {path}")
    if not real.is_file():
        raise ModelError(f"{where} is not a regular file: {path}")
    return path


def locate(tensor: TensorProto, folder: Path | None, sizes: dict[str, tuple[Path, int]] | None = None) -> Region:
    """Finds and checks the external data of a tensor without reading it.

    Args:
        tensor: a tensor whose data is external.
        folder: what its location is relative to.
        sizes: files already found, by location; filled here, so that a file is looked at once.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(
            f"data of tensor '{tensor.name}' lies in file '{location}', but the model was given in memory",
            hint="load the model from its path, or say which folder the file is in",
        )
    sizes = {} if sizes is None else sizes
    if location not in sizes:
        path = resolve(location, folder, tensor.name)
        sizes[location] = path, path.stat().st_size
    path, size = sizes[location]
    needed = byte_size(tensor)
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or needed)
    except ValueError as error:
        raise ModelError(f"external data of tensor '{tensor.name}': offset or length is no number") from error
    if offset < 0 or length != needed:
        raise ModelError(
            f"external data of tensor '{tensor.name}': offset {offset}, length {length}, "
            f"but its shape {list(tensor.dims)} needs {needed} bytes"
        )
    if offset + length > size:
        raise _too_short(tensor, path, offset + length, size)
    return Region(path, offset, length)


def _too_short(tensor: TensorProto, path: Path, needed: int, found: int) -> ModelError:
    return ModelError(
        f"external data of tensor '{tensor.name}': {path} is too short ({found} bytes, needs {needed})",
        hint="the file is truncated or belongs to another model; copy it again",
    )


def region_blob(tensor: TensorProto, folder: Path | None) -> Blob:
    """The external data of a tensor, as it is on disk."""
    region = locate(tensor, folder)

    def pieces() -> Iterator[Buffer]:
        left = region.length
        try:
            with region.path.open("rb") as file:
                file.seek(region.offset)
                while left:
                    piece = file.read(min(left, _CHUNK))
                    if not piece:
                        raise _too_short(tensor, region.path, region.length, region.length - left)
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise ModelError(
                f"external data of tensor '{tensor.name}': cannot read {region.path}: {error.strerror}"
            ) from error

    return Blob(region.length, pieces)


def read(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    """The values of a tensor, from the proto or from disk, as a read-only array that nothing else holds."""
    try:
        if not is_external(tensor):
            array = numpy_helper.to_array(tensor)
        elif item_bits(tensor.data_type) >= 8:
            region = locate(tensor, folder)
            data = np.fromfile(region.path, np.uint8, region.length, offset=region.offset)
            array = data.view(helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tuple(tensor.dims))
        else:  # packed elements: onnx unpacks them
            raw = b"".join(region_blob(tensor, folder).pieces())
            array = numpy_helper.to_array(TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=raw))
    except OSError as error:
        raise ModelError(f"external data of tensor '{tensor.name}' cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"tensor '{tensor.name}' of shape {list(tensor.dims)} cannot be read: {error}") from error
    array.flags.writeable = False
    return array


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
