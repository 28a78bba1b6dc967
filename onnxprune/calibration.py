"""Calibration data: unlabelled inputs from files or from Python, in batches, checked against the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.runtime import dtype_of
from onnxprune.symbols import dims_of

Feeds = Mapping[str, np.ndarray]
BATCH = 32


def read(source: Any, model: Model, *, samples: int = 256, batch: int = BATCH) -> list[dict[str, np.ndarray]]:
    """Calibration inputs for `model`.

    Args:
        source: an .npz with one array per input (samples along axis 0), a folder of .npy files (one sample each, for
            a model with one input) or of `test_data_set_*/input_*.pb`, or in Python an iterable of feeds or an
            `onnxruntime.quantization.CalibrationDataReader`.
        model: what the inputs are for.
        samples: take at most so many.
        batch: samples in a run, where the model leaves the batch open.

    Returns:
        The feeds of every run, input name -> array.

    Raises:
        UsageError: the source cannot be read, or names, types or shapes do not fit the model.
    """
    inputs = _inputs(model)
    if isinstance(source, str | os.PathLike):
        runs: Iterable[Feeds] = _from_path(Path(source), inputs)
    elif hasattr(source, "get_next"):
        runs = iter(source.get_next, None)
    else:
        runs = source
    sizes = _batch_sizes(inputs, batch)
    found, taken = [], 0
    for run in runs:
        for part in _cut(_checked(run, inputs), inputs, sizes, samples - taken):
            taken += _count(part, inputs)
            found.append(part)
        if taken >= samples:
            break
    if not found:
        raise UsageError("there is no calibration sample", hint="the data holds fewer samples than one batch")
    return found


def _inputs(model: Model) -> dict[str, onnx.ValueInfoProto]:
    weights = model.initializers
    return {v.name: v for v in model.proto.graph.input if v.name not in weights}


def _batch_sizes(inputs: Mapping[str, onnx.ValueInfoProto], batch: int) -> int | None:
    """The size of axis 0 of a run; None if the inputs do not share one."""
    firsts = {dims[0] for v in inputs.values() if (dims := dims_of(v))}
    if len(firsts) != 1 or len(inputs) != sum(bool(dims_of(v)) for v in inputs.values()):
        return None
    first = firsts.pop()
    return first if isinstance(first, int) else batch


def _cut(
    run: dict[str, np.ndarray], inputs: Mapping[str, Any], size: int | None, most: int
) -> Iterator[dict[str, Any]]:
    """Runs of `size` samples; as it is where the inputs share no batch axis."""
    if size is None:
        yield run
        return
    total = min(len(next(iter(run.values()))), most)
    fixed = isinstance(dims_of(next(iter(inputs.values())))[0], int)
    for start in range(0, total, size):
        stop = min(start + size, total)
        if stop - start == size or not fixed:
            yield {name: value[start:stop] for name, value in run.items()}


def _count(run: Feeds, inputs: Mapping[str, Any]) -> int:
    value = next(iter(run.values()))
    return len(value) if value.ndim else 1


def _checked(run: Feeds, inputs: Mapping[str, onnx.ValueInfoProto]) -> dict[str, np.ndarray]:
    """The feeds in the model's types.

    Raises:
        UsageError: a name, type or shape does not fit.
    """
    missing, unknown = sorted(set(inputs) - set(run)), sorted(set(run) - set(inputs))
    if missing or (unknown and len(run) == len(inputs)):
        raise UsageError(
            f"calibration data: input {missing[0]!r} is missing" if missing else f"no input is called {unknown[0]!r}",
            hint=f"the model's inputs are {', '.join(map(repr, inputs))}; the data has {', '.join(map(repr, run))}",
        )
    checked = {}
    for name, info in inputs.items():
        value, dims = np.asarray(run[name]), dims_of(info)
        wanted = dtype_of(info.type.tensor_type.elem_type)
        if value.dtype.kind not in "fiub" or (wanted.kind in "iu" and value.dtype.kind == "f"):
            raise UsageError(f"calibration data: input {name!r} is {value.dtype}, the model wants {wanted}")
        fits = value.ndim == len(dims) and all(
            isinstance(d, str) or d == n for d, n in list(zip(dims, value.shape, strict=True))[1:]
        )
        if not fits:
            raise UsageError(f"calibration data: input {name!r} has shape {list(value.shape)}, the model wants {dims}")
        checked[name] = value.astype(wanted, copy=False)
    return checked


def _from_path(path: Path, inputs: Mapping[str, onnx.ValueInfoProto]) -> Iterator[Feeds]:
    if path.is_dir():
        yield from _from_folder(path, inputs)
        return
    if not path.exists():
        raise UsageError(f"no such file: {path}", hint="--data takes an .npz file or a folder")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names: Sequence[str] = [n for n in archive.files if n in inputs] or archive.files
            yield {name: archive[name] for name in names}
    except (ValueError, OSError, AttributeError) as error:
        raise UsageError(f"{path} is not an .npz file of arrays: {error}") from error


def _from_folder(folder: Path, inputs: Mapping[str, onnx.ValueInfoProto]) -> Iterator[Feeds]:
    sets = sorted(folder.glob("test_data_set_*"))
    for one in sets:
        values = [onnx.load_tensor(str(p)) for p in sorted(one.glob("input_*.pb"))]
        yield {v.name or name: numpy_helper.to_array(v) for v, name in zip(values, inputs, strict=False)}
    if sets:
        return
    files = sorted(folder.glob("*.npy"))
    if not files or len(inputs) != 1:
        raise UsageError(
            f"{folder} holds no calibration data for this model",
            hint="a folder holds test_data_set_*/input_*.pb, or .npy files for a model with one input",
        )
    name, info = next(iter(inputs.items()))
    for file in files:
        value = np.load(file, allow_pickle=False)
        yield {name: value if value.ndim == len(dims_of(info)) else value[None]}
