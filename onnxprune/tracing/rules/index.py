"""Operators that pick positions: Slice, Split, Gather, Pad."""

from __future__ import annotations

import itertools

import numpy as np

from onnxprune.model.shapes.constant_fold import slice_positions, sliced_range, split_sizes
from onnxprune.model.shapes.polynomials import is_known
from onnxprune.tracing.labels import Axes, as_line, is_barrier
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import LARGEST_INT64, Edit
from onnxprune.tracing.rules.layout import take
from onnxprune.tracing.rules.letters import Letters, through
from onnxprune.tracing.rules.node_view import COMPUTED, LONG, Letter, NodeView
from onnxprune.tracing.rules.norm import axis_of
from onnxprune.tracing.rules.registry import rule
from onnxprune.typing import Array

SELECTED = "how many positions come out depends on the values"


def _bounds(view: NodeView) -> list[tuple[int, int, int, int] | None]:
    """(axis, start, end, step) of every sliced axis; None for one whose bounds are computed."""
    rank = len(view.shape(0))

    def values(name: str, slot: int) -> list[int] | None:
        try:
            return view.listed(name, slot)
        except Unsupported:
            return None

    starts, ends, steps = values("starts", 1), values("ends", 2), values("steps", 4)
    count = len(starts or ends or _axes(view) or range(rank))
    axes = _axes(view) or list(range(count))
    known = starts is not None and ends is not None and (steps is not None or not view.has(4))
    found: list[tuple[int, int, int, int] | None] = []
    for i, axis in enumerate(axes):
        step = steps[i] if steps else 1
        found.append((axis % rank, starts[i], ends[i], step) if known and starts and ends else None)
    return found


def _axes(view: NodeView) -> list[int] | None:
    axes = view.listed("axes", 3)
    return None if axes is None else [a % len(view.shape(0)) for a in axes]


def _resize_slice(edit: Edit) -> None:
    """Bounds count the positions that remain in front of them; a step that no longer fits becomes a Gather."""
    view = edit.view
    bounds = [b for b in _bounds(view) if b is not None]
    edits: dict[int, tuple[int, int, int]] = {}
    for axis, start, end, step in bounds:
        kept = edit.kept(0, axis)
        if kept.all():
            continue
        positions = slice_positions(len(kept), start, end, step)
        wanted = (np.cumsum(kept) - 1)[positions[kept[positions]]]
        steps = np.diff(wanted)
        if len(wanted) and (len(wanted) == 1 or (steps == steps[0]).all()):
            stride = int(steps[0]) if len(steps) else 1
            last = int(wanted[-1]) + (1 if stride > 0 else -1)
            edits[axis] = (int(wanted[0]), last if last >= 0 else -LARGEST_INT64, stride)
        else:
            edits[axis] = (0, LARGEST_INT64, 1)
            edit.gather_after(axis, wanted)
    if edits:
        full = [(a, *edits.get(a, (s, e, st))) for a, s, e, st in bounds]
        if len(full) < len(_bounds(view)):
            raise Unsupported("a Slice has both static and computed bounds")
        edit.set_listed("starts", 1, [b[1] for b in full])
        edit.set_listed("ends", 2, [b[2] for b in full])
        if any(b[3] != 1 for b in full) or view.has(4):
            edit.set_listed("axes", 3, [b[0] for b in full])
            edit.set_listed("steps", 4, [b[3] for b in full])


@rule("Slice", resize=_resize_slice)
def slice_(view: NodeView) -> list[Axes]:
    """Static bounds take positions and follow; axes with computed bounds must stay whole."""
    shape, axes = view.shape(0), view.labels(0)
    listed = _axes(view) or list(range(len(_bounds(view))))
    for axis, bound in zip(listed, _bounds(view), strict=True):
        if bound is None:
            if shape[axis] != view.out_shape()[axis] or not is_barrier(axes[axis]):
                view.ledger.fix(axes[axis], view.reason(COMPUTED))
                axes = (*axes[:axis], view.barrier(COMPUTED), *axes[axis + 1 :])
            continue
        positions = sliced_range(shape[axis], *bound[1:])
        if len(positions) != shape[axis] or bound[3] < 0:
            axes = take(view, axes, axis, positions, shape[axis])
    return [axes]


def _sizes(view: NodeView) -> list[int]:
    axis = axis_of(view, 0)
    return [view.out_shape(i)[axis] for i in range(len(view.node.output))]


