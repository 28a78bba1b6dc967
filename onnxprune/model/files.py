"""Loading a model from anything, and saving it without loss."""

from __future__ import annotations

import mmap
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from onnxprune.errors import ModelError, UsageError
from onnxprune.model import foreign, serialize, validate
from onnxprune.model.mend import mended
from onnxprune.model.model import Model
from onnxprune.model.serialize import PROTOBUF_LIMIT, DataFile
from onnxprune.model.tensors import byte_size, tensors
from onnxprune.system import read_file, read_stream, replacing, same_file, write_failure

_SOURCES = "give a path, bytes, a ModelProto, an onnx_ir Model, what torch.onnx.export returns, or a graphsurgeon Graph"
_INLINE_BYTES = 1024  # tensors below this stay in the model file: sizes and indices that shape inference wants


def load(
    source: Any,
    *,
    check: bool = True,
    folder: str | os.PathLike[str] | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
) -> Model:
    """Load a model.

    Args:
        source: a path, "-" for standard input, bytes, a binary stream, an `onnx.ModelProto` (not copied unless it is
            mended), an `onnx_graphsurgeon.Graph`, an `onnx_ir.Model`, a `torch.onnx.ONNXProgram`, or a `Model`
            (returned as it is).
        check: refuse what ONNX's checker refuses, and external data that is missing, short or out of bounds; what can
            be put right in one way only is mended first (see `model/mend.py`).
        folder: where external data is, if not next to the path.
        shapes: sizes of inputs that the file leaves open, in part or whole; None for an axis that stays as it is.

    Returns:
        The model; external data is read when it is needed.

    Raises:
        UsageError: the source cannot be read, or an input has another shape.
        ModelError: it is not a valid model.
    """
    if isinstance(source, Model):
        if not shapes:
            return source
        proto, notes = mended(source.proto, shapes)
        return replace(source, proto=proto, mended=(*source.mended, *notes))
    path = _path(source) if isinstance(source, str | os.PathLike) and source != "-" else None
    proto = _parse_file(path) if path else _parse_object(source)
    where = Path(folder) if folder is not None else path.parent if path else foreign.folder_of(source)
    model = Model(proto, where, path)
    if not proto.HasField("graph") or not proto.opset_import:
        lacking = "opset_import" if proto.HasField("graph") else "graph"
        raise ModelError(f"{model.name} is not an ONNX model: it has no {lacking}", hint="export it again")
    if check:
        try:
            validate.check_harmless(proto, model.name)
            proto, notes = mended(proto, shapes)
            validate.check_model(proto, model.folder, model.name)
        except (UnicodeDecodeError, TypeError) as error:  # upb hands out text that is not UTF-8 as it is
            raise ModelError(f"{model.name}: a name in it is not UTF-8 text", hint="the file is damaged") from error
        if notes:
            return replace(model, proto=proto, mended=notes)
    return model


def _path(text: str | os.PathLike[str]) -> Path:
    if not os.fspath(text) or "\0" in os.fspath(text):
        raise UsageError(f"not a path: {os.fspath(text)!r}")
    return Path(text)


def _parse_object(source: Any) -> ModelProto:
    if isinstance(source, ModelProto):
        return source
    if (converted := foreign.proto_of(source)) is not None:
        return converted
    name = "standard input" if isinstance(source, str) else "the stream" if hasattr(source, "read") else "the data"
    if isinstance(source, str):
        source = sys.stdin.buffer
    data = read_stream(source, name) if source is sys.stdin.buffer else source
    data = data.read() if hasattr(data, "read") else data
    if not isinstance(data, bytes | bytearray | memoryview):
        raise UsageError(f"cannot load a model from {type(source).__name__} (of {type(data).__name__})", hint=_SOURCES)
    return _parse(data, name)


def _parse_file(path: Path) -> ModelProto:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return _parse(read_file(path), str(path))
        # Parsing from the map needs no second copy of the file in memory.
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            return _parse(view, str(path))
    except FileNotFoundError as error:
        raise UsageError(f"no such file: {path}") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a directory, not a model", hint="name the .onnx file in it") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def _parse(data: bytes | bytearray | memoryview, name: str) -> ModelProto:
    if not len(data):
        raise ModelError(f"{name} is empty", hint="the model was not written, or the command before the pipe failed")
    if bytes(data[:40]).startswith(b"version https://git-lfs"):
        raise ModelError(f"{name} is a Git LFS pointer, not a model", hint="fetch the file itself: git lfs pull")
    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        hint = "the file is damaged, truncated, or of another format; export or download it again"
        if len(data) > PROTOBUF_LIMIT:
            hint = "no ONNX file can be larger than 2 GiB; export it with external data"
        raise ModelError(f"{name} is not an ONNX model ({len(data)} bytes that do not parse)", hint=hint) from error
    return proto


