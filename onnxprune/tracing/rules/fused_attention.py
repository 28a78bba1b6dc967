"""Attention as ONNX Runtime fuses it (domain com.microsoft)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing.labels import Axes, is_barrier
from onnxprune.tracing.rules import heads
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Letters
from onnxprune.tracing.rules.node_view import NodeView
from onnxprune.tracing.rules.registry import Contraction, rule
from onnxprune.typing import Array


def _widths(view: NodeView) -> list[int]:
    """The columns of the merged weight that make queries, keys and values."""
    return [int(i) for i in view.attrs.get("qkv_hidden_sizes", ())] or [view.shape(1)[1] // 3] * 3


def _parts(widths: Sequence[int]) -> list[slice]:
    ends = np.cumsum([0, *widths]).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


def _several(view: NodeView, line: Array, counts: Sequence[int], widths: Sequence[int]) -> list[heads.Heads]:
    """The heads of queries, keys and values that follow each other along one axis."""
    if len(line) not in (1, sum(widths)):
        raise Unsupported(f"{len(line)} columns for queries, keys and values of {list(widths)}")
    full = line if is_barrier(line) else np.broadcast_to(line, (sum(widths),))
    return [
        heads.parted(view, full if is_barrier(full) else full[part], count, width, index)
        for index, (part, count, width) in enumerate(zip(_parts(widths), counts, widths, strict=True))
    ]


def _merged_contractions(view: NodeView) -> list[Contraction]:
    """The projection, and the scores and their use, as wide as the values."""
    output = heads.axes_of(view, 0)[:2]
    wide: Contraction = [(None, a) for a in range(3)]
    return [[*output, (1, 0), (1, 1)], *heads.products(view, wide, [(0, 1), (4, 3)])]


def _resize_merged(edit: Edit) -> None:
    """The number of heads and the widths follow, and the scale stays."""
    view = edit.view
    count, widths = int(view.attrs["num_heads"]), _widths(view)
    left = [heads.left_of(edit, 1, count, part) for part in _parts(widths)]
    new = [rows * size for rows, size in left]
    edit.set_attribute("num_heads", left[0][0])
    if "qkv_hidden_sizes" in view.attrs or len(set(new)) > 1:
        edit.set_attribute("qkv_hidden_sizes", new)
    heads.keep_scale(edit, widths[0] // count, left[0][1])


@rule("Attention", domain=MICROSOFT, resize=_resize_merged, contractions=_merged_contractions)
def merged_attention(view: NodeView) -> list[Axes]:
    """Input contracted; heads of the merged weight go whole, or positions within each."""
    count, widths = int(view.attrs.get("num_heads", 0)), _widths(view)
    line = view.uniform(view.labels(1)[1], 1)
    q, k, v = _several(view, line, [count] * 3, widths)
    y = heads.attend(view, q, k, v)
    if view.has(2):
        view.ledger.tie(view.labels(2)[0], line)
    if view.attrs.get("do_rotary"):
        heads.keep_size(view, q, k)
    heads.tie_rows(view, 5, 1, q)
    cached = view.has(4) or (len(view.node.output) > 1 and bool(view.node.output[1]))
    if cached:  # keys and values in one tensor
        view.ledger.tie(k.within, v.within)
    if view.has(4):
        heads.tie_heads(view, heads.apart(view, 4, 2, 4), k)
    heads.keep_whole(view, 3, 6)
    inputs: list[Letters | None] = [("b", "s", "in"), ("in", "columns"), ("columns of the bias",), None]
    inputs += [("two", "b", "past head", "past", "past dim"), heads.like_scores(view, 5), None]
    outputs: list[Letters] = [("b", "s", "y head"), ("two", "b", "y head", "total", "y dim")]
    axes = heads.around(view, inputs, outputs, ordered=True)
    axes[0] = (*axes[0][:2], heads.listed(view, y))
    if len(axes) > 1 and axes[1]:
        axes[1] = heads.with_heads(axes[1], k, 2, 4)
    return axes


def _multi_head_contractions(view: NodeView) -> list[Contraction]:
    query: Contraction = heads.axes_of(view, 0) if len(view.shape(0)) == 3 else [(None, a) for a in range(3)]
    slot = 1 if view.has(1) else 0
    position = 2 if len(view.shape(slot)) == 4 else 1
    return heads.products(view, query, [(slot, position), (6, 2)])


def _resize_multi_head(edit: Edit) -> None:
    """The number of heads follows, and the scale stays."""
    view = edit.view
    count = int(view.attrs["num_heads"])
    if len(view.shape(0)) == 5:
        edit.set_attribute("num_heads", (edit.new_in[0] or view.shape(0))[2])
        return
    rows, size = heads.left_of(edit, 0, count)
    edit.set_attribute("num_heads", rows)
    heads.keep_scale(edit, view.shape(0)[2] // count, size)


@rule("MultiHeadAttention", domain=MICROSOFT, resize=_resize_multi_head, contractions=_multi_head_contractions)
def multi_head_attention(view: NodeView) -> list[Axes]:
    """Heads go whole, or positions within each."""
    count = int(view.attrs.get("num_heads", 0))
    q, k, v = _multi_heads(view, count)
    y = heads.attend(view, q, k, v)
    if view.has(3):
        _tie_bias(view, 3, [q, k, v])
    heads.tie_rows(view, 5, len(view.shape(5)) - 3 if view.has(5) else 0, q)
    heads.tie_cache(view, 6, k)
    heads.tie_cache(view, 7, v)
    heads.keep_whole(view, 4, 8, 9)
    inputs = [
        *heads.letters_of_all(view, "t"),
        *(("bias",), None, heads.like_scores(view, 5), heads.PAST_KEYS, heads.PAST_VALUES, None, None),
    ]
    packed = len(view.shape(0)) == 5 or not view.has(1)
    ordered = bool(view.attrs.get("unidirectional")) or packed or any(view.has(s) for s in (4, 6, 8))
    axes = heads.around(view, inputs, [("b", "s", "y head"), heads.CACHE, heads.CACHE, heads.SCORES], ordered=ordered)
    axes[0] = (*axes[0][:2], heads.listed(view, y))
    return heads.with_caches(axes, y, k, v)


def _multi_heads(view: NodeView, count: int) -> list[heads.Heads]:
    """Queries, keys and values, separate or packed as [batch, positions, heads, 2 or 3, size]."""
    if len(view.shape(0)) == 5:
        q = heads.apart(view, 0, 2, 4)
        heads.keep_size(view, q)
        return [q, q, q]
    q = heads.given(view, 0, count, 0)
    if not view.has(1):
        return [q, q, q]
    if len(view.shape(1)) == 5:
        k = heads.apart(view, 1, 2, 4)
        heads.keep_size(view, q, k)
        return [q, k, k]
    k = heads.given(view, 1, count, 1)
    return [q, k, heads.given(view, 2, count, 2)]


def _tie_bias(view: NodeView, slot: int, parts: Sequence[heads.Heads]) -> None:
    """A bias of queries, keys and values that follow each other."""
    line = np.broadcast_to(view.labels(slot)[0], view.shape(slot))
    for part, one in zip(_parts([h.count * h.size for h in parts]), parts, strict=True):
        own = line[part].reshape(one.count, one.size)
        if is_barrier(one.rows):
            view.ledger.tie(own, one.within)
        else:
            view.ledger.tie(own, one.each[:, None])


def _grouped_counts(view: NodeView) -> list[int]:
    return [int(view.attrs.get(name, 0)) for name in ("num_heads", "kv_num_heads", "kv_num_heads")]


def _grouped_widths(view: NodeView) -> list[int]:
    """The widths of queries, keys and values in a packed input."""
    counts = _grouped_counts(view)
    return [count * (view.shape(0)[2] // max(1, sum(counts))) for count in counts]


def _grouped_contractions(view: NodeView) -> list[Contraction]:
    query: Contraction = heads.axes_of(view, 0) if view.has(1) else [(None, a) for a in range(3)]
    return heads.products(view, query, [(1 if view.has(1) else 0, 1), (3, 2)])


def _resize_grouped(edit: Edit) -> None:
    """The numbers of heads follow."""
    view = edit.view
    counts = _grouped_counts(view)
    parts = [slice(None)] * 2 if view.has(1) else _parts(_grouped_widths(view))[:2]
    for name, slot, count, part in zip(
        ("num_heads", "kv_num_heads"), (0, 1 if view.has(1) else 0), counts, parts, strict=False
    ):
        edit.set_attribute(name, heads.left_of(edit, slot, count, part)[0])


@rule("GroupQueryAttention", domain=MICROSOFT, resize=_resize_grouped, contractions=_grouped_contractions)
def grouped_query_attention(view: NodeView) -> list[Axes]:
    """Heads of keys and values go whole, with the queries' that attend to them."""
    counts = _grouped_counts(view)
    if view.has(1):
        q, k, v = (heads.given(view, slot, count, slot) for slot, count in enumerate(counts))
    else:
        q, k, v = _several(view, view.uniform(view.labels(0)[2], 2), counts, _grouped_widths(view))
    y = heads.attend(view, q, k, v)
    heads.keep_size(view, q, k, v)  # the runtime wants keys and values of one size, and caches of cosines to fit
    heads.tie_cache(view, 3, k)
    heads.tie_cache(view, 4, v)
    heads.tie_rows(view, 10, 1, q)
    heads.tie_rows(view, 11, 0, q)
    for slot, one in ((12, k), (13, v)):
        heads.tie_rows(view, slot, 1, one)
    heads.keep_whole(view, 5, 6, 7, 8, 9, 14, 15)
    scale = [("one", "y head", "one", "scale") if view.has(s) and len(view.shape(s)) == 4 else None for s in (12, 13)]
    inputs = [
        *heads.letters_of_all(view, "s"),
        heads.PAST_KEYS,
        heads.PAST_VALUES,
        *(*[None] * 5, heads.like_scores(view, 10), ("y head",), *scale, None, None),
    ]
    axes = heads.around(view, inputs, [("b", "s", "y head"), heads.CACHE, heads.CACHE, heads.SCORES], ordered=True)
    axes[0] = (*axes[0][:2], heads.listed(view, y))
    return heads.with_caches(axes, y, k, v)