def _resize_split(edit: Edit) -> None:
    """The sizes of the parts follow."""
    axis = axis_of(edit.view, 0)
    if not any(axis in edit.changed(i) for i in range(len(edit.node.output))):
        return
    sizes = [shape[axis] for shape in edit.new_out if shape is not None]
    explicit = edit.view.has(1) or "split" in edit.view.attrs
    if explicit or sizes != split_sizes(sum(sizes), len(sizes)):
        for index, attribute in enumerate(edit.node.attribute):
            if attribute.name == "num_outputs":
                del edit.node.attribute[index]
                break
        if edit.view.version < 13:
            edit.set_attribute("split", sizes)
        else:
            edit.set_input(1, np.array(sizes, np.int64), "split")


@rule("Split", resize=_resize_split)
def split(view: NodeView) -> list[Axes]:
    """Each output takes its part; sizes follow. An axis whose parts have computed sizes must stay whole."""
    axis, axes = axis_of(view, 0), view.labels(0)
    if not all(is_known(view.dims(name)[axis]) for name in view.node.output if name):
        view.ledger.fix(axes[axis], view.reason(COMPUTED))
        return [(*axes[:axis], view.barrier(COMPUTED), *axes[axis + 1 :])] * len(view.node.output)
    ends = itertools.accumulate(_sizes(view))
    size = view.shape(0)[axis]
    return [take(view, axes, axis, range(end - n, end), size) for n, end in zip(_sizes(view), ends, strict=True)]


def _resize_gather(edit: Edit) -> None:
    """Constant indices count the positions that remain; whoever feeds the ids of named rows maps them."""
    view, axis = edit.view, axis_of(edit.view, 0)
    kept = edit.kept(0, axis)
    index = view.value(1)
    if kept.all() or (index is None and not view.state.fixed_rows(view.node.input[0])):
        return
    index = _positions(view, index, axis)
    wanted = index[kept[index]] if index.ndim == 1 else index
    edit.set_input(1, (np.cumsum(kept) - 1)[wanted].astype(np.int64), "indices")


def _positions(view: NodeView, index: Array | None, axis: int) -> Array:
    if index is None:
        raise Unsupported(COMPUTED)
    return np.where(index < 0, index + view.shape(0)[axis], index)


@rule("Gather", resize=_resize_gather)
def gather(view: NodeView) -> list[Axes]:
    """Constant indices take positions and follow; an axis with computed indices must stay whole."""
    axis, rank = axis_of(view, 0), len(view.shape(0))
    index = view.value(1)
    if index is not None and index.ndim <= 1 and index.size:
        axes, size = view.labels(0), view.shape(0)[axis]
        positions = _positions(view, index, axis)
        taken = take(view, axes, axis, np.atleast_1d(positions), size)
        if index.ndim == 1:
            return [taken]
        return [without(view, taken, axis)]
    places: Letters = [f"i{a}" for a in range(len(view.shape(1)))]
    x: list[Letter] = list(range(rank))
    output = [*x[:axis], *places, *x[axis + 1 :]]
    indices = None if view.constant[1] else places
    why = _why_indexed(view, 1)
    if index is None and axis == 0 and not view.constant[1]:
        why = view.state.fixed_rows(view.node.input[0])
    return through(view, [x, indices], [output], fixes={axis: why} if why else None)


def _why_indexed(view: NodeView, slot: int) -> str:
    """Why an axis must stay whole whose places an input lists."""
    return "indexed by a table" if view.constant[slot] else COMPUTED


def without(view: NodeView, axes: Axes, axis: int) -> Axes:
    """The labels after an axis is dropped; what differs along it is tied."""
    made = []
    for a, labels in enumerate(axes):
        if a != axis:
            left = labels
            if labels.ndim > 1:
                first = labels.take([0], axis)
                view.ledger.tie(labels, first)
                left = np.squeeze(first, axis)
            made.append(as_line(left, a - (a > axis)))
    return tuple(made)


COMPUTED_PADS = "padded by what is computed at run time"


def _pads(view: NodeView) -> dict[int, tuple[int | None, int | None]]:
    """Axis -> positions added in front of it and behind it; None where the run alone knows how many."""
    rank = len(view.shape(0))
    pads = view.listed_in_part("pads" if "pads" in view.attrs else "paddings", 1)
    if pads is None:
        raise Unsupported("pads are computed at run time")
    given = view.listed("axes", 3) if view.has(3) else None
    axes = [a % rank for a in given] if given is not None else list(range(rank))
    return {a: (pads[i], pads[i + len(axes)]) for i, a in enumerate(axes) if (pads[i], pads[i + len(axes)]) != (0, 0)}


