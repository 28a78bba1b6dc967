"""A file of finished work: one JSON line per result, keyed by what the result depends on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError


def key_of(**parts: Any) -> str:
    """Make a short name for the content of plain values.

    Args:
        parts: what the name stands for: values that JSON can hold.

    Returns:
        24 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def cache_folder() -> Path:
    """Find the folder in which results are kept between runs.

    Returns:
        ONNXPRUNE_CACHE, or `onnxprune` in the platform's folder for caches.
    """
    given = os.environ.get("ONNXPRUNE_CACHE")
    if given:
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "onnxprune"


def said_before(text: str) -> bool:
    """Tell whether a text was said to this user before, and note that it is now.

    Args:
        text: what is said.

    Returns:
        Whether the user's folder for caches notes it; False where nothing can be noted.
    """
    note = cache_folder() / "said" / hashlib.sha256(text.encode()).hexdigest()[:16]
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch(exist_ok=False)
    except FileExistsError:
        return True
    except OSError:
        return False
    return False


class Journal:
    """Results by key; every new one is in the file before `put` returns.

    A crash loses at most what was not put yet. A line that was torn by one is passed over, as is any other that is no
    result; several processes may append to one file.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        """Read what is there.

        Args:
            path: the file; it and its folder are made when the first result is put. None keeps results in memory.

        Raises:
            UsageError: the file cannot be read, or holds something else, which is not to be appended to.
        """
        self._path = None if path is None else Path(path)
        self._found: dict[str, Any] = {}
        self._torn = False
        try:
            content = self._path.read_bytes() if self._path else b""
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"cannot read {self._path}: {error.strerror}") from error
        self._torn = bool(content) and not content.endswith(b"\n")
        for line in content.splitlines():
            self._read(line)
        if not self._found and not b'{"key": '.startswith(content[:8]):  # all that a torn first line can be
            raise UsageError(
                f"{self._path} is no file of kept results", hint="name another file, or one that does not exist yet"
            )

    def _read(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            self._found[str(entry["key"])] = entry["result"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return

    def get(self, key: str) -> Any:
        """The result, or None."""
        return self._found.get(key)

    def put(self, key: str, result: Any, about: Mapping[str, Any]) -> None:
        """Keep a result; `about` says to people what it is.

        Raises:
            UsageError: the file cannot be written.
        """
        self._found[key] = result
        if self._path is None:
            return
        line = json.dumps({"key": key, **about, "result": result}) + "\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(("\n" + line if self._torn else line).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(f"cannot write {self._path}: {error.strerror}") from error
        self._torn = False
