"""Operators that write positions into a tensor: ScatterElements, ScatterND.

`x[:, :, 4:] = y` is exported as a scatter whose constant index lists every coordinate of a block. An axis of the block
whose coordinates run through an axis of the data from its first position to its last is that axis: both are tied, and
the index is written again for the positions that remain.
"""

from __future__ import annotations

import numpy as np

from onnxprune.tracing.labels import Axes, varying_axes
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.index import by_elements
from onnxprune.tracing.rules.letters import Letters, through
from onnxprune.tracing.rules.node_view import COMPUTED, Letter, NodeView
from onnxprune.tracing.rules.norm import axis_of
from onnxprune.tracing.rules.registry import rule
from onnxprune.typing import Array


def _remaining(edit: Edit, index: Array, count: int) -> Array:
    """The part of an index that belongs to the updates that remain, along its first `count` axes."""
    for axis in range(count):
        index = index.compress(edit.kept(2, axis), axis)
    return index


def _numbers(edit: Edit, axis: int) -> Array:
    """The new numbers of the positions of an axis of the data."""
    return np.cumsum(edit.kept(0, axis)) - 1


# --- element by element --------------------------------------------------------------------------------------


def _whole_axis(view: NodeView) -> Array | None:
    """A constant index that runs through `axis` in order, wherever it stands; None if it is another."""
    index, axis = view.value(1), axis_of(view, 0)
    size = view.shape(0)[axis]
    if index is None or index.ndim != len(view.shape(0)) or index.shape[axis] != size:
        return None
    order = np.arange(size).reshape([-1 if a == axis else 1 for a in range(index.ndim)])
    return index if (np.where(index < 0, index + size, index) == order).all() else None


def _resize_elements(edit: Edit) -> None:
    """An index that runs through its axis lists the positions that remain."""
    index, axis = _whole_axis(edit.view), axis_of(edit.view, 0)
    if index is not None and edit.changed():
        index = np.where(index < 0, index + index.shape[axis], index)
        edit.set_input(1, _numbers(edit, axis)[_remaining(edit, index, index.ndim)].astype(index.dtype), "index")


@rule("ScatterElements", "Scatter", resize=_resize_elements)
def scatter_elements(view: NodeView) -> list[Axes]:
    """Kept across `axis`, which must stay whole unless a constant index runs through it."""
    if _whole_axis(view) is None:
        return by_elements(view, [0, 1, 2], None)
    shape = view.shape(0)
    _even(view, range(len(shape)))
    updates: Letters = [a if n == shape[a] else f"x{a}" for a, n in enumerate(view.shape(2))]
    part = [a for a, letter in enumerate(updates) if letter != a]
    fixes: dict[Letter, str] = {letter: "indexed in part" for a in part for letter in (a, f"x{a}")}
    return through(view, [range(len(shape)), None, updates], [range(len(shape))], fixes=fixes)


def _even(view: NodeView, axes: range | list[int]) -> None:
    """Axes of the data whose positions are numbered the same in all rows."""
    for axis in axes:
        view.uniform(view.labels(0)[axis], axis)


# --- by coordinates ------------------------------------------------------------------------------------------


def _covered(view: NodeView) -> dict[int, int]:
    """Axis of the data -> the axis of a constant index along which its coordinates run through it."""
    index, shape = view.value(1), view.shape(0)
    if index is None or not index.size:
        return {}
    along = {axis: varying_axes(index[..., axis]) for axis in range(index.shape[-1])}
    used = [a for varying in along.values() for a in varying]
    found = {}
    for axis, varying in along.items():
        if len(varying) == 1 and used.count(varying[0]) == 1:
            line = np.moveaxis(index[..., axis], varying[0], -1).reshape(-1, index.shape[varying[0]])[0]
            if np.array_equal(np.where(line < 0, line + shape[axis], line), np.arange(shape[axis])):
                found[axis] = varying[0]
    return found


def _resize_coordinates(edit: Edit) -> None:
    """Coordinates of an axis that a constant index runs through are those of the positions that remain."""
    index, covered = edit.view.value(1), _covered(edit.view)
    if index is None or not covered or not edit.changed():
        return
    new = _remaining(edit, index, index.ndim - 1).copy()
    for axis in covered:
        size = edit.view.shape(0)[axis]
        new[..., axis] = _numbers(edit, axis)[np.where(new[..., axis] < 0, new[..., axis] + size, new[..., axis])]
    edit.set_input(1, new, "index")


@rule("ScatterND", resize=_resize_coordinates)
def scatter_nd(view: NodeView) -> list[Axes]:
    """Kept behind the indexed axes, which must stay whole unless a constant index runs through them."""
    x = list(range(len(view.shape(0))))
    depth, covered = view.shape(1)[-1], _covered(view)
    block: list[Letter] = [f"i{a}" for a in range(len(view.shape(1)) - 1)]
    for axis, along in covered.items():
        block[along] = axis
    # A row left out leaves the data as it was, which is not the same as a row of zeros.
    fixes = dict.fromkeys([a for a in [*x[:depth], *block, "depth"] if a not in covered], COMPUTED)
    _even(view, list(covered))
    index = None if covered else [*block, "depth"]
    return through(view, [x, index, [*block, *x[depth:]]], [x], fixes=fixes)
