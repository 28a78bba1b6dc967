"""Attention, linear attention and rotary positions (the latter also as ONNX Runtime fuses them)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules import heads
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Letters
from onnxprune.tracing.rules.registry import Contraction, rule
from onnxprune.tracing.rules.site import Site
from onnxprune.typing import Array


def _standard_works(site: Site) -> list[Contraction]:
    return heads.products(site, heads.axes_of(site, 0), [(1, len(site.shape(1)) - 2), (4, 2)])


def _follow_standard(edit: Edit) -> None:
    """The numbers of heads follow, and the scale stays."""
    site = edit.site
    size = (edit.new_in[0] or site.shape(0))[-1]
    if len(site.shape(0)) == 3:
        for name, slot in (("q_num_heads", 0), ("kv_num_heads", 1)):
            count = int(site.attrs[name])
            left, size_left = heads.left_of(edit, slot, count)
            if left != count:
                edit.set_attribute(name, left)
            size = size_left
        heads.keep_scale(edit, site.shape(0)[2] // int(site.attrs["q_num_heads"]), size)
    else:
        heads.keep_scale(edit, site.shape(0)[3], size)


@rule("Attention", since=23, follow=_follow_standard, works=_standard_works)
def attention(site: Site) -> list[Axes]:
    """Heads go whole, or positions within each; a key's head with the queries' that attend to it."""
    plain = len(site.shape(0)) == 3
    counts = [int(site.attrs.get(n, 0)) for n in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    q, k, v = (heads.given(site, slot, count, slot) for slot, count in enumerate(counts))
    y = heads.attend(site, q, k, v)
    heads.tie_rows(site, 3, len(site.shape(3)) - 3 if site.has(3) else 0, q)
    heads.tie_cache(site, 4, k)
    heads.tie_cache(site, 5, v)
    inputs = [
        *heads.letters_of_all(site, "t"),
        *(heads.like_scores(site, 3), heads.PAST_KEYS, heads.PAST_VALUES, ("b",)),
    ]
    ordered = any(site.attrs.get(n, d) != d for n, d in _PLACED)
    first: Letters = ("b", "s", "y head") if plain else ("b", "y head", "s", "y dim")
    axes = heads.around(site, inputs, [first, heads.CACHE, heads.CACHE, heads.SCORES], ordered=ordered)
    axes[0] = (*axes[0][:2], heads.listed(site, y)) if plain else heads.with_heads(axes[0], y, 1, 3)
    return heads.with_caches(axes, y, k, v)


# Attributes under which a query's place says what it attends to, with their defaults.
_PLACED = (("is_causal", 0), ("left_window_size", -1), ("right_window_size", -1))


def _follow_linear(edit: Edit) -> None:
    """The numbers of heads follow, and the scale stays."""
    for name, slot in (("q_num_heads", 0), ("kv_num_heads", 1)):
        count = int(edit.site.attrs[name])
        left, size = heads.left_of(edit, slot, count)
        edit.set_attribute(name, left)
    heads.keep_scale(edit, edit.site.shape(1)[2] // count, size, zero_is_none=True)


@rule("LinearAttention", follow=_follow_linear)
def linear_attention(site: Site) -> list[Axes]:
    """Heads go whole, or positions within each; a key's head with the queries' that read its state."""
    counts = [int(site.attrs.get(n, 0)) for n in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    q, k, v = (heads.given(site, slot, count, slot) for slot, count in enumerate(counts))
    y = heads.attend(site, q, k, v)
    if site.has(3):
        heads.tie_heads(site, heads.apart(site, 3, 1, 2), k)
        heads.tie_heads(site, heads.apart(site, 3, 1, 3), v)
    if site.has(4) and site.shape(4)[2] == k.count * k.size > k.count:
        heads.tie_heads(site, heads.given(site, 4, k.count, 4), k)
    heads.tie_rows(site, 4, 2, k)
    heads.tie_rows(site, 5, 2, k)
    inputs: list[Letters | None] = [heads.letters_of(site, slot, name, "t") for slot, name in enumerate("qkv")]
    inputs += [STATE, ("b", "t", "decay"), ("b", "t", "rate")]
    axes = heads.around(site, inputs, [("b", "t", "y head"), ("b", "y head", "y k dim", "y dim")], ordered=False)
    axes[0] = (*axes[0][:2], heads.listed(site, y))
    if len(axes) > 1 and axes[1]:
        axes[1] = heads.with_heads(heads.with_heads(axes[1], k, 1, 2), v, 1, 3)
    return axes


STATE: Letters = ("b", "past head", "past k dim", "past v dim")


def _rotary_counts(site: Site, cos: int) -> tuple[int, int]:
    """Number of heads, and how many positions of each are rotated."""
    shape, turned = site.shape(0), int(site.attrs.get("rotary_embedding_dim", 0))
    if len(shape) == 4:
        return shape[1], turned or shape[3]
    count = int(site.attrs.get("num_heads", 0)) or shape[2] // (2 * site.shape(cos)[-1])
    return count, turned or shape[2] // count


def _rotated(site: Site, cos: int, position: int) -> list[Axes]:
    """Rotate pairs within heads: both go together, in all heads, and with their cosine and sine; so do places."""
    x, shape = site.labels(0), site.shape(0)
    count, turned = _rotary_counts(site, cos)
    pairs = heads.given(site, 0, count, 0).within[:, :turned]
    if site.attrs.get("interleaved"):
        pairs = pairs.reshape(count, turned // 2, 2)
    else:
        pairs = pairs.reshape(count, 2, turned // 2).transpose(0, 2, 1)
    places = [(x[axis], axis) for axis in (0, 1 if len(shape) == 3 else 2)]
    for slot in (cos, cos + 1):
        table = site.labels(slot)
        line = np.broadcast_to(site.uniform(table[-1], len(table) - 1), (turned // 2,))
        site.ledger.tie(pairs, line[None, :, None])
        if len(table) == 3:
            _tie_places(site, slot, places)
        else:
            site.ledger.fix(table[0], site.reason("looked up by position"))
    if site.has(position) and len(site.shape(position)) == 2:
        _tie_places(site, position, places)
    elif site.has(position):  # where the first one stands
        heads.keep_whole(site, position)
        site.ledger.fix(places[1][0], site.reason(heads.ORDERED))
    return [x]


def _tie_places(site: Site, slot: int, places: Sequence[tuple[Array, int]]) -> None:
    """Samples and positions of an input of [batch, positions, ...] with those of what is rotated."""
    for axis, (labels, own) in enumerate(places):
        if site.shape(slot)[axis] > 1:
            site.ledger.tie(site.uniform(site.labels(slot)[axis], axis), site.uniform(labels, own))


def _follow_rotary(edit: Edit, cos: int) -> None:
    """The number of heads and of rotated positions follow."""
    site = edit.site
    count, _ = _rotary_counts(site, cos)
    if len(site.shape(0)) == 3 and site.attrs.get("num_heads"):
        edit.set_attribute("num_heads", heads.left_of(edit, 0, count)[0])
    if site.attrs.get("rotary_embedding_dim"):
        edit.set_attribute("rotary_embedding_dim", 2 * int(edit.kept(cos, len(site.shape(cos)) - 1).sum()))


@rule("RotaryEmbedding", since=23, follow=lambda edit: _follow_rotary(edit, 1))
def rotary(site: Site) -> list[Axes]:
    """Heads go whole, or the same pairs of positions within all of them."""
    return _rotated(site, 1, 3)


@rule("RotaryEmbedding", domain=MICROSOFT, follow=lambda edit: _follow_rotary(edit, 2))
def fused_rotary(site: Site) -> list[Axes]:
    """Heads go whole, or the same pairs of positions within all of them."""
    return _rotated(site, 2, 1)
