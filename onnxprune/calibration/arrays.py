"""Samples from files of arrays: .npz, .npy, and the test data that comes with ONNX models."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from onnxprune.calibration.request import Feeds, Request, Samples
from onnxprune.calibration.wanted import Wanted
from onnxprune.errors import UsageError

# What numpy raises for a file that is damaged, or something else, or holds pickled objects.
BROKEN = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


def from_file(path: Path, request: Request) -> Samples:
    """An .npz or .npy.

    An .npz holds one array per input, samples on axis 0, or for a model with one input one array per sample; an .npy
    holds the one input: a sample, or several on axis 0.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            yield str(path), _sample(loaded, request.only("an .npy file"))
            return
        with loaded as archive:
            names = [name for name in archive.files if name in request.wanted]
            if names or not _per_sample(archive.files, request):
                yield str(path), {name: archive[name] for name in names or archive.files}
                return
            want = request.only("an .npz with one array per sample")
            for name in archive.files:
                yield f"{path}[{name!r}]", _sample(archive[name], want)
    except BROKEN as error:
        raise UsageError(
            f"{path} is not an {path.suffix or '.npz'} file of arrays: {error}", hint="np.savez writes one"
        ) from error


def _per_sample(names: list[str], request: Request) -> bool:
    """Whether the names say nothing about inputs: several for one input, or those that numpy makes up."""
    return len(request.wanted) == 1 and (len(names) > 1 or names == ["arr_0"])


def _sample(value: np.ndarray, want: Wanted) -> Feeds:
    return {want.name: value[None] if value.ndim == len(want.dims) - 1 else value}


def from_test_data(folder: Path, request: Request) -> Samples:
    """The inputs of one `test_data_set_N`: by name, or in the model's order where that is none of the model's."""
    feeds = {}
    for path, name in zip(_numbered(folder), request.wanted, strict=False):
        try:
            tensor = onnx.load_tensor(str(path))
            feeds[tensor.name if tensor.name in request.wanted else name] = numpy_helper.to_array(tensor)
        except (DecodeError, ValueError, TypeError, OSError) as error:
            raise UsageError(f"{path} holds no tensor: {error}", hint="it must be a serialised TensorProto") from error
    yield str(folder), feeds


def _numbered(folder: Path) -> list[Path]:
    """input_2.pb before input_10.pb."""
    return sorted(folder.glob("input_*.pb"), key=lambda path: (len(path.name), path.name))
