"""Descriptions of groups: names, contents and costs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import numpy as np

from onnxprune.model.graph import first_output
from onnxprune.model.shapes.symbols import symbolic_dims
from onnxprune.model.traits import traits_of
from onnxprune.tracing.exactness import reasons
from onnxprune.tracing.group import Group, Member
from onnxprune.tracing.labels import Classes
from onnxprune.tracing.partition import Part
from onnxprune.tracing.trace_result import TraceResult
from onnxprune.typing import Array


def describe(
    tracing: TraceResult, classes: Classes, parts: Sequence[Part], kinds: Mapping[str, Array]
) -> tuple[Group, ...]:
    """Make a group of every part: its name, its members, and what they hold and cost."""
    kind_of = np.full(classes.count, "channel", object)
    for kind, ids in kinds.items():
        kind_of[ids] = kind
    members = [tuple(_member(tracing, *axis) for axis in part.axes) for part in parts]
    names, macs = _names(tracing, members), cache(partial(_macs, tracing, classes, parts))
    io = _touched_io(tracing, classes, parts)
    why = cache(partial(reasons, tracing, classes, [part.cells for part in parts]))
    return tuple(
        Group(
            name=names[i],
            kind=str(kind_of[part.cells[0][0]]),
            cells=part.cells,
            members=members[i],
            params=parameters_of(tracing, members[i]),
            find_reason=partial(_reason, why, i),
            count_macs=partial(_nth, macs, i),
            io=tuple(io[i]),
        )
        for i, part in enumerate(parts)
    )


def _touched_io(tracing: TraceResult, classes: Classes, parts: Sequence[Part]) -> list[list[tuple[str, int]]]:
    """The axes of inputs and outputs that shrink with every part."""
    found: list[list[tuple[str, int]]] = [[] for _ in parts]
    part_of = _part_of(classes, parts)
    for name, axis in sorted(tracing.opened):
        labels = tracing.axes[name][axis]
        for index in np.unique(part_of[classes.of[labels[labels >= 0]]]):
            if index >= 0:
                found[index].append((name, axis))
    return found


def _part_of(classes: Classes, parts: Sequence[Part]) -> Array:
    """int64[classes], index of the part of every class; -1 for none."""
    found = np.full(classes.count, -1, np.int64)
    for index, part in enumerate(parts):
        for cell in part.cells:
            found[cell] = index
    return found


def _reason(reasons: Callable[[], Mapping[int, str]], index: int) -> str:
    return reasons().get(index, "")


def _nth(values: Callable[[], Sequence[int]], index: int) -> int:
    return values()[index]


def _member(tracing: TraceResult, key: str, axis: int, positions: int) -> Member:
    name = tracing.weights[key]
    return Member(name, key, axis, tracing.static.shapes[name][axis], positions)


def parameters_of(tracing: TraceResult, members: Sequence[Member]) -> int:
    """Elements that any of the members' positions holds."""
    held: dict[str, dict[int, float]] = {}
    for member in members:
        axes = held.setdefault(member.key, {})
        axes[member.axis] = axes.get(member.axis, 0.0) + member.positions / member.size
    kept = {key: math.prod(1 - share for share in axes.values()) for key, axes in held.items()}
    return round(sum(elements_of(tracing, key) * (1 - share) for key, share in kept.items()))


def _macs(tracing: TraceResult, classes: Classes, parts: Sequence[Part]) -> list[int]:
    """Multiply-accumulates of the contractions that depend on each part."""
    part_of = _part_of(classes, parts)
    known: dict[int, dict[int, float]] = {}

    def shares(labels: Array) -> dict[int, float]:
        """Part -> the share of an axis' positions that belongs to it."""
        if id(labels) not in known:
            flat = labels.reshape(-1)
            ids, counts = np.unique(part_of[classes.of[flat[flat >= 0]]], return_counts=True)
            known[id(labels)] = {int(i): n / labels.size for i, n in zip(ids, counts, strict=True) if i >= 0}
        return known[id(labels)]

    macs = [0.0] * len(parts)
    for view, rule in tracing.views:
        if rule is None or rule.contractions is None:
            continue
        for product in rule.contractions(view):
            total, kept = 1, dict[int, float]()
            for slot, axis in product:
                total *= (view.out_shape() if slot is None else view.shape(slot))[axis]
                axes = tracing.axes[view.node.output[0]] if slot is None else view.labels(slot)
                for place, share in shares(axes[axis]).items():
                    kept[place] = kept.get(place, 1.0) * (1 - share)
            for place, share in kept.items():
                macs[place] += total * (1 - share)
    # For one sample, as in `cost`.
    batch = batch_size(tracing)
    return [round(m / batch) for m in macs]


def elements_of(tracing: TraceResult, key: str) -> int:
    """Count the elements of a weight, by its entry of `axes`."""
    return math.prod(tracing.static.shapes[tracing.weights[key]])


# Names that exporters give to tensors that have none: the node that uses them says more.
_ANONYMOUS = re.compile(r"^(onnx::|val_|_?\d+(_quantized)?$|.*__\d+(_quantized)?$)|^/|.*/.*_output_\d+(_quantized)?$")


def _names(tracing: TraceResult, members: Sequence[Sequence[Member]]) -> list[str]:
    """A unique name per group: its first weight's, or that of the node that uses it if the weight has none.

    Quantisers put biases, scales and what decodes a weight anywhere in front: the first weight is the tensor, and no
    vector, that is the first to be used otherwise.
    """
    users, decoded = dict[str, tuple[int, str]](), dict[str, str]()
    for place, (view, _) in enumerate(tracing.views):
        if traits_of(view.node).decodes and view.node.input:
            decoded[first_output(view.node)] = view.node.input[0]
            continue
        for name in view.node.input:
            users.setdefault(decoded.get(name, name), (place, view.name))
    names: list[str] = []
    taken: dict[str, int] = {}
    for group in members:
        tensors = [member.tensor for member in group]
        weights = [name for name in tensors if len(tracing.static.shapes[name]) > 1]
        first = min(weights or tensors, key=lambda name: users.get(name, (0, ""))[0])
        stem = name = users.get(first, (0, first))[1] if _ANONYMOUS.match(first) else first
        while name in taken:
            taken[stem] += 1
            name = f"{stem}#{taken[stem]}"
        taken[name] = 1
        names.append(name)
    return names


def batch_size(tracing: TraceResult) -> int:
    """Count the samples of a run at the numbers that stood for symbolic dims.

    Args:
        tracing: the finished trace.

    Returns:
        The number for the batch axis of an input; 1 where the batch is fixed.
    """
    symbols = symbolic_dims(tracing.model.proto.graph)
    return next((tracing.static.sizes[s] for s, use in symbols.items() if use.axis == 0), 1)
