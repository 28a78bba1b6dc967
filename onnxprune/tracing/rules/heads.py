"""Heads: what the rules of all attention operators share.

Queries, keys and values each come as [batch, positions, heads x size], as [batch, heads, positions, size], or packed.
Whatever the layout, a tensor's heads are *rows*; a key's row goes with the query rows that attend to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from onnxprune.tracing.labels import Axes, as_field, as_line, is_barrier
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Letters, through
from onnxprune.tracing.rules.node_view import Letter, MaskedAxis, NodeView
from onnxprune.tracing.rules.registry import Contraction
from onnxprune.typing import Array

ATTENDED = "positions that are attended over"
ORDERED = "positions whose place matters"
WHOLE = "heads of this operator keep their size"


@dataclass(frozen=True)
class Heads:
    """The labels of a tensor's heads.

    Attributes:
        count: number of heads.
        size: positions within each.
        rows: labels of whole heads: a line, or a barrier.
        dims: labels of the positions within, [count or 1, size or 1].
    """

    count: int
    size: int
    rows: Array
    dims: Array

    @property
    def each(self) -> Array:
        """The labels of whole heads, [count]."""
        return np.broadcast_to(self.rows, (self.count,))

    @property
    def within(self) -> Array:
        """The labels of all positions, [count, size]."""
        return np.broadcast_to(self.dims, (self.count, self.size))


def parted(view: NodeView, line: Array, count: int, width: int, part: int) -> Heads:
    """The heads of an axis that lists them one after the other."""
    if count < 1 or width % count:
        raise Unsupported(f"{width} positions are not {count} heads")
    size, ledger = width // count, view.ledger
    if is_barrier(line):
        return Heads(count, size, line, line.reshape(1, 1))
    field = np.broadcast_to(line, (width,)).reshape(count, size)
    if count == 1:
        return Heads(count, size, view.barrier("the only head"), field)
    key = (view.node.output[0], part)
    taken = ledger.choose(key, field, (0, 1))
    if taken == 1:
        ledger.balance(field, 1)
        ledger.heads.setdefault(key, 0)
        return Heads(count, size, ledger.row(key, 0, view.reason("heads, of which positions within may go")), field)
    if taken == 0:
        ledger.tie(field, field[:, :1])
        inner = ledger.barrier(view.reason("position within a head, where whole heads go", inherent=True))
        return Heads(count, size, field[:, 0], inner.reshape(1, 1))
    stay = view.barrier("heads are left whole")
    ledger.tie(field, stay)
    return Heads(count, size, stay, stay.reshape(1, 1))


def apart(view: NodeView, slot: int, rows: int, dims: int) -> Heads:
    """The heads of a tensor that has an axis for them (`rows`), in front of the one within (`dims`)."""
    axes, shape = view.labels(slot), view.shape(slot)
    row = view.ledger.row_of(axes[rows])
    if row is not None:
        view.ledger.heads.setdefault(*row)
    field = as_field(axes[dims], dims, len(shape))
    first = field[tuple(slice(None) if a in (rows, dims) else slice(0, 1) for a in range(field.ndim))]
    if first.size < field.size:
        view.ledger.tie(field, first)
    return Heads(
        shape[rows],
        shape[dims],
        view.uniform(axes[rows], rows),
        first.reshape(first.shape[rows], first.shape[dims]),
    )


def given(view: NodeView, slot: int, count: int, part: int) -> Heads:
    """The heads of a query, key or value of three or four axes."""
    axes = view.labels(slot)
    if len(axes) == 4:
        return apart(view, slot, 1, 3)
    if len(axes) != 3:
        raise Unsupported(f"input {slot} has {len(axes)} axes")
    return parted(view, view.uniform(axes[2], 2), count, view.shape(slot)[2], part)


def attend(view: NodeView, q: Heads, k: Heads, v: Heads) -> Heads:
    """Tie what must go together; the heads that come out."""
    if q.count % k.count or k.count != v.count or q.size != k.size:
        raise Unsupported(f"{q.count} heads of queries, {k.count} of keys and {v.count} of values")
    ledger, group = view.ledger, q.count // k.count
    if k.count > 1:  # a single key is there for all queries
        ledger.tie(q.each.reshape(k.count, group), k.each[:, None])
        ledger.tie(k.each, v.each)
    ledger.tie(q.within.reshape(k.count, group, -1), k.within[:, None])
    dims = np.repeat(v.dims, group, axis=0) if len(v.dims) > 1 else v.dims
    return Heads(q.count, v.size, q.rows, dims)


def keep_size(view: NodeView, *all_heads: Heads) -> None:
    """Heads go whole or not at all."""
    for heads in all_heads:
        view.ledger.tie(heads.within, view.barrier(WHOLE))


def listed(view: NodeView, heads: Heads) -> Array:
    """The labels of an axis that lists heads one after the other."""
    if is_barrier(heads.rows):
        return heads.rows if is_barrier(heads.dims) else heads.within.reshape(-1)
    view.ledger.tie(heads.within, view.barrier("merged into an axis whose outer part carries the labels"))
    return np.repeat(heads.each, heads.size)


def with_heads(axes: Axes, heads: Heads, rows: int, dims: int) -> Axes:
    """`axes` with those of the heads in place."""
    made, rank = list(axes), len(axes)
    made[rows] = heads.rows
    shape = [1] * rank
    shape[rows], shape[dims] = heads.dims.shape
    made[dims] = as_line(heads.dims.reshape(shape), dims)
    return tuple(made)


def tie_rows(view: NodeView, slot: int, axis: int, heads: Heads) -> None:
    """An axis of an input that has a position for every head, or one for all."""
    if view.has(slot) and len(view.shape(slot)) > axis >= 0 and view.shape(slot)[axis] == heads.count > 1:
        view.ledger.tie(view.uniform(view.labels(slot)[axis], axis), heads.each)


def tie_heads(view: NodeView, past: Heads, heads: Heads) -> None:
    """Past heads and those that go on from them."""
    if past.count != heads.count:
        raise Unsupported(f"{past.count} heads are cached, not {heads.count}")
    view.ledger.tie(past.each, heads.each)
    if past.size == heads.size:
        view.ledger.tie(past.within, heads.within)
    else:  # several positions in a byte
        keep_size(view, past, heads)


def tie_cache(view: NodeView, slot: int, heads: Heads) -> None:
    """A cache of past keys or values: [batch, heads, positions, size]."""
    if view.has(slot):
        past = apart(view, slot, 1, 3)
        tie_heads(view, past, heads)


def keep_whole(view: NodeView, *slots: int) -> None:
    """Inputs that must stay whole: lengths, masks of integers, indices."""
    for slot in slots:
        if view.has(slot):
            for labels in view.labels(slot):
                view.ledger.fix(labels, view.reason("not data but a parameter of the operator", inherent=True))


def around(
    view: NodeView, inputs: Sequence[Letters | None], outputs: Sequence[Letters], *, ordered: bool
) -> list[Axes]:
    """The axes around the heads; those of the heads have letters of their own, and are put in afterwards."""
    fixes: dict[Letter, str] = dict.fromkeys(("t", "past", "total"), ATTENDED)
    if ordered:
        fixes["s"] = ORDERED
    given = [letters if view.has(slot) else None for slot, letters in enumerate(inputs)]
    results = through(view, given[: len(view.node.input)], outputs[: len(view.node.output)], fixes=fixes)
    view.masked_axes[:] = [replace(r, factors=_factors(given, r)) for r in view.masked_axes]
    return results


def _factors(inputs: Sequence[Letters | None], masked_axis: MaskedAxis) -> tuple[int, ...] | None:
    """Queries and keys are multiplied along the positions within a head; values reach outputs of their own alone."""
    letters = inputs[masked_axis.slot] or ()
    role = str(letters[masked_axis.axis]).removeprefix("past ").split(" ")[0]
    if role == "v":
        return ()
    other = {"q": "k dim", "k": "q dim"}.get(role)
    if other is None:
        return masked_axis.factors
    others = (slot for slot, given in enumerate(inputs) if given and {other, other.replace("dim", "head")} & {*given})
    return (masked_axis.slot, *others)


def letters_of(view: NodeView, slot: int, name: str, position: str) -> Letters:
    """Letters of a query, key or value; the output of a removed head is nothing, so all its inputs are silenced."""
    rank = len(view.shape(slot)) if view.has(slot) else 3
    if rank == 5:
        return ("b", position, f"{name} head", "packed", f"{name} dim")
    return ("b", f"{name} head", position, f"{name} dim") if rank == 4 else ("b", position, f"{name} head")


def letters_of_all(view: NodeView, position: str) -> list[Letters]:
    """Letters of queries, keys and values, where the positions of the latter two are called `position`."""
    return [
        letters_of(view, slot, name, place)
        for slot, name, place in ((0, "q", "s"), (1, "k", position), (2, "v", position))
    ]


CACHE: Letters = ("b", "y head", "total", "y dim")
PAST_KEYS: Letters = ("b", "past k head", "past", "past k dim")
PAST_VALUES: Letters = ("b", "past v head", "past", "past v dim")
SCORES: Letters = ("b", "y head", "s", "total")


def like_scores(view: NodeView, slot: int) -> Letters | None:
    """Letters of what is added to the scores, aligned with them on the right."""
    return SCORES[4 - len(view.shape(slot)) :] if view.has(slot) else None


def with_caches(axes: list[Axes], y: Heads, k: Heads, v: Heads) -> list[Axes]:
    """Put the heads into the outputs behind the first: present keys and values, and scores."""
    for slot, heads in ((1, k), (2, v)):
        if len(axes) > slot and axes[slot]:
            axes[slot] = with_heads(axes[slot], heads, 1, 3)
    if len(axes) > 3 and axes[3]:
        batch, _, *rest = axes[3]
        axes[3] = (batch, y.rows, *rest)
    return axes


def products(view: NodeView, query: Contraction, lengths: Sequence[tuple[int, int]]) -> list[Contraction]:
    """Scores and their use, per run of positions that are attended over."""
    output: Contraction = [(None, a) for a in range(len(view.out_shape()))]
    return [[*factor, length] for factor in (query, output) for length in lengths if view.has(length[0])]


def axes_of(view: NodeView, slot: int) -> Contraction:
    """All sizes of an input."""
    return [(slot, a) for a in range(len(view.shape(slot)))]


def left_of(edit: Edit, slot: int, count: int, part: slice = slice(None), axis: int = -1) -> tuple[int, int]:
    """Heads and positions within that remain of an axis (or a part of it) that lists `count` heads."""
    shape = edit.view.shape(slot)
    kept = edit.kept(slot, axis % len(shape))[part].reshape(count, -1)
    rows = int(kept.any(axis=1).sum())
    return rows, int(kept.sum()) // max(rows, 1)


def keep_scale(edit: Edit, old: int, new: int, *, zero_is_none: bool | None = None) -> None:
    """The scale that is 1/sqrt(size) by default stays that of the original.

    Args:
        edit: the node.
        old: positions within a head.
        new: those that remain.
        zero_is_none: a scale of zero means the default; it does in the fused operators.
    """
    zero_is_none = bool(edit.view.node.domain) if zero_is_none is None else zero_is_none
    scale = edit.view.attrs.get("scale")
    if old != new and (scale is None or (scale == 0 and zero_is_none)):
        edit.set_attribute("scale", 1 / sqrt(old))
