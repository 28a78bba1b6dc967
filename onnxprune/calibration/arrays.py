"""Samples from files of arrays: .npz, .npy, and the test data that comes with ONNX models."""

from __future__ import annotations

import io
import logging
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from onnxprune.calibration.input_spec import InputSpec
from onnxprune.calibration.source import Request, Samples
from onnxprune.calibration.stored_rows import mapped_array, unpacked_file
from onnxprune.errors import UsageError
from onnxprune.system import check_regular, read_file
from onnxprune.typing import Feeds

logger = logging.getLogger(__name__)

# Names that say nothing about what an array is.
_MADE_UP = re.compile(r"(arr_)?\d+")
# The name of an array that has none.
ALONE = ""
# Bytes of an array that is read whole; a larger one is mapped.
LARGEST_READ = 64 << 20
# What is raised for a file that is damaged, or something else, or holds pickled objects.
BROKEN = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


def from_file(path: Path, request: Request) -> Samples:
    """An .npz or .npy.

    An .npz holds one array per input, samples on axis 0, or for a model with one input one array per sample; an .npy
    holds the one input: a sample, or several on axis 0.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            stored = arrays_in(file, str(path))
            if list(stored) == [ALONE]:
                yield str(path), _sample(stored[ALONE](), request.only("an .npy file"))
                return
            names = [name for name in stored if name in request.wanted]
            if names or not _per_sample(list(stored), request):
                tell_ignored(path, [name for name in stored if names and name not in request.wanted])
                yield str(path), {name: stored[name]() for name in names or stored}
                return
            want = request.only("an .npz with one array per sample")
            for name, read in stored.items():
                yield f"{path}[{name!r}]", _sample(read(), want)
    except BROKEN as error:
        raise UsageError(
            f"{path} is not an {path.suffix or '.npz'} file of arrays: {error}", hint="np.savez writes one"
        ) from error


def arrays_in(file: BinaryIO, name: str) -> dict[str, Callable[[], np.ndarray]]:
    """Readers of the arrays in an .npz, by name, or of the one in an .npy.

    Args:
        file: the content.
        name: what messages call it.

    Raises:
        UsageError: there is no room to unpack an array.
        ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error: it is no such file.
    """
    is_archive, size = file.read(2) == b"PK", file.seek(0, os.SEEK_END)
    file.seek(0)
    if not is_archive:
        return {ALONE: lambda: _read(file, size, name, is_real=not isinstance(file, io.BytesIO))}
    archive = zipfile.ZipFile(file)

    def read(member: zipfile.ZipInfo) -> np.ndarray:
        with archive.open(member) as content:
            return _read(content, member.file_size, f"{name}[{member.filename!r}]", is_real=False)

    return {one.filename.removesuffix(".npy"): partial(read, one) for one in archive.infolist()}


def _read(file: IO[bytes], size: int, name: str, *, is_real: bool) -> np.ndarray:
    """An array of no more bytes than its file has, unpacked.

    A large one is mapped: where the file is no real one, which ends with this program, it is unpacked first.
    """
    if size > LARGEST_READ and not is_real:
        file, is_real = unpacked_file(file, size), True
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if header is None:
        raise ValueError(f"its arrays are of version {version}")
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    count = math.prod(shape)
    if count * dtype.itemsize > size:
        raise ValueError(f"an array of shape {list(shape)} in {size:,} bytes")
    if count * dtype.itemsize > LARGEST_READ:
        if os.fstat(file.fileno()).st_size < file.tell() + count * dtype.itemsize:
            raise EOFError(f"{name} ends in the middle of an array")
        return mapped_array(file, dtype, shape, offset=file.tell(), fortran=fortran)
    data = file.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise EOFError(f"{name} ends in the middle of an array")
    array = np.frombuffer(bytearray(data), dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def tell_ignored(data: Path | str, names: list[str]) -> None:
    """Say which arrays of some data are not used: labels, mostly."""
    if names:
        listed, are = ", ".join(map(repr, names[:3])), "is no input" if len(names) == 1 else "are no inputs"
        logger.warning("%s: %s %s of the model, and not used", data, listed, are)


def _per_sample(names: list[str], request: Request) -> bool:
    """Whether the names say nothing about inputs: numbers, or those that numpy makes up."""
    return len(request.wanted) == 1 and all(_MADE_UP.fullmatch(name) for name in names)


def _sample(value: np.ndarray, want: InputSpec) -> Feeds:
    return {want.name: value[None] if value.ndim == len(want.dims) - 1 else value}


def from_test_data(folder: Path, request: Request) -> Samples:
    """The inputs of one `test_data_set_N`: by name, or in the model's order where that is none of the model's."""
    feeds = {}
    for path, name in zip(_numbered(folder), request.wanted, strict=False):
        try:
            tensor = onnx.TensorProto()
            tensor.ParseFromString(read_file(path))
            feeds[tensor.name if tensor.name in request.wanted else name] = numpy_helper.to_array(tensor)
        except (DecodeError, ValueError, TypeError, OSError) as error:
            raise UsageError(f"{path} holds no tensor: {error}", hint="it must be a serialised TensorProto") from error
    yield str(folder), feeds


def _numbered(folder: Path) -> list[Path]:
    """input_2.pb before input_10.pb."""
    return sorted(folder.glob("input_*.pb"), key=lambda path: (len(path.name), path.name))
