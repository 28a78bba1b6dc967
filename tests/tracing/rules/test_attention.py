"""Labels through Attention and RotaryEmbedding of the standard domain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graphs.net import Net
from tests.graphs.sandwich import Case, check_case, parameters

HEADS, SIZE, LENGTH = 4, 6, 5


def kv(net: Net, heads: int = HEADS, size: int = SIZE, length: int = LENGTH, v_size: int = 0) -> tuple[str, str]:
    """Keys and values that weights of their own make."""
    key = net.make((2, length, heads * size), 2, weight="w_k")
    return key, net.make((2, length, heads * (v_size or size)), 2, weight="w_v")


def apart(net: Net, x: str, heads: int, size: int) -> str:
    """[batch, positions, heads x size] -> [batch, heads, positions, size]."""
    return net.add("Transpose", net.add("Reshape", x, net.ints(0, 0, heads, size)), perm=[0, 2, 1, 3])


def together(net: Net, x: str) -> str:
    return net.add("Reshape", net.add("Transpose", x, perm=[0, 2, 1, 3]), net.ints(0, 0, -1))


def plain(
    kv_heads: int = HEADS, length: int = LENGTH, v_size: int = 0, mask: Any = None, heads: int = HEADS, **attrs: Any
):
    def build(net: Net, x: str) -> str:
        key, value = kv(net, kv_heads, HEADS * SIZE // heads, length, v_size)
        given = [] if mask is None else [mask(net)]
        return net.add("Attention", x, key, value, *given, q_num_heads=heads, kv_num_heads=kv_heads, **attrs)

    return build


def four_axes(kv_heads: int = HEADS, v_size: int = 0, mask: Any = None, **attrs: Any):
    def build(net: Net, x: str) -> str:
        key, value = kv(net, kv_heads, v_size=v_size)
        key, value = apart(net, key, kv_heads, SIZE), apart(net, value, kv_heads, v_size or SIZE)
        given = [] if mask is None else [mask(net)]
        return together(net, net.add("Attention", apart(net, x, HEADS, SIZE), key, value, *given, **attrs))

    return build


def cached(kv_heads: int = HEADS, four: bool = False, past: str = "computed"):
    def build(net: Net, x: str) -> str | list[str]:
        """The caches, as outputs, keep every head; computed past ones have weights of their own."""
        key, value = kv(net, kv_heads)
        if four:
            x, key, value = (apart(net, t, n, SIZE) for t, n in ((x, HEADS), (key, kv_heads), (value, kv_heads)))
        if past == "computed":
            caches = [apart(net, net.make((2, 3, kv_heads * SIZE), 2, weight=w), kv_heads, SIZE) for w in ("pk", "pv")]
        else:
            caches = [net.input((2, kv_heads, 3, SIZE), name=n) for n in ("past_key", "past_value")]
        numbers = {} if four else {"q_num_heads": HEADS, "kv_num_heads": kv_heads}
        y, *present = net.add("Attention", x, key, value, "", *caches, outputs=3, **numbers)
        y = together(net, y) if four else y
        if past == "computed":
            return [y, *(together(net, p) for p in present)]
        for tensor in present:
            net.output(tensor)
        return y

    return build


def scores(mode: int):
    def build(net: Net, x: str) -> list[str]:
        key, value = kv(net)
        y, _, _, scores = net.add(
            *("Attention", x, key, value),
            outputs=4,
            q_num_heads=HEADS,
            kv_num_heads=HEADS,
            qk_matmul_output_mode=mode,
            softcap=3.0,
        )
        net.read(y, 2)
        net.read(scores, 1, weight="w_scores")
        return []

    return build


def mask(*shape: int, kind: Any = np.float32):
    def build(net: Net) -> str:
        value = net.rng.standard_normal(shape)
        return net.const(value.astype(np.float32) if kind is np.float32 else value > -1, "mask")

    return build


def nonpad(net: Net, x: str) -> str:
    key, value = kv(net)
    lengths = net.const(np.array([5, 3], np.int64))
    return net.add("Attention", x, key, value, "", "", "", lengths, q_num_heads=HEADS, kv_num_heads=HEADS)


def as_key(axis: int):
    def build(net: Net, x: str) -> str:
        """`x` is the keys; the axis of the values that carries labels is the same."""
        query = net.make((2, 7, HEADS * SIZE), 2, weight="w_q")
        value = net.make((2, LENGTH, HEADS * SIZE), axis, weight="w_v")
        return net.add("Attention", query, x, value, q_num_heads=HEADS, kv_num_heads=HEADS)

    return build


def cross_given(net: Net, x: str) -> str:
    """Keys and values of the outside world keep their heads."""
    key, value = (net.input((2, LENGTH, HEADS * SIZE), name=n) for n in ("key", "value"))
    return net.add("Attention", x, key, value, q_num_heads=HEADS, kv_num_heads=HEADS)


def rotary(net: Net, x: str, heads: int | None = HEADS, **attrs: Any) -> str:
    """Positions on `x`; cosines and sines are weights."""
    turned = attrs.get("rotary_embedding_dim") or SIZE
    angles = net.rng.standard_normal((7, turned // 2))
    cos, sin = (net.const(f(angles).astype(np.float32), net.fresh(n)) for f, n in ((np.cos, "cos"), (np.sin, "sin")))
    ids = net.const(np.arange(LENGTH)[None].repeat(2, 0).astype(np.int64))
    return net.add("RotaryEmbedding", x, cos, sin, ids, num_heads=heads, **attrs)


def with_positions(four: bool = False, kv_heads: int = HEADS, **turn: Any):
    def build(net: Net, x: str) -> str:
        key, value = kv(net, kv_heads)
        numbers: dict[str, Any] = {"q_num_heads": HEADS, "kv_num_heads": kv_heads}
        if four:
            x, key, value = (apart(net, t, n, SIZE) for t, n in ((x, HEADS), (key, kv_heads), (value, kv_heads)))
            x, key, numbers = rotary(net, x, None, **turn), rotary(net, key, None, **turn), {}
        else:
            x, key = rotary(net, x, **turn), rotary(net, key, kv_heads, **turn)
        y = net.add("Attention", x, key, value, **numbers)
        return together(net, y) if four else y

    return build


def rotary_alone(cache: str = "weights", **attrs: Any):
    def build(net: Net, x: str) -> str:
        if cache == "weights":
            return rotary(net, x, **attrs)
        angles = net.input((2, LENGTH, SIZE // 2), name="angles")
        return net.add("RotaryEmbedding", x, net.add("Cos", angles), net.add("Sin", angles), num_heads=HEADS)

    return build


SHAPE = (2, LENGTH, HEADS * SIZE)
HEAD: dict[str, Any] = {"shape": SHAPE, "units": HEADS, "since": 23}
PAIR: dict[str, Any] = {"shape": SHAPE, "units": 2, "since": 23}
DIMS: dict[str, Any] = {"shape": SHAPE, "units": SIZE, "since": 23, "options": {"head_dims": True}}
# As for the dims of several heads: what carries the queries ends in their product with keys.
ONE: dict[str, Any] = DIMS | {"units": HEADS * SIZE}
ALL = {("w_k", 1): 4, ("w_v", 1): 4, ("w_out", 0): 4}
GROUPED = {("w_k", 1): 2, ("w_v", 1): 2, ("w_out", 0): 2}
KEYS, VALUES = {("w_k", 1): SIZE}, {("w_v", 1): SIZE, ("w_out", 0): SIZE}

CASES = [
    Case("Attention", "heads", plain(), others=ALL, **HEAD),
    Case("Attention", "grouped", plain(2), others=GROUPED, **PAIR),
    Case("Attention", "single-key", plain(1), others={("w_v", 1): "merged into an axis"}, **HEAD),
    Case("Attention", "one-head", plain(1, heads=1), others={("w_k", 1): 24, ("w_v", 1): 24}, **ONE),
    Case("Attention", "causal", plain(is_causal=1, scale=0.3, softcap=2.0), others=ALL, **HEAD),
    Case("Attention", "cross", plain(length=7), others=ALL, **HEAD),
    Case("Attention", "wide-values", plain(v_size=9), others=ALL, **HEAD),
    Case("Attention", "mask-2d", plain(mask=mask(5, 5)), others=ALL, **HEAD),
    Case("Attention", "mask-3d", plain(mask=mask(4, 5, 5)), others=ALL | {("mask", 0): 4}, **HEAD),
    Case("Attention", "mask-4d", plain(mask=mask(2, 4, 5, 5)), others=ALL | {("mask", 1): 4}, **HEAD),
    Case("Attention", "mask-for-all", plain(mask=mask(1, 1, 5, 5)), others=ALL, **HEAD),
    Case("Attention", "mask-bool", plain(mask=mask(1, 1, 5, 5, kind=bool)), others=ALL, **HEAD),
    Case("Attention", "mask-grouped", plain(2, mask=mask(2, 4, 5, 5)), others=GROUPED | {("mask", 1): 2}, **PAIR),
    Case("Attention", "four-axes", four_axes(), others=ALL, **HEAD),
    Case("Attention", "four-axes-grouped", four_axes(2), others=GROUPED, **PAIR),
    Case("Attention", "four-axes-values", four_axes(v_size=9, is_causal=1), others=ALL, **HEAD),
    Case("Attention", "four-axes-mask", four_axes(mask=mask(4, 5, 5)), others=ALL | {("mask", 0): 4}, **HEAD),
    Case("Attention", "dims", plain(), others=KEYS | VALUES, **DIMS),
    Case("Attention", "dims-grouped", plain(2), others=KEYS | VALUES, **DIMS),
    Case("Attention", "dims-single-key", plain(1), others=KEYS | VALUES, **DIMS),
    Case("Attention", "dims-scaled", plain(scale=0.7), others=KEYS, **DIMS),
    Case("Attention", "dims-four-axes", four_axes(), others=KEYS | VALUES, **DIMS),
    Case("Attention", "dims-four-axes-grouped", four_axes(2), others=KEYS, **DIMS),
    Case("Attention", "left-whole", plain(), **(HEAD | {"units": 0, "options": {"heads": False}}), why="left whole"),
    Case("Attention", "cached", cached(), others=ALL | {("pk", 1): 4, ("pv", 1): 4}, **HEAD),
    Case("Attention", "cached-grouped", cached(2), others=GROUPED | {("pk", 1): 2, ("pv", 1): 2}, **PAIR),
    Case("Attention", "cached-four-axes", cached(four=True), others=ALL | {("pk", 1): 4, ("pv", 1): 4}, **HEAD),
    Case("Attention", "cached-outside", cached(past="input"), **(HEAD | {"units": 0}), why="graph input 'past_key'"),
    Case("Attention", "given-keys", cross_given, **(HEAD | {"units": 0}), why="graph input 'key'"),
    *(
        Case("Attention", f"scores-{m}", scores(m), out=None, others=ALL | {("w_scores", 0): 4}, **HEAD)
        for m in range(4)
    ),
    Case("Attention", "positions", plain(), SHAPE, 1, 1, units=5, since=23, others={("w_out", 0): 5}),
    Case("Attention", "positions-masked", plain(mask=mask(5, 5)), SHAPE, 1, 1, 5, others={("mask", 0): 5}, since=23),
    Case("Attention", "positions-causal", plain(is_causal=1), SHAPE, 1, 1, 0, "place matters", since=23),
    Case("Attention", "positions-of-keys", as_key(1), SHAPE, 1, 1, 0, "attended over", since=23),
    Case("Attention", "keys", as_key(2), others={("w_q", 1): 4, ("w_v", 1): 4}, **HEAD),
    Case("Attention", "lengths", nonpad, others=ALL, **(HEAD | {"since": 24})),
    Case("RotaryEmbedding", "heads", with_positions(), others=ALL, **HEAD),
    Case("RotaryEmbedding", "grouped", with_positions(kv_heads=2), others=GROUPED, **PAIR),
    Case("RotaryEmbedding", "part", with_positions(rotary_embedding_dim=4), others=ALL, **HEAD),
    Case("RotaryEmbedding", "four-axes", with_positions(four=True), others=ALL, **HEAD),
    Case("RotaryEmbedding", "alone", rotary_alone(), others={("w_out", 0): 4}, **HEAD),
    Case("RotaryEmbedding", "dims", with_positions(), others={("w_k", 1): 3}, **(DIMS | {"units": 3})),
    Case(
        "RotaryEmbedding", "dims-grouped", with_positions(kv_heads=2), others={("w_k", 1): 3}, **(DIMS | {"units": 3})
    ),
    Case("RotaryEmbedding", "dims-interleaved", with_positions(interleaved=1), others=VALUES, **(DIMS | {"units": 3})),
    Case(
        "RotaryEmbedding", "dims-part", with_positions(rotary_embedding_dim=4), others=VALUES, **(DIMS | {"units": 2})
    ),
    Case("RotaryEmbedding", "dims-four-axes", with_positions(four=True), others=VALUES, **(DIMS | {"units": 3})),
    Case("RotaryEmbedding", "computed", rotary_alone("computed"), others={("w_out", 0): 4}, **HEAD),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_case(case: Case, version: int) -> None:
    check_case(case, version)
