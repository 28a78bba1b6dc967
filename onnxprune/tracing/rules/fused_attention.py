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
from onnxprune.tracing.rules.registry import Contraction, rule
from onnxprune.tracing.rules.site import Site
from onnxprune.typing import Array


def _widths(site: Site) -> list[int]:
    """The columns of the merged weight that make queries, keys and values."""
    return [int(i) for i in site.attrs.get("qkv_hidden_sizes", ())] or [site.shape(1)[1] // 3] * 3


def _parts(widths: Sequence[int]) -> list[slice]:
    ends = np.cumsum([0, *widths]).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


def _several(site: Site, line: Array, counts: Sequence[int], widths: Sequence[int]) -> list[heads.Heads]:
    """The heads of queries, keys and values that follow each other along one axis."""
    if len(line) not in (1, sum(widths)):
        raise Unsupported(f"{len(line)} columns for queries, keys and values of {list(widths)}")
    full = line if is_barrier(line) else np.broadcast_to(line, (sum(widths),))
    return [
        heads.parted(site, full if is_barrier(full) else full[part], count, width, index)
        for index, (part, count, width) in enumerate(zip(_parts(widths), counts, widths, strict=True))
    ]


def _merged_works(site: Site) -> list[Contraction]:
    """The projection, and the scores and their use, as wide as the values."""
    output = heads.axes_of(site, 0)[:2]
    wide: Contraction = [(None, a) for a in range(3)]
    return [[*output, (1, 0), (1, 1)], *heads.products(site, wide, [(0, 1), (4, 3)])]


def _follow_merged(edit: Edit) -> None:
    """The number of heads and the widths follow, and the scale stays."""
    site = edit.site
    count, widths = int(site.attrs["num_heads"]), _widths(site)
    left = [heads.left_of(edit, 1, count, part) for part in _parts(widths)]
    new = [rows * size for rows, size in left]
    edit.set_attribute("num_heads", left[0][0])
    if "qkv_hidden_sizes" in site.attrs or len(set(new)) > 1:
        edit.set_attribute("qkv_hidden_sizes", new)
    heads.keep_scale(edit, widths[0] // count, left[0][1])


@rule("Attention", domain=MICROSOFT, follow=_follow_merged, works=_merged_works)
def merged_attention(site: Site) -> list[Axes]:
    """Input contracted; heads of the merged weight go whole, or positions within each."""
    count, widths = int(site.attrs.get("num_heads", 0)), _widths(site)
    line = site.uniform(site.labels(1)[1], 1)
    q, k, v = _several(site, line, [count] * 3, widths)
    y = heads.attend(site, q, k, v)
    if site.has(2):
        site.ledger.tie(site.labels(2)[0], line)
    if site.attrs.get("do_rotary"):
        heads.keep_size(site, q, k)
    heads.tie_rows(site, 5, 1, q)
    cached = site.has(4) or (len(site.node.output) > 1 and bool(site.node.output[1]))
    if cached:  # keys and values in one tensor
        site.ledger.tie(k.within, v.within)
    if site.has(4):
        heads.tie_heads(site, heads.apart(site, 4, 2, 4), k)
    heads.keep_whole(site, 3, 6)
    inputs: list[Letters | None] = [("b", "s", "in"), ("in", "columns"), ("columns of the bias",), None]
    inputs += [("two", "b", "past head", "past", "past dim"), heads.like_scores(site, 5), None]
    outputs: list[Letters] = [("b", "s", "y head"), ("two", "b", "y head", "total", "y dim")]
    axes = heads.around(site, inputs, outputs, ordered=True)
    axes[0] = (*axes[0][:2], heads.listed(site, y))
    if len(axes) > 1 and axes[1]:
        axes[1] = heads.with_heads(axes[1], k, 2, 4)
    return axes


def _multi_head_works(site: Site) -> list[Contraction]:
    query: Contraction = heads.axes_of(site, 0) if len(site.shape(0)) == 3 else [(None, a) for a in range(3)]
    slot = 1 if site.has(1) else 0
    position = 2 if len(site.shape(slot)) == 4 else 1
    return heads.products(site, query, [(slot, position), (6, 2)])


def _follow_multi_head(edit: Edit) -> None:
    """The number of heads follows, and the scale stays."""
    site = edit.site
    count = int(site.attrs["num_heads"])
    if len(site.shape(0)) == 5:
        edit.set_attribute("num_heads", (edit.new_in[0] or site.shape(0))[2])
        return
    rows, size = heads.left_of(edit, 0, count)
    edit.set_attribute("num_heads", rows)
    heads.keep_scale(edit, site.shape(0)[2] // count, size)


@rule("MultiHeadAttention", domain=MICROSOFT, follow=_follow_multi_head, works=_multi_head_works)
def multi_head_attention(site: Site) -> list[Axes]:
    """Heads go whole, or positions within each."""
    count = int(site.attrs.get("num_heads", 0))
    q, k, v = _multi_heads(site, count)
    y = heads.attend(site, q, k, v)
    if site.has(3):
        _tie_bias(site, 3, [q, k, v])
    heads.tie_rows(site, 5, len(site.shape(5)) - 3 if site.has(5) else 0, q)
    heads.tie_cache(site, 6, k)
    heads.tie_cache(site, 7, v)
    heads.keep_whole(site, 4, 8, 9)
    inputs = [
        *heads.letters_of_all(site, "t"),
        *(("bias",), None, heads.like_scores(site, 5), heads.PAST_KEYS, heads.PAST_VALUES, None, None),
    ]
    packed = len(site.shape(0)) == 5 or not site.has(1)
    ordered = bool(site.attrs.get("unidirectional")) or packed or any(site.has(s) for s in (4, 6, 8))
    axes = heads.around(site, inputs, [("b", "s", "y head"), heads.CACHE, heads.CACHE, heads.SCORES], ordered=ordered)
    axes[0] = (*axes[0][:2], heads.listed(site, y))
    return heads.with_caches(axes, y, k, v)


def _multi_heads(site: Site, count: int) -> list[heads.Heads]:
    """Queries, keys and values, separate or packed as [batch, positions, heads, 2 or 3, size]."""
    if len(site.shape(0)) == 5:
        q = heads.apart(site, 0, 2, 4)
        heads.keep_size(site, q)
        return [q, q, q]
    q = heads.given(site, 0, count, 0)
    if not site.has(1):
        return [q, q, q]
    if len(site.shape(1)) == 5:
        k = heads.apart(site, 1, 2, 4)
        heads.keep_size(site, q, k)
        return [q, k, k]
    k = heads.given(site, 1, count, 1)
    return [q, k, heads.given(site, 2, count, 2)]


def _tie_bias(site: Site, slot: int, parts: Sequence[heads.Heads]) -> None:
    """A bias of queries, keys and values that follow each other."""
    line = np.broadcast_to(site.labels(slot)[0], site.shape(slot))
    for part, one in zip(_parts([h.count * h.size for h in parts]), parts, strict=True):
        own = line[part].reshape(one.count, one.size)
        if is_barrier(one.rows):
            site.ledger.tie(own, one.within)
        else:
            site.ledger.tie(own, one.each[:, None])


def _grouped_counts(site: Site) -> list[int]:
    return [int(site.attrs.get(name, 0)) for name in ("num_heads", "kv_num_heads", "kv_num_heads")]


def _grouped_widths(site: Site) -> list[int]:
    """The widths of queries, keys and values in a packed input."""
    counts = _grouped_counts(site)
    return [count * (site.shape(0)[2] // max(1, sum(counts))) for count in counts]


def _grouped_works(site: Site) -> list[Contraction]:
    query: Contraction = heads.axes_of(site, 0) if site.has(1) else [(None, a) for a in range(3)]
    return heads.products(site, query, [(1 if site.has(1) else 0, 1), (3, 2)])


def _follow_grouped(edit: Edit) -> None:
    """The numbers of heads follow."""
    site = edit.site
    counts = _grouped_counts(site)
    parts = [slice(None)] * 2 if site.has(1) else _parts(_grouped_widths(site))[:2]
    for name, slot, count, part in zip(
        ("num_heads", "kv_num_heads"), (0, 1 if site.has(1) else 0), counts, parts, strict=False
    ):
        edit.set_attribute(name, heads.left_of(edit, slot, count, part)[0])


@rule("GroupQueryAttention", domain=MICROSOFT, follow=_follow_grouped, works=_grouped_works)
def grouped_query_attention(site: Site) -> list[Axes]:
    """Heads of keys and values go whole, with the queries' that attend to them."""
    counts = _grouped_counts(site)
    if site.has(1):
        q, k, v = (heads.given(site, slot, count, slot) for slot, count in enumerate(counts))
    else:
        q, k, v = _several(site, site.uniform(site.labels(0)[2], 2), counts, _grouped_widths(site))
    y = heads.attend(site, q, k, v)
    heads.keep_size(site, q, k, v)  # the runtime wants keys and values of one size, and caches of cosines to fit
    heads.tie_cache(site, 3, k)
    heads.tie_cache(site, 4, v)
    heads.tie_rows(site, 10, 1, q)
    heads.tie_rows(site, 11, 0, q)
    for slot, one in ((12, k), (13, v)):
        heads.tie_rows(site, slot, 1, one)
    heads.keep_whole(site, 5, 6, 7, 8, 9, 14, 15)
    scale = [("one", "y head", "one", "scale") if site.has(s) and len(site.shape(s)) == 4 else None for s in (12, 13)]
    inputs = [
        *heads.letters_of_all(site, "s"),
        heads.PAST_KEYS,
        heads.PAST_VALUES,
        *(*[None] * 5, heads.like_scores(site, 10), ("y head",), *scale, None, None),
    ]
    axes = heads.around(site, inputs, [("b", "s", "y head"), heads.CACHE, heads.CACHE, heads.SCORES], ordered=True)
    axes[0] = (*axes[0][:2], heads.listed(site, y))
    return heads.with_caches(axes, y, k, v)
