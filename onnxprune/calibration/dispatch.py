"""From what the user names as data (a path, arrays, a function) to the reader of that kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.calibration import arrays, images, json_lines, objects, polygraphy, script, text
from onnxprune.calibration.source import Request, Samples, Source
from onnxprune.errors import UsageError
from onnxprune.model.shapes.infer import infer
from onnxprune.runtime import random_feeds

Reader = Callable[[Path, Request], Samples]

RANDOM = "random"
_FILES: dict[str, Reader] = {
    ".npz": arrays.from_file,
    ".npy": arrays.from_file,
    ".json": polygraphy.from_json,
    ".jsonl": json_lines.from_json_lines,
    ".txt": text.from_text,
}
# What a folder may hold, in the order in which it is looked for; JSON also lies beside images and arrays.
_IN_FOLDERS: tuple[tuple[str, Reader], ...] = (
    ("test_data_set_*", arrays.from_test_data),
    ("*.npz", arrays.from_file),
    ("*.npy", arrays.from_file),
)
_JSON = ("*.json", polygraphy.from_json)
_KINDS = (
    "--data takes an .npz or .npy, a Polygraphy .json, a .jsonl of token ids, a .txt with --tokenizer, a folder of "
    "images, of arrays or of test_data_set_*/input_*.pb, module:function, or random"
)


def is_code(data: Any) -> bool:
    """Whether the user's own code makes the feeds: Python objects, or `module:function` if no file is called so."""
    if not isinstance(data, str | os.PathLike):
        return True
    return isinstance(data, str) and script.NAME.fullmatch(data) is not None and not Path(data).exists()


def is_random(source: Any) -> bool:
    """Whether random numbers are asked for, by a `Source` or what could be in one.

    Returns:
        True for "random".
    """
    data = source.data if isinstance(source, Source) else source
    return isinstance(data, str) and data == RANDOM


def check_exists(data: Any) -> None:
    """Refuse a path of data where nothing is; code, and random numbers, are no paths.

    Args:
        data: what could be in a `Source`.

    Raises:
        UsageError: nothing is there.
    """
    if not is_code(data) and not is_random(data) and not Path(data).exists():
        raise UsageError(f"no such file: {data}", hint=_KINDS)


def samples_of(request: Request) -> Samples:
    """The samples of whatever was given.

    Raises:
        UsageError: it is nothing that can be read, or an option is for another kind of source.
    """
    data = request.source.data
    if not isinstance(data, str | os.PathLike):
        _no_options(request, "data from Python")
        is_function = callable(data) and not isinstance(data, Iterable)
        return script.from_callable(data, request) if is_function else objects.from_object(data, request)
    if is_random(data):
        _no_options(request, "random data")
        return _random(request)
    if is_code(data):
        _no_options(request, str(data))
        return script.from_function(str(data), request)
    path = Path(data)
    check_exists(path)
    return _from_folder(path, request) if path.is_dir() else _from_file(path, request)


def _from_file(path: Path, request: Request) -> Samples:
    reader = text.from_text if request.source.tokenizer is not None else _FILES.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path} is no calibration data: {path.suffix or 'no suffix'} says nothing", hint=_KINDS)
    if reader is not text.from_text:
        _no_options(request, str(path))
    elif request.source.preprocess is not None:
        raise UsageError("--preprocess is for images, not for text")
    return reader(path, request)


def _from_folder(folder: Path, request: Request) -> Samples:
    has_images = bool(images.files_of(folder))
    if has_images and request.source.preprocess is not None:
        return images.from_images(folder, request)
    for pattern, reader in (*_IN_FOLDERS, *(() if has_images else (_JSON,))):
        if found := sorted(folder.glob(pattern)):
            _no_options(request, f"{folder}/{pattern}")
            return (sample for path in found for sample in reader(path, request))
    if not has_images:
        raise UsageError(f"{folder} holds no calibration data", hint=_KINDS)
    if request.source.tokenizer is not None:
        raise UsageError("--tokenizer is for text, not for images")
    return images.from_images(folder, request)


def _no_options(request: Request, what: str) -> None:
    for option, value in (("preprocess", request.source.preprocess), ("tokenizer", request.source.tokenizer)):
        if value is not None:
            kind = "a folder of images" if option == "preprocess" else "a text file"
            raise UsageError(f"--{option} is for {kind}, not for {what}")


def _random(request: Request) -> Samples:
    """Random inputs: they say how much passes through a network, but not where what matters to it passes."""
    static, rng = infer(request.model, request.sizes), np.random.default_rng(0)
    for number in range(request.samples):
        yield f"random feed {number}", random_feeds(request.model, static, rng)
