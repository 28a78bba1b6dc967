"""A training run on disk: a file that is there whole, or as it was before."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.system import replacing, write_failure
from onnxprune.typing import Array

FORMAT = "onnxprune-checkpoint"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """What is needed to go on with a run.

    Attributes:
        arrays: group ("weights", "best", ...) -> name -> array.
        numbers: everything else, as JSON takes it.
    """

    arrays: Mapping[str, Mapping[str, Array]]
    numbers: Mapping[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint, belongs_to: str) -> None:
    """Replace the file by this checkpoint.

    Args:
        path: the file.
        checkpoint: what to keep.
        belongs_to: digest of the model, the data and the options.

    Raises:
        RunError: the disk is full; the former file is as it was.
        UsageError: the file cannot be written.
    """
    names = [(group, name) for group, arrays in checkpoint.arrays.items() for name in arrays]
    about = {"format": FORMAT, "version": VERSION, "belongs_to": belongs_to, "names": names, **checkpoint.numbers}
    content = io.BytesIO()
    arrays = {str(i): checkpoint.arrays[group][name] for i, (group, name) in enumerate(names)}
    np.savez(content, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    try:
        with replacing(path) as (file,):
            file.write(content.getbuffer())
    except OSError as error:
        raise write_failure(path, error) from error


def read_checkpoint(path: Path, belongs_to: str) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises:
        UsageError: the file is no checkpoint, or one of another run.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(bytes(stored["about"]))
            if about["format"] != FORMAT or about["version"] != VERSION:
                raise ValueError(f"version {about['version']} of {about['format']}")
            arrays: dict[str, dict[str, Array]] = {}
            for i, (group, name) in enumerate(about["names"]):
                arrays.setdefault(group, {})[name] = stored[str(i)]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged, or another file"
        raise UsageError(f"{path} is no checkpoint: {reason}", hint="remove it to begin again") from error
    if about["belongs_to"] != belongs_to:
        raise UsageError(
            f"{path} is a checkpoint of another run",
            hint="model, data and options must be those that it began with; remove it to begin again",
        )
    return Checkpoint(arrays, about)
