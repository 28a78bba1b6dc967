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
from onnxprune.tracing.rules.norm import axis_of
from onnxprune.tracing.rules.registry import rule
from onnxprune.tracing.rules.site import COMPUTED, LONG, Letter, Site
from onnxprune.typing import Array

SELECTED = "how many positions come out depends on the values"


def _bounds(site: Site) -> list[tuple[int, int, int, int] | None]:
    """(axis, start, end, step) of every sliced axis; None for one whose bounds are computed."""
    rank = len(site.shape(0))

    def values(name: str, slot: int) -> list[int] | None:
        try:
            return site.listed(name, slot)
        except Unsupported:
            return None

    starts, ends, steps = values("starts", 1), values("ends", 2), values("steps", 4)
    count = len(starts or ends or _axes(site) or range(rank))
    axes = _axes(site) or list(range(count))
    known = starts is not None and ends is not None and (steps is not None or not site.has(4))
    found: list[tuple[int, int, int, int] | None] = []
    for i, axis in enumerate(axes):
        step = steps[i] if steps else 1
        found.append((axis % rank, starts[i], ends[i], step) if known and starts and ends else None)
    return found


def _axes(site: Site) -> list[int] | None:
    axes = site.listed("axes", 3)
    return None if axes is None else [a % len(site.shape(0)) for a in axes]


def _follow_slice(edit: Edit) -> None:
    """Bounds count the positions that remain in front of them; a step that no longer fits becomes a Gather."""
    site = edit.site
    bounds = [b for b in _bounds(site) if b is not None]
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
        if len(full) < len(_bounds(site)):
            raise Unsupported("a Slice has both static and computed bounds")
        edit.set_listed("starts", 1, [b[1] for b in full])
        edit.set_listed("ends", 2, [b[2] for b in full])
        if any(b[3] != 1 for b in full) or site.has(4):
            edit.set_listed("axes", 3, [b[0] for b in full])
            edit.set_listed("steps", 4, [b[3] for b in full])


@rule("Slice", follow=_follow_slice)
def slice_(site: Site) -> list[Axes]:
    """Static bounds take positions and follow; axes with computed bounds must stay whole."""
    shape, axes = site.shape(0), site.labels(0)
    listed = _axes(site) or list(range(len(_bounds(site))))
    for axis, bound in zip(listed, _bounds(site), strict=True):
        if bound is None:
            if shape[axis] != site.out_shape()[axis] or not is_barrier(axes[axis]):
                site.ledger.fix(axes[axis], site.reason(COMPUTED))
                axes = (*axes[:axis], site.barrier(COMPUTED), *axes[axis + 1 :])
            continue
        positions = sliced_range(shape[axis], *bound[1:])
        if len(positions) != shape[axis] or bound[3] < 0:
            axes = take(site, axes, axis, positions, shape[axis])
    return [axes]


def _sizes(site: Site) -> list[int]:
    axis = axis_of(site, 0)
    return [site.out_shape(i)[axis] for i in range(len(site.node.output))]


def _follow_split(edit: Edit) -> None:
    """The sizes of the parts follow."""
    axis = axis_of(edit.site, 0)
    if not any(axis in edit.changed(i) for i in range(len(edit.node.output))):
        return
    sizes = [shape[axis] for shape in edit.new_out if shape is not None]
    explicit = edit.site.has(1) or "split" in edit.site.attrs
    if explicit or sizes != split_sizes(sum(sizes), len(sizes)):
        for index, attribute in enumerate(edit.node.attribute):
            if attribute.name == "num_outputs":
                del edit.node.attribute[index]
                break
        if edit.site.version < 13:
            edit.set_attribute("split", sizes)
        else:
            edit.set_input(1, np.array(sizes, np.int64), "split")