def _resize_pads(edit: Edit) -> None:
    """Pads count the added positions that remain."""
    view = edit.view
    pads = dict.fromkeys(range(len(view.shape(0))), (0, 0)) | _pads(view)
    new = dict(pads)
    for axis, (front, back) in pads.items():
        if axis in edit.changed() and front is not None and back is not None and max(front, back) > 0:
            kept = edit.kept(None, axis)
            new[axis] = (int(kept[:front].sum()), int(kept[len(kept) - back :].sum()))
    if new != pads:
        fronts, backs = (
            [n for n in ends if n is not None] for ends in zip(*(new[a] for a in sorted(new)), strict=True)
        )
        if len(fronts) < len(new) or len(backs) < len(new):
            raise Unsupported("a Pad has both static and computed pads")
        name = "paddings" if "paddings" in view.attrs else "pads"
        edit.set_listed(name, 1, fronts + backs)
        if view.has(3):
            edit.set_input(3, np.array(sorted(new), np.int64), "axes")


@rule("Pad", resize=_resize_pads)
def pad(view: NodeView) -> list[Axes]:
    """Positions that are added along a labelled axis can go too; copied or cropped ones must stay."""
    axes = list(view.labels(0))
    constant = view.attrs.get("mode", "constant") == "constant"
    for axis, (front, back) in _pads(view).items():
        if front is None or back is None:
            view.ledger.fix(axes[axis], view.reason(COMPUTED_PADS))
            axes[axis] = view.barrier(COMPUTED_PADS)
        elif min(front, back) < 0 or not constant:
            view.ledger.fix(axes[axis], view.reason("padded with neighbours or cropped"))
            axes[axis] = view.barrier("padded with neighbours or cropped")
        elif not is_barrier(axes[axis]) and view.is_too_long(view.out_shape()[axis], axes[axis]):
            axes[axis] = view.barrier(LONG)
        elif not is_barrier(axes[axis]):
            line, size = view.uniform(axes[axis], axis), view.shape(0)[axis]
            added = view.ledger.fresh(view.node.output[0], axis, front + back)
            axes[axis] = np.concatenate([added[:front], np.broadcast_to(line, (size,)), added[front:]])
        axes = [x if a == axis or x.ndim == 1 else _spread(view, x, a, axis) for a, x in enumerate(axes)]
    return [tuple(axes)]


def _spread(view: NodeView, labels: Array, axis: int, padded: int) -> Array:
    """A field whose rows are padded: the rows are made equal."""
    return view.uniform(labels, axis) if labels.shape[padded] > 1 else labels


@rule("Compress")
def compressed_positions(view: NodeView) -> list[Axes]:
    """Kept across `axis`, which must stay whole, as must its condition; without one, nothing passes."""
    if "axis" not in view.attrs:
        raise Unsupported(SELECTED)
    axis, rank = axis_of(view, 0), len(view.shape(0))
    output: list[Letter] = ["selected" if a == axis else a for a in range(rank)]
    return through(view, [range(rank), ["condition"]], [output], fixes={axis: SELECTED, "condition": SELECTED})


@rule("GatherElements")
def gather_elements(view: NodeView) -> list[Axes]:
    """Kept across `axis`, which must stay whole."""
    return by_elements(view, [0, 1], "taken")


def by_elements(view: NodeView, slots: list[int], taken: str | None) -> list[Axes]:
    """Indices stand beside the data: other axes are tied where they have the same size."""
    axis, shape = axis_of(view, 0), view.shape(0)
    why = _why_indexed(view, 1)
    fixes: dict[Letter, str] = {axis: why}
    letters: list[list[Letter]] = []
    for slot in slots:
        row: list[Letter] = []
        for a, size in enumerate(view.shape(slot)):
            same = size == shape[a]
            row.append(a if slot == 0 else (f"x{a}" if a == axis or not same else a))
            if not same:
                fixes[a] = "indexed in part"
            if slot and (a == axis or not same):
                fixes[f"x{a}"] = why
        letters.append(row)
    output = letters[1] if taken else letters[0]
    return through(view, letters, [output], fixes=fixes)


@rule("GatherND")
def gather_nd(view: NodeView) -> list[Axes]:
    """Kept behind the indexed axes, which must stay whole."""
    batch, rank = int(view.attrs.get("batch_dims", 0)), len(view.shape(0))
    depth = view.shape(1)[-1]
    x = list(range(rank))
    index: list[Letter] = [*x[:batch], *(f"i{a}" for a in range(batch, len(view.shape(1)) - 1)), "depth"]
    fixes = dict.fromkeys([*x[batch : batch + depth], "depth"], _why_indexed(view, 1))
    return through(view, [x, index], [[*index[:-1], *x[batch + depth :]]], fixes=fixes)
