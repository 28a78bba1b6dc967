"""Samples as NVIDIA's Polygraphy saves them (`polygraphy run --save-inputs`).

A list of feeds, or one feed, each an object from input names to arrays; an array is an object that holds, in base64,
what `np.save` writes.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.calibration.arrays import BROKEN, arrays_in
from onnxprune.calibration.source import Request, Samples
from onnxprune.errors import UsageError
from onnxprune.system import read_file


def from_json(path: Path, request: Request) -> Samples:
    """Every feed of a file."""
    try:
        content = json.loads(read_file(path))
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    feeds = content if isinstance(content, list) else [content]
    for number, feed in enumerate(feeds):
        where = f"{path}[{number}]"
        if not isinstance(feed, dict) or "polygraphy_class" in feed:
            raise UsageError(
                f"{where} is no feed: an object from input names to arrays is expected",
                hint="`polygraphy run --save-inputs` writes a list of them; saved outputs (RunResults) are no inputs",
            )
        yield where, {name: _array(value, f"{where}[{name!r}]") for name, value in feed.items()}


def _array(value: Any, where: str) -> np.ndarray:
    text = value.get("array") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise UsageError(
            f"{where} is no array in Polygraphy's encoding",
            hint="save numpy arrays, not torch tensors (polygraphy: --data-loader-backend-module numpy)",
        )
    try:
        stored = io.BytesIO(base64.b64decode(text, validate=True))
        # Early versions compressed each array into an archive of its own.
        return next(iter(arrays_in(stored, where).values()))()
    except (*BROKEN, StopIteration) as error:
        raise UsageError(
            f"{where} holds no array: {error}", hint="it must be what np.save writes, in base64"
        ) from error