@rule("Split", follow=_follow_split)
def split(site: Site) -> list[Axes]:
    """Each output takes its part; sizes follow. An axis whose parts have computed sizes must stay whole."""
    axis, axes = axis_of(site, 0), site.labels(0)
    if not all(is_known(site.dims(name)[axis]) for name in site.node.output if name):
        site.ledger.fix(axes[axis], site.reason(COMPUTED))
        return [(*axes[:axis], site.barrier(COMPUTED), *axes[axis + 1 :])] * len(site.node.output)
    ends = itertools.accumulate(_sizes(site))
    size = site.shape(0)[axis]
    return [take(site, axes, axis, range(end - n, end), size) for n, end in zip(_sizes(site), ends, strict=True)]


def _follow_gather(edit: Edit) -> None:
    """Constant indices count the positions that remain; whoever feeds the ids of named rows maps them."""
    site, axis = edit.site, axis_of(edit.site, 0)
    kept = edit.kept(0, axis)
    index = site.value(1)
    if kept.all() or (index is None and not site.state.fixed_rows(site.node.input[0])):
        return
    index = _positions(site, index, axis)
    wanted = index[kept[index]] if index.ndim == 1 else index
    edit.set_input(1, (np.cumsum(kept) - 1)[wanted].astype(np.int64), "indices")


def _positions(site: Site, index: Array | None, axis: int) -> Array:
    if index is None:
        raise Unsupported(COMPUTED)
    return np.where(index < 0, index + site.shape(0)[axis], index)


@rule("Gather", follow=_follow_gather)
def gather(site: Site) -> list[Axes]:
    """Constant indices take positions and follow; an axis with computed indices must stay whole."""
    axis, rank = axis_of(site, 0), len(site.shape(0))
    index = site.value(1)
    if index is not None and index.ndim <= 1 and index.size:
        axes, size = site.labels(0), site.shape(0)[axis]
        positions = _positions(site, index, axis)
        taken = take(site, axes, axis, np.atleast_1d(positions), size)
        if index.ndim == 1:
            return [taken]
        return [without(site, taken, axis)]
    places: Letters = [f"i{a}" for a in range(len(site.shape(1)))]
    x: list[Letter] = list(range(rank))
    output = [*x[:axis], *places, *x[axis + 1 :]]
    indices = None if site.constant[1] else places
    why = _why_indexed(site, 1)
    if index is None and axis == 0 and not site.constant[1]:
        why = site.state.fixed_rows(site.node.input[0])
    return through(site, [x, indices], [output], fixes={axis: why} if why else None)


def _why_indexed(site: Site, slot: int) -> str:
    """Why an axis must stay whole whose places an input lists."""
    return "indexed by a table" if site.constant[slot] else COMPUTED


def without(site: Site, axes: Axes, axis: int) -> Axes:
    """The labels after an axis is dropped; what differs along it is tied."""
    made = []
    for a, labels in enumerate(axes):
        if a != axis:
            left = labels
            if labels.ndim > 1:
                first = labels.take([0], axis)
                site.ledger.tie(labels, first)
                left = np.squeeze(first, axis)
            made.append(as_line(left, a - (a > axis)))
    return tuple(made)


COMPUTED_PADS = "padded by what is computed at run time"


def _listed_in_part(site: Site, name: str, slot: int) -> list[int | None] | None:
    """A list as `Site.listed` gives it, with None for the entries that the run alone knows."""
    unknown = site.has(slot) and site.value(slot) is None
    entries = site.facts.entries.get(site.node.input[slot]) if unknown else None
    if entries is None:
        known = site.listed(name, slot)
        return None if known is None else list(known)
    return [int(entry) if is_known(entry) else None for entry in entries.flat]


def _pads(site: Site) -> dict[int, tuple[int | None, int | None]]:
    """Axis -> positions added in front of it and behind it; None where the run alone knows how many."""
    rank = len(site.shape(0))
    pads = _listed_in_part(site, "pads" if "pads" in site.attrs else "paddings", 1)
    if pads is None:
        raise Unsupported("pads are computed at run time")
    given = site.listed("axes", 3) if site.has(3) else None
    axes = [a % rank for a in given] if given is not None else list(range(rank))
    return {a: (pads[i], pads[i + len(axes)]) for i, a in enumerate(axes) if (pads[i], pads[i + len(axes)]) != (0, 0)}


