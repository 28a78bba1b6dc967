"""Writing a model: the wire format with streamed tensors, and files of external data.

Data comes as a `Blob`, a size that is known beforehand and pieces that are made when they are asked for, so
that no model is ever serialised in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from onnxprune.errors import ModelError

Buffer = bytes | memoryview

PROTOBUF_LIMIT = 2**31 - 1  # no protobuf message may be larger
TYPED_DATA = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


@dataclass(frozen=True)
class Blob:
    """Bytes of a known size that are made on demand."""

    size: int
    pieces: Callable[[], Iterable[Buffer]]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _opening(message: Any, field: str, size: int) -> bytes:
    """What stands in front of a length-delimited field."""
    number = message.DESCRIPTOR.fields_by_name[field].number
    return _varint(number << 3 | 2) + _varint(size)


def _around(message: Any, field: str) -> tuple[bytes, bytes]:
    """Serialises everything before and after one field, which is not touched."""
    if len(UnknownFieldSet(message)):  # of a newer onnx: only a full copy keeps what we know nothing of
        rest = type(message)()
        rest.CopyFrom(message)
        rest.ClearField(field)
        return rest.SerializeToString(), b""
    number = message.DESCRIPTOR.fields_by_name[field].number
    before, after = type(message)(), type(message)()
    for descriptor, value in message.ListFields():
        part = before if descriptor.number < number else after
        if descriptor.number == number:
            continue
        if hasattr(value, "MergeFrom"):  # messages and repeated fields
            getattr(part, descriptor.name).MergeFrom(value)
        else:
            setattr(part, descriptor.name, value)
    return before.SerializeToString(), after.SerializeToString()


def tensor_blob(tensor: TensorProto, data: Blob | None) -> Blob:
    """A serialised tensor: as it is, or with its data (wherever that was) replaced by raw data."""
    if data is None:
        return Blob(tensor.ByteSize(), lambda: (tensor.SerializeToString(),))
    head = without_data(tensor).SerializeToString() + _opening(tensor, "raw_data", data.size)
    return Blob(len(head) + data.size, lambda: itertools.chain((head,), data.pieces()))


def without_data(tensor: TensorProto) -> TensorProto:
    """A copy of a tensor that says everything but where its data is."""
    bare = TensorProto()
    stored = {"raw_data", "external_data", "data_location", *TYPED_DATA}
    for descriptor, value in tensor.ListFields():
        if descriptor.name in stored:
            continue
        if hasattr(value, "MergeFrom"):
            getattr(bare, descriptor.name).MergeFrom(value)
        else:
            setattr(bare, descriptor.name, value)
    return bare


def model_blob(proto: ModelProto, initializers: Sequence[Blob]) -> Blob:
    """A serialised model whose initializers are replaced by these serialised tensors.

    Fields come in the canonical order, so that an unchanged model is written byte for byte as protobuf would,
    but with no second copy of the weights in memory and several times faster.
    """
    head, tail = _around(proto, "graph")
    graph_head, graph_tail = _around(proto.graph, "initializer")
    openings = [_opening(proto.graph, "initializer", blob.size) for blob in initializers]
    size = len(graph_head) + len(graph_tail)
    size += sum(map(len, openings)) + sum(blob.size for blob in initializers)
    opening = _opening(proto, "graph", size)

    def pieces() -> Iterator[Buffer]:
        yield head + opening + graph_head
        for prefix, blob in zip(openings, initializers, strict=True):
            yield prefix
            yield from blob.pieces()
        yield graph_tail + tail

    return Blob(len(head) + len(opening) + size + len(tail), pieces)


# --- files ------------------------------------------------------------------------------------------------


class DataFile:
    """The data file of a model that is being written: an offset for each tensor, in order."""

    # Data of a mebibyte and more starts on a page, so that runtimes can map it; less on a cache line.
    LARGE, PAGE, LINE = 1 << 20, 4096, 64

    def __init__(self, file: BinaryIO, location: str) -> None:
        self._file, self._location, self._end = file, location, 0

    @classmethod
    def padding(cls, size: int) -> int:
        """Bytes that may stand in front of data of this size, at most."""
        return (cls.PAGE if size >= cls.LARGE else cls.LINE) - 1

    def add(self, tensor: TensorProto, data: Blob) -> None:
        """Writes the data and makes the tensor (which has none) refer to it."""
        alignment = self.padding(data.size) + 1
        offset = -(-self._end // alignment) * alignment
        self._file.write(bytes(offset - self._end))
        if sum(self._file.write(piece) for piece in data.pieces()) != data.size:
            raise ModelError(f"the data of tensor '{tensor.name}' does not fit its shape {list(tensor.dims)}")
        self._end = offset + data.size
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._location), ("offset", offset), ("length", data.size)):
            tensor.external_data.add(key=key, value=str(value))
