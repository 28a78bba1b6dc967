"""Labels that lie beside the inputs: in the names of folders, or in a column of a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.calibration.images import SUFFIXES
from onnxprune.calibration.input_spec import InputSpec
from onnxprune.calibration.source import Samples
from onnxprune.errors import UsageError
from onnxprune.system import read_file
from onnxprune.typing import Array

# Labels are the folders that pictures lie in.
FOLDER = "folder"
TABLES = (".csv", ".jsonl")
# Columns that name the file of a row, where there is one.
_FILES = ("file", "filename", "file_name", "path", "image")
# From what messages call a sample, its number and how many samples it is, to their labels.
_Lookup = Callable[[str, int, int], Sequence[Any]]


@dataclass(frozen=True)
class LabelSource:
    """Labels from elsewhere than the arrays of a source.

    Attributes:
        spec: what they are called, and of which type they are.
        root: the folder of pictures, for labels in the names of folders.
    """

    spec: InputSpec
    root: Any = None

    def added(self, samples: Samples) -> Samples:
        """The samples with their labels.

        Raises:
            UsageError: a sample has no label, or a label is no number where numbers are wanted.
        """
        lookup, number = self._lookup(), 0
        for where, feed in samples:
            count = len(next(iter(feed.values())))
            values = np.asarray(lookup(where, number, count))
            number += count
            yield where, {**feed, self.spec.name: values.astype(self.spec.dtype)}

    def _lookup(self) -> _Lookup:
        if self.spec.name == FOLDER:
            return _of_folders(self.root)
        path, _, column = self.spec.name.rpartition(":")
        return _of_rows(path, column, numbers=self.spec.dtype.kind == "f")


def is_label_source(text: str) -> bool:
    """Tell whether labels are named by folders or by a column, `FILE.csv:COLUMN`, not by a key in the data.

    Args:
        text: what the user wrote.

    Returns:
        Whether a `LabelSource` reads them.
    """
    path, colon, _ = text.rpartition(":")
    return text == FOLDER or (bool(colon) and Path(path).suffix.lower() in TABLES)


def _of_folders(root: Any) -> _Lookup:
    if not isinstance(root, str | Path) or not Path(root).is_dir():
        raise UsageError(f"--labels {FOLDER}: the data is no folder of pictures", hint="name a key, or FILE.csv:COLUMN")
    classes = sorted(entry.name for entry in Path(root).iterdir() if entry.is_dir() and not entry.name.startswith("."))
    number = {name: i for i, name in enumerate(classes)}

    def lookup(where: str, _: int, count: int) -> Sequence[int]:
        try:
            name = Path(where).relative_to(root).parts[0]
            return [number[name]] * count
        except (ValueError, KeyError):
            raise UsageError(
                f"--labels {FOLDER}: {where} lies in no folder of {root}", hint="put every picture into one per class"
            ) from None

    return lookup


def _of_rows(path: str, column: str, *, numbers: bool) -> _Lookup:
    rows = _rows(path)
    if not rows or column not in rows[0]:
        known = ", ".join(map(str, rows[0])) if rows else "no row"
        raise UsageError(f"--labels {path}:{column}: there is no such column", hint=f"the file has: {known}")
    values = _numbers([row.get(column) for row in rows], f"--labels {path}:{column}", numbers=numbers)
    named = next((name for name in _FILES if name != column and name in rows[0]), None)
    by_file = {str(row.get(named)): value for row, value in zip(rows, values, strict=True)} if named else {}

    def lookup(where: str, number: int, count: int) -> Sequence[Any]:
        if Path(where).suffix.lower() in SUFFIXES and Path(where).is_file():
            if not by_file:
                raise UsageError(f"--labels {path}: no column names the pictures", hint=f"add one: {', '.join(_FILES)}")
            parts = Path(where).parts
            ends = ("/".join(parts[i:]) for i in range(len(parts)))
            found = next((by_file[end] for end in ends if end in by_file), None)
            if found is not None:
                return [found]
            raise UsageError(f"--labels {path}: no row is for {where}", hint=f"its column {named!r} names the files")
        if number + count > len(values):
            raise UsageError(
                f"--labels {path}: {len(values)} rows, and {number + count} samples or more",
                hint="one row for each sample, in the order of the data",
            )
        return list(values[number : number + count])

    return lookup


def _rows(path: str) -> list[dict[str, Any]]:
    try:
        text = read_file(Path(path)).decode("utf-8-sig")
        if path.lower().endswith(".csv"):
            return list(csv.DictReader(io.StringIO(text)))
        return [dict(json.loads(line)) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UsageError(
            f"--labels {path}: it cannot be read: {error}", hint="a table with a row per sample"
        ) from error


def _numbers(values: Sequence[Any], where: str, *, numbers: bool) -> Array:
    """The labels as numbers; names of classes are counted in their order."""
    try:
        return np.array([float(v) if numbers else int(v) for v in values])
    except (TypeError, ValueError):
        if numbers or any(v is None or not str(v).strip() for v in values):
            raise UsageError(f"{where}: a row has no number", hint="every row needs a label") from None
    names = {name: i for i, name in enumerate(sorted({str(v) for v in values}))}
    return np.array([names[str(v)] for v in values])