def save(
    model: Model,
    target: str | os.PathLike[str] | BinaryIO,
    *,
    force: bool = False,
    external: bool | str | None = None,
) -> None:
    """Writes a model; a file appears whole or not at all, and nothing but data that moved is changed.

    Args:
        model: what to write.
        target: a path, "-" for standard output, or a binary stream.
        force: overwrite an existing file; never the file that the model came from, nor its data.
        external: put the weights into `<target>.data`, or a file of this name beside it. By default as the model
            came, or if it exceeds 2 GiB.

    Raises:
        UsageError: the target exists, is the input, or cannot be written.
        RunError: the disk is full.
        ModelError: the model is too large for one file, or data that it needs cannot be read.
    """
    stream: Any = sys.stdout.buffer if target == "-" else target
    path = None if hasattr(stream, "write") else _path(stream)
    try:
        if path is None:
            _write_inline(model, stream)
            stream.flush()
        elif path.exists() and not path.is_file() and not path.is_dir():  # a device or a pipe is not replaced
            with path.open("wb") as file:
                _write_inline(model, file)
        else:
            _write_files(model, path, force, external)
    except OSError as error:
        name = "standard output" if target == "-" else "the stream" if path is None else path
        raise write_failure(name, error) from error


def _write_files(model: Model, path: Path, force: bool, external: bool | str | None) -> None:
    targets = check_target(model, path, force=force, external=external)
    with replacing(*targets) as files:
        if len(targets) > 1:
            _write_external(model, files[1], DataFile(files[0], targets[0].name))
        else:
            _write_inline(model, files[0])


def check_target(model: Model, path: Path, *, force: bool = False, external: bool | str | None = None) -> list[Path]:
    """Check the files that saving `model` to `path` writes: the data file, if there is one, then the model.

    Args:
        model: the model.
        path: where it is to be saved.
        force: existing files may be overwritten.
        external: write the weights to a file of their own, perhaps of this name; None for as the model has it, or as
            its size demands.

    Returns:
        Paths, the model last.

    Raises:
        UsageError: one of them is the input, exists without `force`, or cannot be written.
    """
    if external is None:
        external = model.external or model.nbytes > PROTOBUF_LIMIT - (64 << 20)  # some room for the graph
    beside = external if isinstance(external, str) else path.name + ".data"
    targets = [path.with_name(beside), path] if external else [path]
    folder = targets[0].parent
    if not folder.is_dir():
        raise UsageError(f"cannot write {targets[-1]}: no such folder: {folder}", hint="create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {targets[-1]}: the folder {folder} is not writable")
    sources = {model.path} if model.path else set()
    if model.folder is not None:
        entries = (entry for tensor in model.externals for entry in tensor.external_data)
        sources |= {model.folder / entry.value for entry in entries if entry.key == "location"}
    for target in targets:
        if target.is_dir():
            raise UsageError(f"cannot write {target}: it is a directory", hint="name a file in it")
        if any(same_file(target, source) for source in sources):
            raise UsageError(f"{target} is the input, which is never overwritten", hint="choose another output")
        if target.exists() and not force:
            raise UsageError(
                f"{target} exists", hint="overwrite it with --force (force=True), or choose another output"
            )
    return targets


def file_size(model: Model) -> int:
    """Count the bytes that a model takes when it is saved.

    Returns:
        Bytes, of both files with external data; then at most.
    """
    padding = sum(map(DataFile.padding, map(byte_size, tensors(model.proto)))) if model.external else 0
    return model.blob().size + padding


def _write_inline(model: Model, file: BinaryIO) -> None:
    blob = model.blob()
    if blob.size > PROTOBUF_LIMIT:
        hint = "save it to a path, with external data"
        raise ModelError(f"{model.name} takes {blob.size} bytes, and one file holds at most 2 GiB", hint=hint)
    file.writelines(blob.pieces())


def _write_external(model: Model, file: BinaryIO, data_file: DataFile) -> None:
    rest = model.with_data_placed(data_file.add)
    entries = []
    for tensor in model.proto.graph.initializer:
        data = model.data(tensor, raw=byte_size(tensor) >= _INLINE_BYTES)
        if data is None or data.size < _INLINE_BYTES:
            entries.append(serialize.tensor_blob(tensor, data))
            continue
        moved = serialize.without_data(tensor)
        data_file.add(moved, data)
        entries.append(serialize.tensor_blob(moved, None))
    file.writelines(serialize.model_blob(rest, entries).pieces())


def to_proto(model: Model) -> ModelProto:
    """Copy a model with all data in memory.

    Returns:
        A message that shares nothing with the model.

    Raises:
        ModelError: it takes more than the 2 GiB of a message.
    """
    blob = model.blob()
    if blob.size > PROTOBUF_LIMIT:
        hint = "save it to a path, with external data"
        raise ModelError(f"{model.name} takes {blob.size} bytes, too much for one ModelProto (2 GiB)", hint=hint)
    return ModelProto.FromString(b"".join(blob.pieces()))


def to_graph(model: Model) -> Any:
    """Convert a model to graphsurgeon.

    graphsurgeon has no place for metadata_props, most doc strings, the domain, the model version and
    quantisation annotations: they are lost, here and when such a graph is loaded.

    Returns:
        An `onnx_graphsurgeon.Graph`.
    """
    return foreign.graph_of(to_proto(model))


def same_kind(model: Model, source: Any) -> Any:
    """A model as the kind of object that a source is.

    Args:
        model: the model.
        source: what another model was loaded from.

    Returns:
        A Model for a Model, a graphsurgeon Graph for a Graph, an onnx_ir Model for such a Model, else a ModelProto.
    """
    return model if isinstance(source, Model) else foreign.like(to_proto(model), source)
