"""Samples from the lines of a text file, through a tokenizer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.calibration.input_spec import InputSpec
from onnxprune.calibration.source import Request, Samples
from onnxprune.errors import UsageError
from onnxprune.system import read_file

# Characters of a line that a model could take in whole.
LONGEST_LINE = 1 << 22
FILE = "tokenizer.json"
# Lines that are held as tokens, before they are arrays.
AT_ONCE = 1024
# Most tokens of a line, where neither the model nor --sizes says how many.
LENGTH = 128
_PADDING = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")

# What an input is for, by a part of its name; token ids are what is left.
_ROLES: dict[str, Callable[[Any], list[int]]] = {
    "mask": lambda line: line.attention_mask,
    "type": lambda line: line.type_ids,
    "segment": lambda line: line.type_ids,
    "position": lambda line: list(range(len(line.ids))),
}


def from_text(path: Path, request: Request) -> Samples:
    """A sample per line that is not blank, cut to the model's length; shorter ones are padded."""
    values = {name: role_of(name) for name in request.wanted}
    ids = _ids(request, [name for name, value in values.items() if value is None])
    tokenizer = _tokenizer(path, request.source.tokenizer)
    fixed = ids.dims[1] if isinstance(ids.dims[1], int) else request.sizes.get(ids.dims[1])
    tokenizer.no_padding()
    tokenizer.enable_truncation(fixed or LENGTH)
    encoded = partial(_encoded, path, tokenizer, request.samples)
    if not fixed and not path.is_file():  # a pipe is read once
        encoded = partial(iter, list(encoded()))
    length = fixed or max((len(line.ids) for line in encoded()), default=0)
    pad = next((i for i in map(tokenizer.token_to_id, _PADDING) if i is not None), 0)
    for number, line in enumerate(encoded()):
        feed = {name: value(line) if value else line.ids for name, value in values.items()}
        yield (
            f"sample {number} of {path}",
            {name: _padded(row, length, pad if name == ids.name else 0) for name, row in feed.items()},
        )


def _encoded(path: Path, tokenizer: Any, samples: int) -> Iterator[Any]:
    """The first lines as tokens, some at a time."""
    lines = itertools.islice(lines_of(path), samples)
    while some := list(itertools.islice(lines, AT_ONCE)):
        yield from tokenizer.encode_batch(some)


def role_of(name: str) -> Callable[[Any], list[int]] | None:
    """What makes an input of tokens, by its name; None for the ids themselves."""
    return next((value for part, value in _ROLES.items() if part in name.lower()), None)


def _ids(request: Request, names: list[str]) -> InputSpec:
    """The one input for token ids.

    Raises:
        UsageError: there is none or several, or it does not have the axes batch and sequence.
    """
    wanted = [request.wanted[name] for name in names]
    if len(wanted) == 1 and len(wanted[0].dims) == 2 and wanted[0].dtype.kind in "iu":
        return wanted[0]
    raise UsageError(
        f"text does not fit the model's inputs {', '.join(map(str, request.wanted.values()))}",
        hint="a tokenizer gives token ids [batch, sequence], masks, types and positions; "
        "for other inputs give an .npz, or module:function",
    )


def _padded(row: list[int], length: int, pad: int) -> np.ndarray:
    return np.array([row + [pad] * (length - len(row))], np.int64)


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text that are not blank.

    Raises:
        UsageError: it is no text in UTF-8 (with or without a mark of the byte order), or has a line without an end.
    """
    try:
        if not path.is_file():
            yield from filter(None, map(str.strip, read_file(path).decode("utf-8-sig").splitlines()))
            return
        with path.open(encoding="utf-8-sig") as file:
            while line := file.readline(LONGEST_LINE):
                if len(line) == LONGEST_LINE:
                    raise UsageError(f"{path} has a line of more than {LONGEST_LINE:,} characters")
                if line := line.strip():
                    yield line
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a text in UTF-8: {error}") from error


def _tokenizer(path: Path, given: Any) -> Any:
    """The tokenizer that is given, or that lies beside the text.

    Raises:
        UsageError: there is none, it cannot be read, or `tokenizers` is missing.
    """
    file = Path(given) if given is not None else path.parent / FILE
    if not file.is_file():
        raise UsageError(
            f"no such file: {file}" if given is not None else f"text needs a tokenizer, and {file} does not exist",
            hint="give the model's with --tokenizer tokenizer.json",
        )
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UsageError("text needs the package tokenizers", hint="pip install 'onnxprune[text]'") from error
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:
        raise UsageError(
            f"{file} is no tokenizer: {error}", hint="it must be a tokenizer.json of Hugging Face's tokenizers"
        ) from error
