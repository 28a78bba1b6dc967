"""A traced model at smaller sizes of its inputs, where it fixes large ones that nothing else in the graph asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import onnx

from onnxprune.model import Model
from onnxprune.model.protos import graphs
from onnxprune.model.shapes.infer import StaticInfo, infer
from onnxprune.proof.in_place import as_traced
from onnxprune.rewriting import Removal, io_changes
from onnxprune.tracing import Groups, retrace
from onnxprune.typing import Shape

# Elements of all tensors together below which the runs of a proof take less than another trace.
LARGE_RUN = 1 << 26
# Sizes from which an axis counts as large, multiples that networks with many halvings take, and what is tried.
LARGE_AXIS = 160
MULTIPLE = 128
SCALES = (8, 4, 2)
# Positions that must be left of an axis that gets shorter: a kernel shall not see its padding alone.
SHORTEST = 4

# Operators whose result is the size of something.
ASKS = ("Shape", "Size")

# Graph input -> its sizes.
Sizes = Mapping[str, Shape]


def smaller_inputs(removal: Removal) -> tuple[Groups, Sizes] | None:
    """Trace the same model at smaller sizes of its inputs; None where it fixes none, or something fixes them in turn.

    Every tensor must have a known shape as before, of as many axes, and an axis that changes must not become trivial:
    so no target of a Reshape and no table of positions asks for the sizes that were declared. The groups must be the
    same.

    Args:
        removal: what goes of the traced original.
    """
    groups = removal.groups
    static, flat = groups.static, groups.tracing.model
    if elements_of_a_run(groups) < LARGE_RUN:
        return None
    if any(change.kind != "default" for change in io_changes.changes(removal)):
        return None
    for sizes in _candidates(groups):
        if not _is_like(static, infer(with_inputs(flat, sizes), static.sizes)):
            continue
        other = retrace(replace(groups, model=with_inputs(groups.model, sizes)), static.sizes)
        if [(g.name, g.units) for g in other.groups] == [(g.name, g.units) for g in groups.groups]:
            return other, sizes
    return None


def elements_of_a_run(groups: Groups) -> int:
    """How many elements all tensors that are computed have together, at the sizes of the trace."""
    stored = groups.tracing.model.initializers
    return sum(math.prod(shape) for name, shape in groups.static.shapes.items() if name not in stored)


def with_inputs(model: Model, sizes: Sizes) -> Model:
    """`model` with other numbers for the fixed sizes of its inputs, and no notes of what follows from these."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for graph in graphs(proto.graph):
        del graph.value_info[:]
        for value in (*graph.output, *(graph.input if graph is not proto.graph else ())):
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes.get(value.name, ()), strict=False):
            if dim.HasField("dim_value"):
                dim.dim_value = size
    return replace(model, proto=proto)


def is_as_sized(removal: Removal, pruned: Model) -> bool:
    """Whether a smaller model has the shapes that it must have at the sizes declared, and asks no more for sizes.

    So what is true of it at other sizes is true of it at these.

    Args:
        removal: what goes of the traced original.
        pruned: the smaller model.
    """
    static, axes = removal.groups.static, removal.groups.tracing.axes
    pruned = as_traced(removal.groups, pruned)
    asked = (sum(n.op_type in ASKS for n in m.proto.graph.node) for m in (pruned, removal.groups.tracing.model))
    if next(asked) > next(asked):
        return False
    now = infer(pruned, static.sizes).shapes
    known = (name for name in static.shapes if name not in pruned.initializers and name in now)
    return all(
        now[name] == (removal.shape(static.shapes[name], axes[name]) if name in axes else static.shapes[name])
        for name in known
    )


def _candidates(groups: Groups) -> Iterator[dict[str, Shape]]:
    """Smaller sizes for the inputs, smallest first."""
    shapes, stored = groups.static.shapes, groups.model.stored
    fixed = {
        value.name: [dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim]
        for value in groups.model.proto.graph.input
        if value.name not in stored and len(shapes.get(value.name, ())) >= 4
    }
    for scale in SCALES:
        found = {
            name: tuple(
                _smaller(size, scale) if known[axis] and axis and size >= LARGE_AXIS else size
                for axis, size in enumerate(shapes[name])
            )
            for name, known in fixed.items()
        }
        if any(shape != shapes[name] for name, shape in found.items()):
            yield found


def _smaller(size: int, scale: int) -> int:
    return min(size, MULTIPLE * math.ceil(size / scale / MULTIPLE))


def _is_like(before: StaticInfo, after: StaticInfo) -> bool:
    """Whether every tensor has as many axes, and those that changed are shorter but not trivial."""
    if before.shapes.keys() != after.shapes.keys():
        return False
    return all(_is_shorter(shape, after.shapes[name]) for name, shape in before.shapes.items())


def _is_shorter(old: Shape, new: Shape) -> bool:
    return len(old) == len(new) and all(n == o or SHORTEST <= n < o for o, n in zip(old, new, strict=True))
