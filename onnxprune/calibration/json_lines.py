"""Samples from the lines of a JSONL file: token ids and what goes with them, padded to one length."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.calibration.input_spec import InputSpec, wanted_by
from onnxprune.calibration.source import Request, Samples
from onnxprune.calibration.text import lines_of, role_of
from onnxprune.errors import UsageError

# What stands in labels where there is no token: no class.
NO_LABEL = -1


@dataclass(frozen=True)
class _Tokens:
    """Token ids, and what a tokenizer says of tokens that belong together."""

    ids: list[int]

    @property
    def attention_mask(self) -> list[int]:
        return [1] * len(self.ids)

    @property
    def type_ids(self) -> list[int]:
        return [0] * len(self.ids)


def from_json_lines(path: Path, request: Request) -> Samples:
    """A sample per line: an object from inputs to numbers, or for a model that only wants token ids, these.

    Rows of numbers are cut to the model's length, or padded to it (to that of the longest, where the model leaves it
    open): inputs with zeros, labels with -1. Masks, types and positions that a line lacks are made for its tokens.

    Raises:
        UsageError: a line is no JSON, or no sample of the model.
    """
    rows = {name: spec for name, spec in request.wanted.items() if len(spec.dims) == 2}
    samples: Callable[[], Iterator[dict[str, np.ndarray]]] = partial(_samples, path, request)
    dims = dict.fromkeys(spec.dims[1] for spec in rows.values())
    known = {dim: dim if isinstance(dim, int) else request.sizes.get(dim, 0) for dim in dims}
    fixed = next(filter(None, known.values()), 0)
    if rows and not fixed and not path.is_file():  # a pipe is read once
        samples = partial(iter, list(samples()))
    lengths = (len(feed[name]) for feed in samples() for name in rows.keys() & feed.keys()) if not fixed else ()
    length = fixed or max(lengths, default=0)
    labels = request.wanted.keys() - wanted_by(request.model).keys()
    for number, feed in enumerate(samples()):
        padded = {
            name: _padded(value, length, NO_LABEL if name in labels else 0) if name in rows else value
            for name, value in feed.items()
        }
        yield f"line {number + 1} of {path}", {name: value[None] for name, value in padded.items()}


def _padded(row: np.ndarray, length: int, value: int) -> np.ndarray:
    return np.concatenate([row[:length], np.full(max(0, length - len(row)), value, row.dtype)])


def _samples(path: Path, request: Request) -> Iterator[dict[str, np.ndarray]]:
    """What every line says, as arrays, with what it lacks and its tokens tell."""
    roles = {name: role_of(name) for name in wanted_by(request.model)}
    ids = [name for name, role in roles.items() if role is None]
    for number, text in enumerate(itertools.islice(lines_of(path), request.samples), 1):
        try:
            said = json.loads(text)
            if isinstance(said, list):
                said = {request.only("a line without names").name if len(ids) != 1 else ids[0]: said}
            if not isinstance(said, dict):
                raise ValueError(f"it is {text[:20]!r}, neither an object nor a list")
            found = {name: _array(said[name], spec) for name, spec in request.wanted.items() if name in said}
            _check_lengths(found, ids, [name for name, role in roles.items() if role is not None])
        except (ValueError, TypeError, RecursionError) as error:
            raise UsageError(
                f"line {number} of {path} is no sample: {error}",
                hint='a line is an object like {"input_ids": [5, 8, 13]}, or for a model with one input the list',
            ) from error
        tokens = _Tokens(list(found[ids[0]])) if len(ids) == 1 and ids[0] in found else None
        for name, role in roles.items():
            if name not in found and role is not None and tokens is not None:
                found[name] = np.array(role(tokens), np.int64)
        yield found


def _array(value: Any, spec: InputSpec) -> np.ndarray:
    """Numbers of one axis less than the model's input has.

    Raises:
        ValueError: they are no numbers, none, or of other axes.
    """
    try:
        array = np.array(value)
    except ValueError:
        raise ValueError(f"the lists in {spec.name!r} differ in length") from None
    if not array.size:
        raise ValueError(f"{spec.name!r} is empty")
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{spec.name!r} holds what is no number, or one of more than 64 bits")
    if array.ndim != len(spec.dims) - 1:
        raise ValueError(f"{spec.name!r} is nested {array.ndim} deep, the model wants {len(spec.dims) - 1}")
    return array


def _check_lengths(found: Mapping[str, np.ndarray], ids: Sequence[str], describing: Sequence[str]) -> None:
    """Refuse a mask, types or positions that are not as many as the tokens: padding would hide that.

    Raises:
        ValueError: they are more or fewer.
    """
    for name in describing if len(ids) == 1 else ():
        if name in found and ids[0] in found and found[name].shape != found[ids[0]].shape:
            raise ValueError(f"{name!r} holds {found[name].size} numbers, {ids[0]!r} {found[ids[0]].size}")
