"""Attention, linear attention and rotary positions (the latter also as ONNX Runtime fuses them)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules import heads
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Letters
from onnxprune.tracing.rules.node_view import NodeView
from onnxprune.tracing.rules.registry import Contraction, rule
from onnxprune.typing import Array


def _standard_contractions(view: NodeView) -> list[Contraction]:
    return heads.products(view, heads.axes_of(view, 0), [(1, len(view.shape(1)) - 2), (4, 2)])


def _resize_standard(edit: Edit) -> None:
    """The numbers of heads follow, and the scale stays."""
    view = edit.view
    size = (edit.new_in[0] or view.shape(0))[-1]
    if len(view.shape(0)) == 3:
        for name, slot in (("q_num_heads", 0), ("kv_num_heads", 1)):
            count = int(view.attrs[name])
            left, size_left = heads.left_of(edit, slot, count)
            if left != count:
                edit.set_attribute(name, left)
            size = size_left
        heads.keep_scale(edit, view.shape(0)[2] // int(view.attrs["q_num_heads"]), size)
    else:
        heads.keep_scale(edit, view.shape(0)[3], size)


@rule("Attention", since=23, resize=_resize_standard, contractions=_standard_contractions)
def attention(view: NodeView) -> list[Axes]:
    """Heads go whole, or positions within each; a key's head with the queries' that attend to it."""
    plain = len(view.shape(0)) == 3
    counts = [int(view.attrs.get(n, 0)) for n in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    q, k, v = (heads.given(view, slot, count, slot) for slot, count in enumerate(counts))
    y = heads.attend(view, q, k, v)
    heads.tie_rows(view, 3, len(view.shape(3)) - 3 if view.has(3) else 0, q)
    heads.tie_cache(view, 4, k)
    heads.tie_cache(view, 5, v)
    inputs = [
        *heads.letters_of_all(view, "t"),
        *(heads.like_scores(view, 3), heads.PAST_KEYS, heads.PAST_VALUES, ("b",)),
    ]
    ordered = any(view.attrs.get(n, d) != d for n, d in _PLACED)
    first: Letters = ("b", "s", "y head") if plain else ("b", "y head", "s", "y dim")
    axes = heads.around(view, inputs, [first, heads.CACHE, heads.CACHE, heads.SCORES], ordered=ordered)
    axes[0] = (*axes[0][:2], heads.listed(view, y)) if plain else heads.with_heads(axes[0], y, 1, 3)
    return heads.with_caches(axes, y, k, v)


# Attributes under which a query's place says what it attends to, with their defaults.
_PLACED = (("is_causal", 0), ("left_window_size", -1), ("right_window_size", -1))


def _resize_linear(edit: Edit) -> None:
    """The numbers of heads follow, and the scale stays."""
    for name, slot in (("q_num_heads", 0), ("kv_num_heads", 1)):
        count = int(edit.view.attrs[name])
        left, size = heads.left_of(edit, slot, count)
        edit.set_attribute(name, left)
    heads.keep_scale(edit, edit.view.shape(1)[2] // count, size, zero_is_none=True)


@rule("LinearAttention", resize=_resize_linear)
def linear_attention(view: NodeView) -> list[Axes]:
    """Heads go whole, or positions within each; a key's head with the queries' that read its state."""
    counts = [int(view.attrs.get(n, 0)) for n in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    q, k, v = (heads.given(view, slot, count, slot) for slot, count in enumerate(counts))
    y = heads.attend(view, q, k, v)
    if view.has(3):
        heads.tie_heads(view, heads.apart(view, 3, 1, 2), k)
        heads.tie_heads(view, heads.apart(view, 3, 1, 3), v)
    if view.has(4) and view.shape(4)[2] == k.count * k.size > k.count:
        heads.tie_heads(view, heads.given(view, 4, k.count, 4), k)
    heads.tie_rows(view, 4, 2, k)
    heads.tie_rows(view, 5, 2, k)
    inputs: list[Letters | None] = [heads.letters_of(view, slot, name, "t") for slot, name in enumerate("qkv")]
    inputs += [STATE, ("b", "t", "decay"), ("b", "t", "rate")]
    axes = heads.around(view, inputs, [("b", "t", "y head"), ("b", "y head", "y k dim", "y dim")], ordered=False)
    axes[0] = (*axes[0][:2], heads.listed(view, y))
    if len(axes) > 1 and axes[1]:
        axes[1] = heads.with_heads(heads.with_heads(axes[1], k, 1, 2), v, 1, 3)
    return axes


STATE: Letters = ("b", "past head", "past k dim", "past v dim")


def _rotary_counts(view: NodeView, cos: int) -> tuple[int, int]:
    """Number of heads, and how many positions of each are rotated."""
    shape, turned = view.shape(0), int(view.attrs.get("rotary_embedding_dim", 0))
    if len(shape) == 4:
        return shape[1], turned or shape[3]
    count = int(view.attrs.get("num_heads", 0)) or shape[2] // (2 * view.shape(cos)[-1])
    return count, turned or shape[2] // count


def _rotated(view: NodeView, cos: int, position: int) -> list[Axes]:
    """Rotate pairs within heads: both go together, in all heads, and with their cosine and sine; so do places."""
    x, shape = view.labels(0), view.shape(0)
    count, turned = _rotary_counts(view, cos)
    pairs = heads.given(view, 0, count, 0).within[:, :turned]
    if view.attrs.get("interleaved"):
        pairs = pairs.reshape(count, turned // 2, 2)
    else:
        pairs = pairs.reshape(count, 2, turned // 2).transpose(0, 2, 1)
    places = [(x[axis], axis) for axis in (0, 1 if len(shape) == 3 else 2)]
    for slot in (cos, cos + 1):
        table = view.labels(slot)
        line = np.broadcast_to(view.uniform(table[-1], len(table) - 1), (turned // 2,))
        view.ledger.tie(pairs, line[None, :, None])
        if len(table) == 3:
            _tie_places(view, slot, places)
        else:
            view.ledger.fix(table[0], view.reason("looked up by position"))
    if view.has(position) and len(view.shape(position)) == 2:
        _tie_places(view, position, places)
    elif view.has(position):  # where the first one stands
        heads.keep_whole(view, position)
        view.ledger.fix(places[1][0], view.reason(heads.ORDERED))
    return [x]


def _tie_places(view: NodeView, slot: int, places: Sequence[tuple[Array, int]]) -> None:
    """Samples and positions of an input of [batch, positions, ...] with those of what is rotated."""
    for axis, (labels, own) in enumerate(places):
        if view.shape(slot)[axis] > 1:
            view.ledger.tie(view.uniform(view.labels(slot)[axis], axis), view.uniform(labels, own))


def _resize_rotary(edit: Edit, cos: int) -> None:
    """The number of heads and of rotated positions follow."""
    view = edit.view
    count, _ = _rotary_counts(view, cos)
    if len(view.shape(0)) == 3 and view.attrs.get("num_heads"):
        edit.set_attribute("num_heads", heads.left_of(edit, 0, count)[0])
    if view.attrs.get("rotary_embedding_dim"):
        edit.set_attribute("rotary_embedding_dim", 2 * int(edit.kept(cos, len(view.shape(cos)) - 1).sum()))


@rule("RotaryEmbedding", since=23, resize=lambda edit: _resize_rotary(edit, 1))
def rotary(view: NodeView) -> list[Axes]:
    """Heads go whole, or the same pairs of positions within all of them."""
    return _rotated(view, 1, 3)


@rule("RotaryEmbedding", domain=MICROSOFT, resize=lambda edit: _resize_rotary(edit, 2))
def fused_rotary(view: NodeView) -> list[Axes]:
    """Heads go whole, or the same pairs of positions within all of them."""
    return _rotated(view, 2, 1)
