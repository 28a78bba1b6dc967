"""Where a result comes from: the command, versions, and the files with their hashes."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# What figures depend on.
LIBRARIES = ("onnxprune", "onnx", "onnxruntime", "numpy")


def provenance(command: Sequence[str], files: Mapping[str, str | None]) -> dict[str, Any]:
    """Say where a result comes from.

    Args:
        command: the command line.
        files: role -> path; of these, only files that are there are told.

    Returns:
        Plain data.
    """
    return {
        "command": shlex.join(command),
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "files": [_file(role, Path(path)) for role, path in files.items() if path and Path(path).is_file()],
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:  # ONNX Runtime is packaged under several names
            continue


def _file(role: str, path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"role": role, "path": str(path), "bytes": path.stat().st_size, "sha256": digest}
