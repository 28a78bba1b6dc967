"""Reading of untrusted files: pipes, devices, files that are larger than memory."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path
from typing import BinaryIO

from onnxprune.errors import UsageError
from onnxprune.system.memory import check_fits

# Bytes of what has no size that could be looked up: a pipe, or standard input. No ONNX file can be larger.
LARGEST_STREAM = 2 << 30
# Bytes of a device: none that ends is longer.
LARGEST_DEVICE = 1 << 20
# Seconds for which a pipe may have no writer.
PATIENCE = 10.0
_CHUNK = 1 << 20


def check_regular(path: Path) -> None:
    """Refuse a pipe or a device where a file is to be read in any order.

    Args:
        path: the file; one that does not exist passes.

    Raises:
        UsageError: it is a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no regular file", hint="a pipe or a device cannot be read like a file: write one")


def read_file(path: Path) -> bytes:
    """Read a file that fits into memory, a pipe that somebody writes to, or a device that ends.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        UsageError: it is none of these.
        OSError: it cannot be read.
    """
    # A pipe is opened without waiting for a writer, who may never come.
    waits_not = getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | waits_not)) as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            check_fits(str(path), status.st_size)
            return file.read()
        if stat.S_ISFIFO(status.st_mode) and not select.select([file], [], [], PATIENCE)[0]:
            raise UsageError(f"nobody writes to the pipe {path}", hint="start what writes to it first")
        os.set_blocking(file.fileno(), True)
        is_pipe = stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
        return read_stream(file, str(path), LARGEST_STREAM if is_pipe else LARGEST_DEVICE)


def read_stream(stream: BinaryIO, name: str, most: int = LARGEST_STREAM) -> bytes:
    """Read a stream to its end.

    Args:
        stream: the stream, open for reading bytes.
        name: what messages call it.
        most: bytes that it may give.

    Returns:
        Its content.

    Raises:
        UsageError: it gives more than `most` bytes.
    """
    parts, size = list[bytes](), 0
    while piece := stream.read(_CHUNK):
        parts.append(piece)
        size += len(piece)
        if size > most:
            raise UsageError(f"{name} gives more than {most:,} bytes, with no end in sight", hint="name a file")
    return b"".join(parts)
