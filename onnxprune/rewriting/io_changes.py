"""Changes of a model's inputs and outputs by pruning, and how to feed and compare the smaller model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.rewriting.removal import Removal
from onnxprune.tracing import Axes


@dataclass(frozen=True)
class Change:
    """An axis of a graph input or output that shrank.

    Attributes:
        kind: "input", "output", or "default": an input with a stored value, as weights that are inputs too.
        name: of the input or output.
        axis: the axis.
        before: its length in the original.
        after: its length in the smaller model.
    """

    kind: str
    name: str
    axis: int
    before: int
    after: int


def changes(removal: Removal) -> tuple[Change, ...]:
    """The axes of inputs and outputs that shrink, defaults last."""
    graph, stored = removal.groups.model.proto.graph, removal.groups.model.stored
    inputs = [v for v in graph.input if v.name not in stored]
    defaults = [v for v in graph.input if v.name in stored]
    found = []
    for kind, values in (("input", inputs), ("output", graph.output), ("default", defaults)):
        for name in (v.name for v in values):
            old, axes = removal.groups.static.shapes.get(name), _labels(removal, name)
            if old is None or axes is None:
                continue
            for axis, (before, after) in enumerate(zip(old, removal.shape(old, axes), strict=True)):
                if before != after:
                    found.append(Change(kind, name, axis, before, after))
    return tuple(found)


def _labels(removal: Removal, name: str) -> Axes | None:
    """The labels of an input or output; of a stored one that is duplicated per use, the copy's that keeps its name."""
    tracing = removal.groups.tracing
    if name not in tracing.duplicated_per_use or tracing.has_whole_use(name):
        return tracing.axes.get(name)
    return next((axes for key, axes in tracing.weights_axes() if tracing.weights[key] == name), None)


@dataclass(frozen=True)
class RowMap:
    """The rows of a table, or the classes of an output, that were kept by name.

    Attributes:
        name: of the table or output.
        size: how many rows there were.
        inputs: the graph inputs whose ids are row numbers, which must be mapped.
        kept: the old numbers of the rows that remain; their places are the new numbers.
    """

    name: str
    size: int
    inputs: tuple[str, ...]
    kept: tuple[int, ...]


def row_maps(removal: Removal) -> tuple[RowMap, ...]:
    """The new numbers of all rows that could be named, by name."""
    tracing = removal.groups.tracing
    found = []
    for name in sorted(removal.groups.rows & tracing.axes.keys() & removal.groups.static.shapes.keys()):
        source = tracing.id_sources[name]
        axes, shape = tracing.axes[name], removal.groups.static.shapes[name]
        shrunk = [a for a, labels in enumerate(axes) if removal.loses(labels)]
        axis = 0 if tracing.is_weight(name) or not shrunk else shrunk[0]
        kept = np.flatnonzero(removal.kept(axes[axis], axis, shape[axis]))
        found.append(RowMap(name, shape[axis], tuple(sorted(source.inputs)), tuple(kept.tolist())))
    return tuple(found)


def in_range(removal: Removal, original: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same inputs with ids of kept rows only: each id that is gone is replaced by a kept one."""
    found = dict(original)
    for table in row_maps(removal):
        kept = np.asarray(table.kept)
        for name in (n for n in table.inputs if n in original):
            ids = np.where(original[name] < 0, original[name] + table.size, original[name])
            there = np.isin(ids, kept)
            found[name] = np.where(there, ids, kept[ids % len(kept)]).astype(original[name].dtype)
    return found


def feeds(removal: Removal, original: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs for the smaller model: those of the original, without the positions that are gone and with new ids.

    Raises:
        UsageError: an id is that of a row that is gone.
    """
    found = {name: _remaining(removal, name, value) for name, value in original.items()}
    for table in row_maps(removal):
        new = np.full(table.size, -1)
        new[list(table.kept)] = np.arange(len(table.kept))
        for name in (n for n in table.inputs if n in original):
            mapped = new[original[name]]
            if (mapped < 0).any():
                raise UsageError(f"input {name!r} holds ids of {table.name!r} that are not kept")
            found[name] = mapped.astype(original[name].dtype)
    return found


def outputs(removal: Removal, names: Sequence[str], original: Sequence[Any]) -> list[Any]:
    """What the smaller model must give: the original's outputs, without the positions that are gone."""
    return [_remaining(removal, name, value) for name, value in zip(names, original, strict=True)]


def _remaining(removal: Removal, name: str, value: Any) -> Any:
    axes = removal.groups.tracing.axes.get(name)
    if axes is None or not any(removal.loses(labels) for labels in axes):
        return value
    # The value may be longer on other axes than the one that was traced: another batch.
    return removal.sliced(value, axes)


def problem(removal: Removal, pruned: Model) -> str:
    """What is wrong with the inputs and outputs that `pruned` declares; empty if nothing is."""
    shrunk = {("output" if c.kind == "output" else "input", c.name, c.axis): c for c in changes(removal)}
    for kind in ("input", "output"):
        sides = []
        for model in (removal.groups.model, pruned):
            hidden = model.stored - model.overridable if kind == "input" else frozenset()
            sides.append([v for v in getattr(model.proto.graph, kind) if v.name not in hidden])
        if len(sides[0]) != len(sides[1]):
            return f"the graph {kind}s changed"
        for one, other in zip(*sides, strict=True):
            if _declared(other) != _declared(_expected(one, kind, shrunk)):
                return f"the graph {kind}s changed"
    return ""


def _declared(value: onnx.ValueInfoProto) -> bytes:
    return bytes(value.SerializeToString(deterministic=True))


def _expected(
    value: onnx.ValueInfoProto, kind: str, shrunk: Mapping[tuple[str, str, int], Change]
) -> onnx.ValueInfoProto:
    """What an input or output must declare: as before, but for the axes that shrank."""
    made = onnx.ValueInfoProto()
    made.CopyFrom(value)
    for axis, dim in enumerate(made.type.tensor_type.shape.dim):
        change = shrunk.get((kind, value.name, axis))
        if change is not None:
            fixed = dim.HasField("dim_value")
            dim.Clear()
            if fixed:
                dim.dim_value = change.after
    return made
