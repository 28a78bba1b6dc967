"""Paths that commands read and write: early checks of targets, text files, pipes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.errors import UsageError
from onnxprune.system import read_file, read_stream

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.rewriting.io_changes import RowMap

PIPE = "-"


def shown(name: str, pipe: str = "standard input") -> str:
    """What people call a source or a target."""
    return pipe if name == PIPE else name


def arrow(source: str, target: str) -> str:
    """The first line of an account: what was made into what."""
    return f"{shown(source)} -> {shown(target, 'standard output')}"


def load(source: str, shapes: Mapping[str, Sequence[int | None]] | None = None) -> Model:
    """Load a model from a path or from standard input.

    Args:
        source: what to load.
        shapes: of inputs that the file leaves open.
    """
    from onnxprune.model import load as load_model

    if source == PIPE:
        _refuse_terminal_input()
    return load_model(source, shapes=shapes)


def read_text(source: str) -> bytes:
    """The content of a small file, or of standard input.

    Raises:
        UsageError: it cannot be read.
    """
    if source == PIPE:
        _refuse_terminal_input()
        return read_stream(sys.stdin.buffer, "standard input")
    try:
        return read_file(Path(source))
    except FileNotFoundError as error:
        raise UsageError(f"no such file: {source}") from error
    except IsADirectoryError as error:
        raise UsageError(f"{source} is a directory, not a file") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from error


def _refuse_terminal_input() -> None:
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal", hint="name a file, or pipe one in")


def check_one_result(output: str | None, *, as_json: bool) -> None:
    """Refuse to write a model and a report to standard output."""
    if output == PIPE and as_json:
        raise UsageError("the model and the JSON cannot both go to standard output", hint="write the model to a file")


def check_one_pipe(*sources: str) -> None:
    """Refuse to read two things from standard input."""
    if sources.count(PIPE) > 1:
        raise UsageError("only one of the inputs can come from standard input", hint="name a file for the other")


def check_target(target: str, *, inputs: Sequence[str], force: bool, binary: bool = True) -> None:
    """Refuse, before any work, what cannot be written in the end.

    Args:
        target: a path, or "-".
        inputs: what is read, and so never overwritten.
        force: an existing file may be replaced.
        binary: the content must not go to a terminal.

    Raises:
        UsageError: the target is the input, exists, or cannot be written.
    """
    if target == PIPE:
        if binary and sys.stdout.isatty():
            raise UsageError("not writing a model to the terminal", hint="redirect it, or name a file with -o")
        return
    if not target or "\0" in target:
        raise UsageError(f"not a path: {target!r}")
    try:
        _check_path(Path(target), inputs, force)
    except OSError as error:  # a name too long, a folder that may not be entered
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from error


def check_kept(target: str) -> None:
    """Refuse, before any work, a file in which finished work cannot be kept; folders that lack are made later.

    Raises:
        UsageError: the path is a directory, or nothing can be written there.
    """
    path = Path(target)
    if not target or "\0" in target:
        raise UsageError(f"not a path: {target!r}")
    try:
        if path.is_dir():
            raise UsageError(f"cannot write {path}: it is a directory", hint="name a file in it")
        there = next(place for place in (path, *path.absolute().parents) if place.exists())
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from error
    if there != path and not there.is_dir():
        raise UsageError(f"cannot write {path}: {there} is no folder")
    if not os.access(there, os.W_OK):
        raise UsageError(f"cannot write {path}: {there} is not writable")


def check_output(source: Model, target: str, *, force: bool) -> None:
    """Refuse, before the long work, what only a loaded model tells: where the external data would go."""
    from onnxprune.model import check_target as check_files

    if target != PIPE and (not Path(target).exists() or Path(target).is_file()):
        check_files(source, Path(target), force=force)


def _check_path(path: Path, inputs: Sequence[str], force: bool) -> None:
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a directory", hint="name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: no such folder: {path.parent}", hint="create it first")
    if any(_same(path, source) for source in inputs):
        raise UsageError(f"{path} is the input, which is never overwritten", hint="choose another output")
    if not path.exists() or path.is_file():  # a device or a pipe is written to, not replaced
        if path.exists() and not force:
            raise UsageError(f"{path} exists", hint="overwrite it with --force, or choose another output")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise UsageError(f"cannot write {path}: the folder {path.parent} is not writable")


def _same(path: Path, source: str) -> bool:
    try:
        return source != PIPE and path.samefile(source)
    except (OSError, ValueError):
        return False


def check_folder(option: str, target: str, *, force: bool) -> None:
    """Refuse, before any work, a folder that several files cannot be written into.

    Args:
        option: that names it.
        target: its path.
        force: files that are in it may be replaced.
    """
    folder = Path(target)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{option}: {folder} is not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UsageError(f"{option}: {folder} is not empty", hint="write into it with --force")


def check_distinct(*targets: str | None) -> None:
    """Refuse to write two things to one place.

    Raises:
        UsageError: two targets are the same file.
    """
    places: dict[Path, str] = {}
    for target in targets:
        if target is None or target == PIPE:
            continue
        place = Path(target).absolute().resolve()
        if place in places:
            raise UsageError(f"two outputs cannot both be written to {target}", hint="name another file for one")
        places[place] = target


def row_map(model: str) -> str:
    """Where the new numbers of rows go, beside the model."""
    return f"{model}.rows.json"


def check_row_map(model: str, *, inputs: Sequence[str], force: bool) -> None:
    """Refuse, before any work, a place for the new numbers of rows where they cannot be written."""
    if model != PIPE:
        check_target(row_map(model), inputs=inputs, force=force)


def row_map_text(rows: Sequence[RowMap], model: str) -> dict[str, str]:
    """The file with the new numbers of rows that were kept by name, and its text; nothing where there are none."""
    from onnxprune.report import data

    if not rows or model == PIPE:
        return {}
    return {row_map(model): json.dumps(data.row_file(rows), indent=1) + "\n"}


@contextmanager
def staged(contents: Mapping[str, str | bytes]) -> Iterator[None]:
    """Write files that appear when all that is written meanwhile is there, or not at all.

    Args:
        contents: file -> its content.

    Raises:
        RunError: a disk is full.
        UsageError: a file cannot be written.
    """
    from onnxprune.system import replacing, write_failure

    with ExitStack() as stack:
        for target, content in contents.items():
            raw = content.encode() if isinstance(content, str) else content
            path = Path(target)
            try:
                if path.exists() and not path.is_file():  # a device or a pipe is written to, not replaced
                    path.write_bytes(raw)
                    continue
                (file,) = stack.enter_context(replacing(path))
                file.write(raw)
                file.flush()
            except OSError as error:
                raise write_failure(path, error) from error
        yield


def write_file(content: str | bytes, target: str) -> None:
    """Write a file whole or not at all."""
    with staged({target: content}):
        pass