def _follow_pads(edit: Edit) -> None:
    """Pads count the added positions that remain."""
    site = edit.site
    pads = dict.fromkeys(range(len(site.shape(0))), (0, 0)) | _pads(site)
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
        name = "paddings" if "paddings" in site.attrs else "pads"
        edit.set_listed(name, 1, fronts + backs)
        if site.has(3):
            edit.set_input(3, np.array(sorted(new), np.int64), "axes")


@rule("Pad", follow=_follow_pads)
def pad(site: Site) -> list[Axes]:
    """Positions that are added along a labelled axis can go too; copied or cropped ones must stay."""
    axes = list(site.labels(0))
    constant = site.attrs.get("mode", "constant") == "constant"
    for axis, (front, back) in _pads(site).items():
        if front is None or back is None:
            site.ledger.fix(axes[axis], site.reason(COMPUTED_PADS))
            axes[axis] = site.barrier(COMPUTED_PADS)
        elif min(front, back) < 0 or not constant:
            site.ledger.fix(axes[axis], site.reason("padded with neighbours or cropped"))
            axes[axis] = site.barrier("padded with neighbours or cropped")
        elif not is_barrier(axes[axis]) and site.is_too_long(site.out_shape()[axis], axes[axis]):
            axes[axis] = site.barrier(LONG)
        elif not is_barrier(axes[axis]):
            line, size = site.uniform(axes[axis], axis), site.shape(0)[axis]
            added = site.ledger.fresh(site.node.output[0], axis, front + back)
            axes[axis] = np.concatenate([added[:front], np.broadcast_to(line, (size,)), added[front:]])
        axes = [x if a == axis or x.ndim == 1 else _spread(site, x, a, axis) for a, x in enumerate(axes)]
    return [tuple(axes)]


def _spread(site: Site, labels: Array, axis: int, padded: int) -> Array:
    """A field whose rows are padded: the rows are made equal."""
    return site.uniform(labels, axis) if labels.shape[padded] > 1 else labels


@rule("Compress")
def compress(site: Site) -> list[Axes]:
    """Kept across `axis`, which must stay whole, as must its condition; without one, nothing passes."""
    if "axis" not in site.attrs:
        raise Unsupported(SELECTED)
    axis, rank = axis_of(site, 0), len(site.shape(0))
    output: list[Letter] = ["selected" if a == axis else a for a in range(rank)]
    return through(site, [range(rank), ["condition"]], [output], fixes={axis: SELECTED, "condition": SELECTED})


@rule("GatherElements")
def gather_elements(site: Site) -> list[Axes]:
    """Kept across `axis`, which must stay whole."""
    return by_elements(site, [0, 1], "taken")


def by_elements(site: Site, slots: list[int], taken: str | None) -> list[Axes]:
    """Indices stand beside the data: other axes are tied where they have the same size."""
    axis, shape = axis_of(site, 0), site.shape(0)
    why = _why_indexed(site, 1)
    fixes: dict[Letter, str] = {axis: why}
    letters: list[list[Letter]] = []
    for slot in slots:
        row: list[Letter] = []
        for a, size in enumerate(site.shape(slot)):
            same = size == shape[a]
            row.append(a if slot == 0 else (f"x{a}" if a == axis or not same else a))
            if not same:
                fixes[a] = "indexed in part"
            if slot and (a == axis or not same):
                fixes[f"x{a}"] = why
        letters.append(row)
    output = letters[1] if taken else letters[0]
    return through(site, letters, [output], fixes=fixes)


@rule("GatherND")
def gather_nd(site: Site) -> list[Axes]:
    """Kept behind the indexed axes, which must stay whole."""
    batch, rank = int(site.attrs.get("batch_dims", 0)), len(site.shape(0))
    depth = site.shape(1)[-1]
    x = list(range(rank))
    index: list[Letter] = [*x[:batch], *(f"i{a}" for a in range(batch, len(site.shape(1)) - 1)), "depth"]
    fixes = dict.fromkeys([*x[batch : batch + depth], "depth"], _why_indexed(site, 1))
    return through(site, [x, index], [[*index[:-1], *x[batch + depth :]]], fixes=fixes)
