"""Rows of a table, or classes of an output, that are kept by name: `--rows`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.system import check_regular, read_file
from onnxprune.tracing import Groups
from onnxprune.typing import Array


def read_rows(path: str) -> list[int]:
    """The ids in a file: a `.json` list, an `.npy` array, or text with one per line.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    try:
        if path.endswith(".npy"):
            check_regular(Path(path))
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.endswith(".json"):
            found = np.asarray(json.loads(read_file(Path(path))))
        else:
            found = np.asarray([int(word) for word in read_file(Path(path)).decode().split()], np.int64)
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"rows: cannot read ids from {path}: {error}") from error
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise UsageError(f"rows: {path} must hold a list of integers", hint="one id per line, a .json list or an .npy")
    return [int(i) for i in found]


def removed(groups: Groups, rows: Mapping[str, Sequence[int]]) -> tuple[dict[str, Array], frozenset[str]]:
    """What goes so that only the named rows stay.

    Args:
        groups: the traced model.
        rows: name of a table, or of a graph output -> the ids to keep.

    Returns:
        Group name -> indices into its classes; and the names of all groups that hold rows of any of the tables, from
        which nothing else may go.

    Raises:
        UsageError: there is no such table or output, its rows are locked, or the ids do not fit.
    """
    found: dict[str, Array] = {}
    held: set[str] = set()
    for name, ids in rows.items():
        axis = _axis(groups, name)
        size = groups.static.shapes[name][axis]
        keep = _kept(name, ids, size)
        classes = _classes(groups, name, axis, size)
        if (groups.group_of[classes[~keep]] < 0).any() or (classes[~keep] < 0).any():
            raise _locked(groups, name, axis)
        if np.isin(classes[keep], classes[~keep]).any():
            raise UsageError(f"rows: {name!r} has rows that can only be removed together")
        for index in np.unique(groups.group_of[classes[classes >= 0]]):
            if index < 0:
                continue
            group = groups.groups[index]
            removed = np.flatnonzero(np.isin(group.classes, classes[~keep]))
            if len(group.cells) > 1:
                raise UsageError(f"rows: the rows of {name!r} must lose equal shares, see group {group.name!r}")
            if group.name in held and not np.array_equal(found.get(group.name, removed[:0]), removed):
                raise UsageError(
                    f"rows: {name!r} must keep the same rows as another table, for which other rows are named"
                )
            held.add(group.name)
            if len(removed):
                found[group.name] = removed
    _check_shared_ids(groups, rows)
    return found, frozenset(held)


def _kept(name: str, ids: Sequence[int], size: int) -> Array:
    wanted = np.unique(np.asarray(ids, np.int64))
    if not wanted.size:
        raise UsageError(f"rows: no id to keep is given for {name!r}")
    if wanted[0] < 0 or wanted[-1] >= size:
        wrong = int(wanted[0] if wanted[0] < 0 else wanted[-1])
        raise UsageError(f"rows: {name!r} has rows 0 to {size - 1}, not {wrong}")
    keep = np.zeros(size, bool)
    keep[wanted] = True
    return keep


def _classes(groups: Groups, name: str, axis: int, size: int) -> Array:
    """The class of every row of a table (axis 0), or of every class of an output; -1 for a barrier."""
    axes = groups.tracing.axes.get(name)
    if axes is None or axes[axis].ndim > 1:
        return np.full(size, -1)
    labels = np.broadcast_to(axes[axis], (size,))
    return np.where(labels >= 0, groups.classes.of[np.maximum(labels, 0)], -1)


def _locked(groups: Groups, name: str, axis: int) -> UsageError:
    reasons = [b.reason for b in groups.barriers if any(m[:2] == (name, axis) for m in b.members)]
    why = reasons[0] if reasons else "nothing that can be pruned uses them"
    return UsageError(
        f"rows: rows of {name!r} must stay: {why}",
        hint="--allow-io-changes lets the output shrink with them" if why.startswith("graph output") else "",
    )


def _axis(groups: Groups, name: str) -> int:
    if groups.tracing.is_weight(name) and groups.static.shapes.get(name):
        return 0
    if not any(v.name == name for v in groups.model.proto.graph.output):
        raise UsageError(f"rows: the model has no table and no output called {name!r}")
    if not groups.allow_io_changes:
        raise UsageError(f"rows: {name!r} is an output, which must not shrink", hint="add --allow-io-changes")
    axes = sorted({axis for group in groups.groups for io, axis in group.io if io == name})
    if len(axes) != 1:
        raise UsageError(f"rows: output {name!r} has {len(axes)} axes that can shrink, not one")
    return axes[0]


def _check_shared_ids(groups: Groups, rows: Mapping[str, Sequence[int]]) -> None:
    """Ids that index several tables need one map."""
    first: dict[str, str] = {}
    for name in rows:
        for given in groups.tracing.id_sources[name].inputs if name in groups.tracing.id_sources else ():
            other = first.setdefault(given, name)
            if set(rows[other]) != set(rows[name]):
                raise UsageError(f"rows: the ids {given!r} index {other!r} and {name!r}, which must keep the same rows")
