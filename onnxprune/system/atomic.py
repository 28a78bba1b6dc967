"""Writing files that appear whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from onnxprune.errors import OnnxPruneError, RunError, UsageError


@contextmanager
def replacing(*targets: Path) -> Iterator[list[BinaryIO]]:
    """Open temporary files that take the places of the targets when the block ends well; otherwise none remains.

    Args:
        targets: the files to write. The last one refers to the others: it never stands beside files that it does not
            belong to.

    Yields:
        The open temporary files, one per target.

    Raises:
        OSError: a file cannot be written.
    """
    token = os.urandom(4).hex()
    temporary = [target.with_name(f".{target.name[:200]}.{token}.tmp") for target in targets]
    placed: list[Path] = []
    try:
        with ExitStack() as stack:
            files: list[BinaryIO] = [stack.enter_context(path.open("xb")) for path in temporary]
            for file, target in zip(files, targets, strict=True):
                _lock(file)
                _remove_abandoned(target)
            yield files
        if len(targets) > 1:
            targets[-1].unlink(missing_ok=True)
        for path, target in zip(temporary, targets, strict=True):
            if not target.exists():
                placed.append(target)
            path.replace(target)
    except BaseException:
        for target in placed:
            target.unlink(missing_ok=True)
        raise
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


def _lock(file: BinaryIO) -> bool:
    """Mark a temporary file as in use, until it is closed or the process dies; whether that was possible."""
    try:
        import fcntl
    except ImportError:  # Windows does not remove what is open
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_abandoned(target: Path) -> None:
    """Remove the temporary files of runs that were killed while they wrote `target`."""
    token = "[0-9a-f]" * 8
    for path in target.parent.glob(f".{glob.escape(target.name[:200])}.{token}.tmp"):
        with suppress(OSError), path.open("rb") as file:
            if _lock(file):
                path.unlink()


def write_failure(target: str | Path, error: OSError) -> OnnxPruneError:
    """Say in the user's words why a file could not be written.

    Args:
        target: the file.
        error: what the system said.

    Returns:
        A `RunError` where the machine is at fault (a full disk, a reader that went away), else a `UsageError`.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return RunError(f"disk full while writing {target}", hint="free some space, or write to another disk")
    reason = error.strerror or str(error)
    if error.errno == errno.EPIPE:
        return RunError(f"cannot write {target}: its reader went away")
    return UsageError(f"cannot write {target}: {reason}", hint="choose another place for the output")


def same_file(first: str | Path, second: str | Path) -> bool:
    """Whether two paths are one file, through symbolic and hard links too.

    Args:
        first: a path.
        second: another path.

    Returns:
        False also where one of them does not exist.
    """
    try:
        return Path(first).samefile(second)
    except OSError:
        return False
