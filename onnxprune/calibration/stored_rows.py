"""Arrays that grow along axis 0: in memory while they are small, in temporary files that are mapped when they are not.

So data may be larger than memory: of what is mapped, the rows that are used are read. The folder of temporary files
needs room for what the data's own files do not hold as the model takes it: what is decoded, unpacked, drawn, converted.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from onnxprune.errors import OnnxPruneError, RunError, UsageError
from onnxprune.system import free_memory
from onnxprune.typing import Array

# Bytes that the arrays of one source hold in memory, and of the free memory.
LARGEST_HELD, PART_OF_FREE = 256 << 20, 0.25
# Bytes of an array that are read, converted and checked at once.
PIECE = 16 << 20
# Share of the free disk that one array may take: others need room, too.
SHARE = 0.9


@dataclass
class Allowance:
    """What arrays may still hold in memory together, in bytes."""

    left: int = field(default_factory=lambda: most_held())


def most_held() -> int:
    """Bytes that one source may hold in memory."""
    free = free_memory()
    return LARGEST_HELD if free is None else min(LARGEST_HELD, int(PART_OF_FREE * free))


class StoredRows:
    """An array that grows along axis 0."""

    def __init__(self, allowance: Allowance) -> None:
        """Begin without rows.

        Args:
            allowance: what this array and others may hold in memory.
        """
        self.count, self._allowance = 0, allowance
        self._parts: list[Array] = []
        self._file: IO[bytes] | None = None
        self._whole: Array | None = None

    def append(self, rows: Array) -> None:
        """Add rows, of the shape and type of those before.

        Raises:
            RunError: there is no room for them.
        """
        self.count, self._whole = self.count + len(rows), None
        self._parts.append(rows)
        self._allowance.left -= rows.nbytes
        fits = self._allowance.left >= 0 or len(self._parts) == 1 or rows.dtype.hasobject
        if self._file is None and not fits:
            self._file = temporary_file()
        if self._file is not None:
            self._write(self._file)

    def _write(self, file: IO[bytes]) -> None:
        """Move what is held to the end of a file."""
        try:
            for rows in self._parts:
                for piece in pieces(rows):
                    piece.tofile(file)
                self._allowance.left += rows.nbytes
        except OSError as error:
            raise no_room(error) from error
        self._parts = self._parts[-1:]
        self._parts[0] = self._parts[0][:0]

    def array(self) -> Array:
        """All rows; some were added."""
        if self._whole is None:
            like = self._parts[0]
            if self._file is not None:
                self._whole = mapped_array(self._file, like.dtype, (self.count, *like.shape[1:]))
            else:
                self._whole = np.concatenate(self._parts) if len(self._parts) > 1 else like
                self._parts = [self._whole]
        return self._whole


def temporary_file() -> IO[bytes]:
    """A file without a name, which is gone when nothing uses it any more."""
    return tempfile.TemporaryFile(prefix="onnxprune-")


def mapped_array(
    file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...], *, offset: int = 0, fortran: bool = False
) -> Array:
    """The array in a file, of which only what is used is read.

    Args:
        file: a real file.
        dtype: of the elements.
        shape: of the array.
        offset: where it begins.
        fortran: whether the first axis is the fastest.
    """
    if 0 in shape:
        return np.zeros(shape, dtype)
    try:
        file.flush()
        return np.asarray(np.memmap(file, dtype, "r", offset=offset, shape=shape, order="F" if fortran else "C"))
    except OSError as error:
        raise no_room(error) from error


def pieces(array: Array) -> Iterator[Array]:
    """The rows of an array, as many at once as are quickly held; the array itself if it has no rows."""
    step = _step(array)
    if array.ndim == 0 or len(array) <= step:
        yield array
        return
    for start in range(0, len(array), step):
        yield array[start : start + step]


def computed(array: Array, function: Callable[[Array], Array], places: Array | None, allowance: Allowance) -> Array:
    """What a function makes of the rows of an array, piece by piece.

    Args:
        array: the array, perhaps larger than memory.
        function: from rows to as many others; from the array itself if it has no rows.
        places: which rows, in their order; all if None.
        allowance: what the result may hold in memory.
    """
    if array.ndim == 0:
        return function(array)
    rows, step = StoredRows(allowance), _step(array)
    count = len(array) if places is None else len(places)
    for start in range(0, max(count, 1), step):
        own = slice(start, start + step)
        rows.append(function(array[own if places is None else places[own]]))
    return rows.array()


def unpacked_file(source: IO[bytes], size: int) -> IO[bytes]:
    """Copy what is unpacked into a file of its own, which can be mapped.

    Args:
        source: gives at most `size` bytes.
        size: what it says that it gives.

    Raises:
        UsageError: there is no room for so much.
    """
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > SHARE * free:
        takes, has = (f"{number / 2**30:,.1f} GiB" for number in (size, free))
        raise UsageError(
            f"the data takes {takes} when unpacked, {tempfile.gettempdir()} has {has}",
            hint="TMPDIR names another folder; or np.save writes arrays that need no unpacking",
        )
    file = temporary_file()
    try:
        shutil.copyfileobj(source, file, PIECE)
        file.seek(0)
    except OSError as error:
        if error.errno is None:
            raise
        raise no_room(error) from error
    return file


def no_room(error: OSError) -> OnnxPruneError:
    """Say that temporary data found no room, in the user's words."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return RunError(f"temporary data cannot be written: {error.strerror or error}")
    return RunError(
        f"disk full while the data was read, in {tempfile.gettempdir()}",
        hint="TMPDIR names a folder with more room; or use fewer --samples",
    )


def _step(array: Array) -> int:
    """Rows of a piece."""
    return max(1, PIECE // max(1, array.nbytes // max(1, len(array)))) if array.ndim else 1
