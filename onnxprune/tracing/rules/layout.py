"""Operators that move positions: the operator is run on the label arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.model.shapes.polynomials import is_known, product
from onnxprune.tracing.labels import Axes, as_field, as_line, is_barrier, varying_axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Letters, through
from onnxprune.tracing.rules.node_view import LONG, NodeView
from onnxprune.tracing.rules.norm import axis_of
from onnxprune.tracing.rules.registry import rule
from onnxprune.typing import Array, Shape

Block = tuple[list[int], list[int]]

LAID_OUT = "laid out by sizes that the run alone knows"
EXPANDED = "expanded to a size that the run alone knows"
COUNTED = "counted along an axis whose length the run alone knows"


def matching_blocks(old: Shape, new: Shape) -> list[Block]:
    """The smallest runs of old and new axes that hold the same elements; axes of size 1 are in none."""
    blocks: list[Block] = []
    left, right = [a for a, s in enumerate(old) if s != 1], [a for a, s in enumerate(new) if s != 1]
    while left or right:
        if not left or not right:
            raise Unsupported(f"cannot see how {list(old)} becomes {list(new)}")
        block: Block = ([left.pop(0)], [right.pop(0)])
        sizes = [old[block[0][0]], new[block[1][0]]]
        while sizes[0] != sizes[1]:
            side = 0 if sizes[0] < sizes[1] else 1
            rest, shape = ((left, old), (right, new))[side]
            if not rest:
                raise Unsupported(f"cannot see how {list(old)} becomes {list(new)}")
            block[side].append(rest.pop(0))
            sizes[side] *= shape[block[side][-1]]
        blocks.append(block)
    return blocks


def _blocks(view: NodeView) -> list[Block]:
    """The blocks of a node that lays positions out.

    Numbers that stand for sizes which depend on values need not fit. Then all axes between those that stay are one.
    """
    old, new = view.shape(0), view.out_shape()
    try:
        return matching_blocks(old, new)
    except Unsupported:
        before, behind = view.dims(view.node.input[0]), view.dims(view.node.output[0])
        if all(map(is_known, (*before, *behind))):
            raise
    most = min(len(old), len(new))
    front = next((a for a in range(most) if before[a] != behind[a]), most)
    back = next((a for a in range(most - front) if before[-1 - a] != behind[-1 - a]), most - front)
    ends = len(old) - back, len(new) - back
    blocks = [([a], [a]) for a in range(front)]
    blocks += [(list(range(front, ends[0])), list(range(front, ends[1])))]
    blocks += [([ends[0] + a], [ends[1] + a]) for a in range(back)]
    return [(ins, outs) for ins, outs in blocks if [old[a] for a in ins] != [1] or len(outs) != 1]


def _retarget_shape(edit: Edit) -> None:
    """The target shape follows."""
    edit.retarget(1)


@rule("Reshape", resize=_retarget_shape)
@rule("Flatten", "Squeeze", "Unsqueeze")
def reshape(view: NodeView) -> list[Axes]:
    """Merged axes carry the labels of the labelled one; a split has rows, or positions within rows."""
    new, axes = view.out_shape(), view.labels(0)
    made: list[Array | None] = [None] * len(new)
    blocks = _blocks(view)
    for block in blocks:
        ins, outs = block
        if not all(is_barrier(axes[a]) for a in ins) and not _is_aligned(view, block):
            for axis in ins:
                view.ledger.fix(axes[axis], view.reason(LAID_OUT))
            axes = tuple(view.barrier(LAID_OUT) if a in ins else labels for a, labels in enumerate(axes))
        if len(ins) == len(outs) == 1 and axes[ins[0]].ndim == 1:
            made[outs[0]] = axes[ins[0]]
            continue
        lead = _lead(view, axes, ins)
        if lead is None:
            rows = [axes[a] for a in ins if view.ledger.row_of(axes[a])]
            for out in outs:
                made[out] = rows[0] if rows else axes[ins[0]]
            continue
        for out, labels in _move(view, axes[lead], lead, blocks, block).items():
            made[out] = labels
    one = view.barrier("axis of a single position")
    return [tuple(one if labels is None else labels for labels in made)]


def _is_aligned(view: NodeView, block: Block) -> bool:
    """Whether a block holds the same elements at all sizes that the graph can have, not by chance at one.

    All elements together are as many before as after. So what lies before the block, in it and behind it agrees if two
    of these do, which is enough where axes are merged. Where they are split, the sizes of the block itself must agree,
    and those that split static axes be static.
    """
    old, new = view.dims(view.node.input[0]), view.dims(view.node.output[0])
    ins, outs = block
    inside = old[ins[0] : ins[-1] + 1], new[outs[0] : outs[-1] + 1]
    parts = ((old[: ins[0]], new[: outs[0]]), (old[ins[-1] + 1 :], new[outs[-1] + 1 :]), inside)
    agreed = [product(left) == product(right) for left, right in parts]
    static, made = (all(map(is_known, sizes)) for sizes in inside)
    return sum(agreed) >= 2 and (len(outs) == 1 or (agreed[2] and (made or not static)))


def _lead(view: NodeView, axes: Axes, ins: Sequence[int]) -> int | None:
    """The axis of a block whose labels the new axes carry: the outermost labelled one; the others are fixed."""
    labelled = [a for a in ins if not is_barrier(axes[a])]
    for other in labelled[1:]:
        view.ledger.fix(axes[other], view.reason("merged into an axis whose outer part carries the labels"))
    return labelled[0] if labelled else None


def _move(view: NodeView, labels: Array, axis: int, blocks: Sequence[Block], own: Block) -> dict[int, Array]:
    """Labels of the new axes of block `own`, from those of the old `axis`."""
    old, new = view.shape(0), view.out_shape()
    field = _in_order(view, as_field(labels, axis, len(old)), axis, own[0])
    full, target = [1] * len(old), [1] * len(new)
    for ins, outs in blocks:
        if any(field.shape[a] > 1 for a in ins):
            for a in ins:
                full[a] = old[a]
            for a in outs:
                target[a] = new[a]
    if view.is_too_long(math.prod(full), field):
        return dict.fromkeys(own[1], view.barrier(LONG))
    moved = np.broadcast_to(field, full).reshape(target)
    varying = varying_axes(moved)
    moved = moved[tuple(slice(None) if a in varying else slice(0, 1) for a in range(len(new)))]
    outs = own[1]
    candidate_axes = [a for a in outs if a in varying]
    if len(outs) > 1 and not all(is_known(view.dims(view.node.output[0])[a]) for a in candidate_axes):
        view.ledger.fix(moved, view.reason(LAID_OUT))
        return dict.fromkeys(outs, view.barrier(LAID_OUT))
    key = (view.node.output[0], axis)
    result = {
        a: view.ledger.row(key, candidate_axes.index(a), view.reason(f"row of a split axis ({axis} to {a})"))
        if len(candidate_axes) > 1 and a in candidate_axes
        else view.barrier("part of a split axis")
        for a in outs
    }
    if not candidate_axes:
        return result
    shrinking = candidate_axes[-1]
    if len(candidate_axes) > 1:
        shrinking, moved = _split(view, moved, candidate_axes, key)
    elif len(varying) > 1:
        view.ledger.balance(moved, shrinking)
    if shrinking >= 0:
        result[shrinking] = as_line(moved, shrinking)
    return result


def _in_order(view: NodeView, field: Array, axis: int, ins: Sequence[int]) -> Array:
    """Make rows equal that lie inside of `axis` in a merge.

    What remains of a tensor is merged by rank, not by position: only if the rows are the outer axes (or lose the
    same positions) does the merged axis hold the remaining positions in their old order.
    """
    inner = [a for a in ins if a > axis and field.shape[a] > 1]
    if not inner:
        return field
    first = field[tuple(slice(0, 1) if a in inner else slice(None) for a in range(field.ndim))]
    view.ledger.tie(field, first)
    return first


def _split(view: NodeView, moved: Array, candidate_axes: list[int], key: tuple[str, int]) -> tuple[int, Array]:
    """Which of the axes `candidate_axes` shrinks, and the labels with all inner ones tied; -1 where none may."""
    choice = view.ledger.choose(key, moved, candidate_axes)
    if choice < 0:
        view.ledger.fix(moved, view.reason("heads are left whole"))
        return -1, moved
    shrinking = candidate_axes[choice]
    first = moved[
        tuple(slice(0, 1) if a in candidate_axes and a > shrinking else slice(None) for a in range(moved.ndim))
    ]
    view.ledger.tie(moved, first)
    if varying_axes(first) != [shrinking]:
        view.ledger.balance(first, shrinking)
    return shrinking, first


@rule("Transpose")
def transpose(view: NodeView) -> list[Axes]:
    """Axes permuted."""
    rank = len(view.shape(0))
    perm = list(view.attrs.get("perm", range(rank)[::-1]))
    axes = view.labels(0)
    return [tuple(axes[p] if axes[p].ndim == 1 else np.transpose(axes[p], perm) for p in perm)]


def _broadcast_shape(view: NodeView, slot: int = 1) -> tuple[Shape, Shape]:
    new = view.out_shape()
    old = view.shape(0)
    return (1,) * (len(new) - len(old)) + tuple(old), new


@rule("Expand", resize=_retarget_shape)
def expand(view: NodeView) -> list[Axes]:
    """Axes that keep their size are kept; new ones can shrink, the target follows."""
    old, new = _broadcast_shape(view)
    rank = len(new)
    axes = [view.barrier("axis of a single position")] * (rank - len(view.shape(0)))
    axes += [x if x.ndim == 1 else x.reshape((1,) * (rank - x.ndim) + x.shape) for x in view.labels(0)]
    unknown = _axes_of_unknown_target(view)
    for axis in unknown:  # the target may be 1 there, or the size: nothing says which, so it cannot follow
        view.ledger.fix(axes[axis], view.reason(EXPANDED))
    kept = [view.barrier(EXPANDED) if a in unknown else x for a, x in enumerate(axes)]
    return [tuple(x if o == n else _made(view, a, n) for a, (x, o, n) in enumerate(zip(kept, old, new, strict=True)))]


def _axes_of_unknown_target(view: NodeView) -> list[int]:
    """The axes of more than one position that an Expand is asked for a size of that the run alone knows."""
    old, new = _broadcast_shape(view)
    try:
        target = view.listed_in_part("shape", 1)
    except Unsupported:
        target = [None] * len(new)
    asked = [1] * (len(new) - len(target or ())) + list(target or ())
    return [a for a, (size, wanted) in enumerate(zip(old, asked, strict=True)) if size != 1 and wanted is None]


def _made(view: NodeView, axis: int, size: int) -> Array:
    """Labels of an axis that the operator makes: they can go unless the size is dynamic."""
    if axis in view.static.dynamic.get(view.node.output[0], ()):
        return view.barrier("dynamic axis")
    if view.node.op_type == "Expand" and any(view.ledger.row_of(labels) for labels in view.labels(0)):
        return view.barrier("copies of a row")
    if size > view.ledger.longest:
        return view.barrier(LONG)
    return view.ledger.fresh(view.node.output[0], axis, size)


def _retarget_fill(edit: Edit) -> None:
    """The shape follows."""
    edit.retarget(0, fold=edit.view.constant[0])


@rule("ConstantOfShape", resize=_retarget_fill)
def constant_of_shape(view: NodeView) -> list[Axes]:
    """Every axis can shrink, the shape follows."""
    return [
        tuple(
            _made(view, a, n) if n != 1 else view.barrier("axis of a single position")
            for a, n in enumerate(view.out_shape())
        )
    ]


@rule("Tile")
def tile(view: NodeView) -> list[Axes]:
    """Copies carry the labels of their origin."""
    old, new = view.shape(0), view.out_shape()
    made = []
    for axis, (labels, o, n) in enumerate(zip(view.labels(0), old, new, strict=True)):
        line = view.uniform(labels, axis)
        if not is_barrier(line) and axis in view.static.dynamic.get(view.node.output[0], ()):
            view.ledger.fix(line, view.reason(COUNTED))
            line = view.barrier(COUNTED)
        elif not is_barrier(line) and o != n:
            line = view.barrier(LONG) if view.is_too_long(n, line) else np.tile(line, n // o)
        made.append(line)
        if o == 1 != n:
            made[-1] = view.barrier("copies")
    return [tuple(made)]


@rule("Concat")
def concat(view: NodeView) -> list[Axes]:
    """Joined along `axis`; the other axes are tied."""
    return concatenated(view, range(len(view.node.input)))


def concatenated(view: NodeView, slots: Sequence[int]) -> list[Axes]:
    """The inputs `slots` joined along the attribute `axis`."""
    rank = len(view.out_shape())
    axis = axis_of(view, 1, slots[0])
    letters: list[Letters | None] = [None] * len(view.node.input)
    for slot in slots:
        letters[slot] = [a if a != axis else f"part{slot}" for a in range(rank)]
    results = list(through(view, letters, [[a if a != axis else "joined" for a in range(rank)]])[0])
    parts = [(view.labels(s)[axis], view.shape(s)[axis]) for s in slots if view.shape(s)[axis]]
    # Parts of unknown sizes may add up to a known one: where each begins is unknown all the same.
    if not all(is_known(view.dims(name)[axis]) for name in (view.node.output[0], *(view.node.input[s] for s in slots))):
        for labels, _ in parts:
            view.ledger.fix(labels, view.reason(COUNTED))
        parts = [(view.barrier(COUNTED), size) for _, size in parts]
    results[axis] = _joined(view, parts, axis)
    return [tuple(results)]


def _joined(view: NodeView, parts: list[tuple[Array, int]], axis: int) -> Array:
    if all(is_barrier(x) for x, _ in parts):
        return parts[0][0]
    if view.is_too_long(view.out_shape()[axis], *(x for x, _ in parts)):
        return view.barrier(LONG)
    if all(x.ndim == 1 for x, _ in parts):
        return np.concatenate([np.broadcast_to(x, (n,)) for x, n in parts])
    fields = [as_field(x, axis, len(view.out_shape())) for x, _ in parts]
    sizes = [n for _, n in parts]
    rows = np.broadcast_shapes(*(tuple(1 if a == axis else s for a, s in enumerate(f.shape)) for f in fields))
    if view.is_too_long(math.prod(rows) * sum(sizes), *fields):
        return view.barrier(LONG)
    wide = [np.broadcast_to(f, (*rows[:axis], n, *rows[axis + 1 :])) for f, n in zip(fields, sizes, strict=True)]
    return np.concatenate(wide, axis)


def take(view: NodeView, axes: Axes, axis: int, positions: Array | range, size: int) -> Axes:
    """The labels after positions of one axis are taken, in their order."""
    made = []
    if not is_known(view.dims(view.node.input[0])[axis]) and not is_barrier(axes[axis]):
        view.ledger.fix(axes[axis], view.reason(COUNTED))
        axes = (*axes[:axis], view.barrier(COUNTED), *axes[axis + 1 :])
    for a, labels in enumerate(axes):
        if a == axis:
            line = view.uniform(labels, a)
            picked = line if is_barrier(line) else np.broadcast_to(line, (size,))[np.asarray(positions)]
            if picked.size == 1 and size > 1 and not is_barrier(picked):
                # An axis of one position cannot shrink.
                view.ledger.fix(picked, view.reason("position taken out of its axis"))
                picked = view.barrier("position taken out of its axis")
            made.append(picked)
        elif labels.ndim > 1 and labels.shape[axis] > 1:
            made.append(as_line(np.take(labels, np.asarray(positions), axis), a))
        else:
            made.append(labels)
    return tuple(made)


@rule("DepthToSpace")
def depth_to_space(view: NodeView) -> list[Axes]:
    """A channel goes with the block of channels that becomes its pixels."""
    x, b = view.labels(0), int(view.attrs["blocksize"])
    channels = view.shape(0)[1]
    line = np.broadcast_to(view.uniform(x[1], 1), (channels,))
    block = line.reshape(-1, b * b) if view.attrs.get("mode", "DCR") == "CRD" else line.reshape(b * b, -1).T
    view.ledger.tie(block, block[:, :1])
    for axis in (2, 3):
        view.ledger.fix(x[axis], view.reason("pixels"))
    return [(x[0], block[:, 0], view.barrier("pixels"), view.barrier("pixels"))]


@rule("SpaceToDepth")
def space_to_depth(view: NodeView) -> list[Axes]:
    """A channel goes with all the pixels of a block that become channels."""
    x, b = view.labels(0), int(view.attrs["blocksize"])
    line = np.broadcast_to(view.uniform(x[1], 1), (view.shape(0)[1],))
    for axis in (2, 3):
        view.ledger.fix(x[axis], view.reason("pixels"))
    if view.is_too_long(b * b * len(line), line):
        return [(x[0], view.barrier(LONG), view.barrier("pixels"), view.barrier("pixels"))]
    made = np.repeat(line, b * b) if view.attrs.get("mode", "DCR") == "CRD" else np.tile(line, b * b)
    return [(x[0], made, view.barrier("pixels"), view.barrier("pixels"))]
