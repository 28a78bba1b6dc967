"""Data of tensors that lies in other files: where, and reading it.

Models come from strangers: every location is checked before it is opened. Nothing here holds more than one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from onnx import (
    TensorProto,
    helper,
    numpy_helper,
)

from onnxprune.errors import ModelError
from onnxprune.model.serialize import Blob, Buffer
from onnxprune.model.tensors import byte_size, is_external, item_bits

_CHUNK = 1 << 24


@dataclass(frozen=True)
class Region:
    """Where a tensor's external data lies."""

    path: Path
    offset: int
    length: int


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


def read_tensor(tensor: TensorProto, folder: Path | None) -> np.ndarray:
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
