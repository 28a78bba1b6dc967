"""Labels through the attention operators of ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.cost import counts
from tests.graphs.net import FLOAT, INT32, INT64, Net, group_of, prune, reasons_for, shapes_of
from tests.graphs.sandwich import Case, check_case, parameters
from tests.tracing.rules.test_attention import apart, mask, together

MICROSOFT = "com.microsoft"
HEADS, SIZE, LENGTH, INPUT = 4, 16, 5, 12
HIDDEN = HEADS * SIZE


def fused(net: Net, op: str, *inputs: str, outputs: int = 1, **attrs: Any) -> Any:
    return net.add(op, *inputs, outputs=outputs, domain=MICROSOFT, **attrs)


def merged(widths: tuple[int, ...] = (HIDDEN,) * 3, listed: bool = False, added: Any = None, **attrs):
    """One weight makes queries, keys and values; `x` is contracted."""

    def build(net: Net, x: str) -> str:
        weight = net.weight(INPUT, sum(widths), name="w")
        given = [net.weight(sum(widths), name="bias", scale=0.5), "", "", added(net) if added else ""]
        sizes = list(widths) if listed else None
        return fused(net, "Attention", x, weight, *given, num_heads=HEADS, qkv_hidden_sizes=sizes, **attrs)

    return build


def merged_masked(*shape: int, value: Any = None):
    def build(net: Net, x: str) -> str:
        given = np.ones(shape) if value is None else np.array(value)
        weights = net.weight(INPUT, 3 * HIDDEN, name="w"), net.weight(3 * HIDDEN, name="bias")
        return fused(net, "Attention", x, *weights, net.const(given.astype(np.int32)), num_heads=HEADS)

    return build


def merged_cached(past: str):
    def build(net: Net, x: str) -> list[str]:
        weights = net.weight(INPUT, 3 * HIDDEN, name="w"), net.weight(3 * HIDDEN, name="bias")
        given = []
        if past == "computed":
            parts = [apart(net, net.make((2, 3, HIDDEN), 2, weight=w), HEADS, SIZE) for w in ("pk", "pv")]
            given = ["", net.add("Concat", *(net.add("Unsqueeze", p, net.ints(0)) for p in parts), axis=0)]
        elif past == "input":
            given = ["", net.input((2, 2, HEADS, 3, SIZE), name="past")]
        y, present = fused(net, "Attention", x, *weights, *given, outputs=2, num_heads=HEADS, unidirectional=1)
        net.read(y, 2)
        if past == "input":
            net.output(present)
        else:
            keys = net.add("Squeeze", net.add("Slice", present, net.ints(0), net.ints(1), net.ints(0)), net.ints(0))
            net.read(together(net, keys), 2, weight="w_present")
        return []

    return build


def kv(net: Net, heads: int = HEADS, size: int = SIZE, length: int = LENGTH, v_size: int = 0) -> tuple[str, str]:
    key = net.make((2, length, heads * size), 2, weight="w_k")
    return key, net.make((2, length, heads * (v_size or size)), 2, weight="w_v")


def multi(v_size: int = SIZE, bias: bool = False, length: int = LENGTH, added: Any = None, masked: Any = None, **attrs):
    def build(net: Net, x: str) -> str:
        given = [net.weight(2 * HIDDEN + HEADS * v_size, name="bias", scale=0.5) if bias else ""]
        given.append("" if masked is None else net.const(masked))
        given.append(added(net) if added else "")
        keys = kv(net, length=length, v_size=v_size)
        return fused(net, "MultiHeadAttention", x, *keys, *given, num_heads=HEADS, **attrs)

    return build


def multi_packed(parts: int):
    def build(net: Net, x: str) -> str:
        """x is packed with keys and values (3), or those with each other (2)."""
        if parts == 3:
            packed = net.add("Reshape", x, net.ints(0, 0, HEADS, 3, SIZE))
            return fused(net, "MultiHeadAttention", packed, num_heads=HEADS)
        packed = net.add("Reshape", net.make((2, LENGTH, 2 * HIDDEN), 2, weight="w_kv"), net.ints(0, 0, HEADS, 2, SIZE))
        return fused(net, "MultiHeadAttention", x, packed, num_heads=HEADS)

    return build


def multi_apart(net: Net, x: str) -> str:
    """Keys and values of another sequence come as caches do."""
    keys = (apart(net, t, HEADS, SIZE) for t in kv(net, length=7))
    return fused(net, "MultiHeadAttention", x, *keys, num_heads=HEADS)


def multi_cached(past: str):
    def build(net: Net, x: str) -> list[str]:
        if past == "computed":
            caches = [apart(net, net.make((2, 3, HIDDEN), 2, weight=w), HEADS, SIZE) for w in ("pk", "pv")]
        else:
            caches = [net.input((2, HEADS, 3, SIZE), name=f"past_{n}") for n in ("key", "value")]
        given = [*kv(net), "", "", "", *caches]
        y, *made = fused(net, "MultiHeadAttention", x, *given, outputs=3, num_heads=HEADS)
        net.read(y, 2)
        for tensor, weight in zip(made, ("w_pk", "w_pv"), strict=False):
            if past == "computed":
                net.read(together(net, tensor), 2, weight=weight)
            else:
                net.output(tensor)
        return []

    return build


def grouped(
    pairs: int = 2,
    packed: bool = False,
    past: str = "",
    rotary: bool = False,
    added: Any = None,
    sink: bool = False,
    **attrs,
):
    def build(net: Net, x: str) -> list[str]:
        length = 1 if past else LENGTH
        keys = ("", "") if packed else kv(net, pairs, length=length)
        caches = ["", ""]
        if past == "computed":
            caches = [apart(net, net.make((2, 3, pairs * SIZE), 2, weight=w), pairs, SIZE) for w in ("pk", "pv")]
        elif past:
            caches = [net.input((2, pairs, 3, SIZE), name=f"past_{n}") for n in ("key", "value")]
        total = 4 if past else length
        lengths = [net.const(np.full(2, total - 1, np.int32)), net.const(np.array(total, np.int32))]
        angles = net.rng.standard_normal((8, SIZE // 2))
        turn = [net.const(f(angles).astype(np.float32), n) for f, n in ((np.cos, "cos"), (np.sin, "sin"))]
        more = [*(turn if rotary else ("", "")), "", added(net) if added else ""]
        more.append(net.weight(HEADS, name="sink", scale=1.0) if sink else "")
        y, *present = fused(
            *(net, "GroupQueryAttention", x, *keys, *caches, *lengths, *more),
            outputs=3,
            num_heads=HEADS,
            kv_num_heads=pairs,
            do_rotary=int(rotary),
            **attrs,
        )
        net.read(y, 2)
        for tensor, weight in zip(present, ("w_pk", "w_pv"), strict=True):
            if past == "input":
                net.output(tensor)
            elif past:
                net.read(together(net, tensor), 2, weight=weight)
        return []

    return build


def rotary(net: Net, x: str, heads: int = HEADS, turned: int = 0, offset: bool = False, **attrs: Any) -> str:
    angles = net.rng.standard_normal((9, (turned or SIZE) // 2))
    tables = [net.const(f(angles).astype(np.float32), net.fresh(n)) for f, n in ((np.cos, "cos"), (np.sin, "sin"))]
    ids = [2] if offset else np.arange(LENGTH)[None].repeat(2, 0)
    numbers = {"num_heads": heads, "rotary_embedding_dim": turned} if turned else {}
    return fused(net, "RotaryEmbedding", x, net.const(np.array(ids, np.int64)), *tables, **numbers, **attrs)


def with_positions(four: bool = False, **turn: Any):
    def build(net: Net, x: str) -> str:
        key, value = kv(net)
        if four:
            x, key = (together(net, rotary(net, apart(net, t, HEADS, SIZE), **turn)) for t in (x, key))
        else:
            x, key = rotary(net, x, **turn), rotary(net, key, **turn)
        return fused(net, "MultiHeadAttention", x, key, value, num_heads=HEADS)

    return build


DOMAIN: dict[str, Any] = {"domain": MICROSOFT, "since": 17}
MERGED: dict[str, Any] = {"shape": (2, LENGTH, INPUT), "units": INPUT} | DOMAIN
SHAPE = (2, LENGTH, HIDDEN)
HEAD: dict[str, Any] = {"shape": SHAPE, "units": HEADS} | DOMAIN
DIMS: dict[str, Any] = HEAD | {"units": SIZE, "options": {"head_dims": True}}
BY_HEAD = {("w", 0): INPUT, ("w", 1): 4, ("bias", 0): 4, ("w_out", 0): 4}
BY_DIM = {("w", 0): INPUT, ("w_out", 0): SIZE}
ALL = {("w_k", 1): 4, ("w_v", 1): 4, ("w_out", 0): 4}
PAIRS = {("w_k", 1): 2, ("w_v", 1): 2, ("w_out", 0): 2}
ONE, NONE = HEAD | {"shape": (2, 1, HIDDEN)}, {"units": 0}
CACHES = dict.fromkeys((("pk", 1), ("pv", 1), ("w_pk", 0), ("w_pv", 0)), 4)
LOCKED = {("w", 1): "graph input 'past'"}

CASES = [
    Case("Attention", "merged", merged(), others=BY_HEAD, **MERGED),
    Case("Attention", "merged-causal", merged(unidirectional=1, scale=0.3), others=BY_HEAD, **MERGED),
    Case("Attention", "merged-listed", merged(listed=True), others=BY_HEAD, **MERGED),
    Case("Attention", "merged-widths", merged((64, 64, 48), listed=True), others=BY_HEAD, **MERGED),
    Case("Attention", "merged-mask-2d", merged_masked(2, 5), others=BY_HEAD, **MERGED),
    Case("Attention", "merged-mask-3d", merged_masked(2, 5, 5), others=BY_HEAD, **MERGED),
    Case("Attention", "merged-mask-ends", merged_masked(2, value=[5, 3]), others=BY_HEAD, **MERGED),
    Case("Attention", "merged-added", merged(added=mask(2, 4, 5, 5)), others=BY_HEAD | {("mask", 1): 4}, **MERGED),
    Case("Attention", "merged-added-for-all", merged(added=mask(1, 1, 5, 5)), others=BY_HEAD, **MERGED),
    Case(
        "Attention",
        "merged-cached",
        merged_cached("computed"),
        out=None,
        others={("w", 1): 4, ("pk", 1): 4, ("pv", 1): 4, ("w_present", 0): 4},
        **MERGED,
    ),
    Case("Attention", "merged-present", merged_cached(""), out=None, others={("w", 1): 4}, **MERGED),
    Case("Attention", "merged-cached-outside", merged_cached("input"), out=None, others=LOCKED, **MERGED),
    Case("Attention", "merged-dims", merged(), others=BY_DIM, **(MERGED | {"options": {"head_dims": True}})),
    Case(
        "Attention",
        "merged-left-whole",
        merged(),
        others={("w", 1): "left whole"},
        **(MERGED | {"options": {"heads": False}}),
    ),
    Case("Attention", "merged-positions", merged(), (2, 5, 12), 1, 1, 0, "place matters", **DOMAIN),
    Case("MultiHeadAttention", "positions", multi(), SHAPE, 1, 1, 5, others={("w_out", 0): 5}, **DOMAIN),
    Case("GroupQueryAttention", "positions", grouped(packed=True), (2, 5, 128), 1, None, 0, "place matters", **DOMAIN),
    Case("MultiHeadAttention", "", multi(), others=ALL, **HEAD),
    Case("MultiHeadAttention", "bias", multi(bias=True), others=ALL | {("bias", 0): 4}, **HEAD),
    Case("MultiHeadAttention", "cross", multi(length=7, bias=True), others=ALL | {("bias", 0): 4}, **HEAD),
    Case("MultiHeadAttention", "wide-values", multi(v_size=12, bias=True), others=ALL | {("bias", 0): 4}, **HEAD),
    Case("MultiHeadAttention", "causal", multi(unidirectional=1, scale=0.2), others=ALL, **HEAD),
    Case("MultiHeadAttention", "mask", multi(masked=np.array([[1, 1, 1, 1, 0]] * 2, np.int32)), others=ALL, **HEAD),
    Case("MultiHeadAttention", "mask-ends", multi(masked=np.array([5, 3], np.int32)), others=ALL, **HEAD),
    Case("MultiHeadAttention", "added", multi(added=mask(2, 4, 5, 5)), others=ALL | {("mask", 1): 4}, **HEAD),
    Case("MultiHeadAttention", "added-for-all", multi(added=mask(1, 1, 5, 5)), others=ALL, **HEAD),
    Case("MultiHeadAttention", "apart", multi_apart, others=ALL, **HEAD),
    Case("MultiHeadAttention", "cached", multi_cached("computed"), out=None, others=ALL | CACHES, **HEAD),
    Case(
        "MultiHeadAttention",
        "cached-outside",
        multi_cached("input"),
        out=None,
        why="graph input 'past_key'",
        **(HEAD | {"units": 0}),
    ),
    Case("MultiHeadAttention", "dims", multi(), others={("w_k", 1): SIZE, ("w_v", 1): SIZE}, **DIMS),
    Case("MultiHeadAttention", "dims-bias", multi(bias=True, v_size=12), others={("w_k", 1): SIZE}, **DIMS),
    Case("GroupQueryAttention", "", grouped(), out=None, others=PAIRS, **(HEAD | {"units": 2})),
    Case("GroupQueryAttention", "all", grouped(4, scale=0.2, softcap=2.0), out=None, others=ALL, **HEAD),
    Case("GroupQueryAttention", "rotary", grouped(rotary=True), out=None, others=PAIRS, **(HEAD | {"units": 2})),
    Case(
        "GroupQueryAttention", "packed", grouped(packed=True), out=None, **(HEAD | {"shape": (2, 5, 128), "units": 2})
    ),
    Case(
        "GroupQueryAttention",
        "packed-rotary",
        grouped(packed=True, rotary=True, local_window_size=3),
        out=None,
        **(HEAD | {"shape": (2, 5, 128), "units": 2}),
    ),
    Case("GroupQueryAttention", "sink", grouped(4, sink=True), out=None, others=ALL | {("sink", 0): 4}, **HEAD),
    Case("GroupQueryAttention", "added", grouped(4, added=mask(2, 4, 5, 5)), out=None, others=ALL, **HEAD),
    Case("GroupQueryAttention", "single-key", grouped(1), out=None, others={("w_k", 1): "keep their size"}, **HEAD),
    Case("GroupQueryAttention", "cached", grouped(4, past="computed"), out=None, others=ALL | CACHES, **ONE),
    Case(
        "GroupQueryAttention",
        "cached-rotary",
        grouped(past="computed", rotary=True),
        out=None,
        others=dict.fromkeys([*PAIRS, *CACHES], 2),
        **(ONE | {"units": 2}),
    ),
    Case("GroupQueryAttention", "cached-outside", grouped(past="input"), out=None, why="'past_key'", **(ONE | NONE)),
    Case("GroupQueryAttention", "dims", grouped(), out=None, **(DIMS | {"units": 0}), why="keep their size"),
    Case("RotaryEmbedding", "fused", with_positions(), others=ALL, **HEAD),
    Case("RotaryEmbedding", "fused-offset", with_positions(offset=True), others=ALL, **HEAD),
    Case("RotaryEmbedding", "fused-part", with_positions(turned=4), others=ALL, **HEAD),
    Case("RotaryEmbedding", "fused-four-axes", with_positions(four=True), others=ALL, **HEAD),
    Case("RotaryEmbedding", "fused-interleaved", with_positions(interleaved=1), others=ALL, **HEAD),
    Case("RotaryEmbedding", "fused-dims", with_positions(), others={("w_k", 1): 8}, **(DIMS | {"units": 8})),
    Case(
        "RotaryEmbedding", "fused-dims-part", with_positions(turned=4), others={("w_k", 1): 2}, **(DIMS | {"units": 2})
    ),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_case(case: Case, version: int) -> None:
    check_case(case, version)


def decoder(net: Net) -> None:
    """A layer as ONNX Runtime's builder of generative models writes it; caches come and go."""
    net.input(("batch", "length"), name="ids", dtype=INT64)
    net.input(("batch", "total"), name="attention_mask", dtype=INT64)
    caches = [net.input(("batch", 2, "past", SIZE), name=f"past_{n}") for n in ("key", "value")]
    x = net.add("Gather", net.weight(50, 32, name="embedding"), "ids")
    lengths = net.add("Sub", net.add("ReduceSum", "attention_mask", net.ints(1), keepdims=0), net.const(np.int64(1)))
    total = net.add("Gather", net.add("Shape", "attention_mask"), net.const(np.int64(1)))
    lengths, total = net.cast(lengths, INT32), net.cast(total, INT32)
    y = net.add("SimplifiedLayerNormalization", x, net.weight(32), axis=-1, epsilon=1e-5)
    packed = net.add("MatMul", y, net.weight(32, 8 * SIZE, name="w_qkv"))
    angles = net.rng.standard_normal((64, SIZE // 2))
    turn = [net.const(f(angles).astype(np.float32)) for f in (np.cos, np.sin)]
    y, *present = fused(
        *(net, "GroupQueryAttention", packed, "", "", *caches, lengths, total, *turn),
        outputs=3,
        num_heads=4,
        kv_num_heads=2,
        do_rotary=1,
    )
    for name, tensor in zip(("key", "value"), present, strict=True):
        net.add("Identity", tensor, name=f"present_{name}")
        net.output(f"present_{name}", ("batch", 2, "total", SIZE), FLOAT)
    y = net.add("MatMul", y, net.weight(HIDDEN, 32, name="w_o"))
    y, _, _, x = fused(net, "SkipSimplifiedLayerNormalization", x, y, net.weight(32), outputs=4)
    net.nodes[-1].output[1] = net.nodes[-1].output[2] = ""
    gate, up = (net.add("MatMul", y, net.weight(32, 24, name=n)) for n in ("w_gate", "w_up"))
    wide = net.add("Mul", fused(net, "QuickGelu", gate, alpha=1.0), up)
    y = net.add("Add", x, net.add("MatMul", wide, net.weight(24, 32, name="w_down")))
    net.output(net.add("MatMul", y, net.weight(32, 50, name="w_head")), ("batch", "length", 50), FLOAT)


def test_decoder_with_caches() -> None:
    net = Net(17)
    decoder(net)
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    shapes = shapes_of(outcome.model)
    assert (shapes["embedding"], shapes["w_down"]) == ((50, 16), (12, 16))
    assert shapes["w_qkv"] == (16, 8 * SIZE)
    assert any("graph input 'past_key'" in r for r in reasons_for(outcome.groups, "w_qkv", 1))


def test_work_of_a_decoder() -> None:
    """By hand: the projections, the scores and their use over old and new positions, and the head."""
    net = Net(17)
    decoder(net)
    layers = {layer.op: layer.macs for layer in counts.of(net.model(), {"length": 3, "past": 4, "total": 7}).layers}
    assert layers["GroupQueryAttention"] == 2 * 3 * HIDDEN * 7
    merged_net = Net(17)
    y = merged()(merged_net, merged_net.input((1, LENGTH, INPUT)))
    merged_net.output(y, (1, LENGTH, HIDDEN), FLOAT)
    layer = counts.of(merged_net.model()).layers[0]
    assert layer.macs == LENGTH * INPUT * 3 * HIDDEN + 2 * LENGTH * LENGTH * HIDDEN


@pytest.mark.parametrize("parts", [2, 3])
def test_packed_heads(parts: int) -> None:
    """Queries, keys and values in one tensor, for which the runtime has no kernel here: heads still go whole."""
    net = Net(17)
    x = net.make((2, LENGTH, (1 if parts == 2 else 3) * HIDDEN), 2)
    y = multi_packed(parts)(net, x)
    net.output(net.add("MatMul", y, net.weight(HIDDEN, 4, name="w_out")), (2, LENGTH, 4), FLOAT)
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert not outcome.verdict.runnable
    group = group_of(outcome.groups, "w_out", 0)
    assert group is not None
    assert (group.units, group.kind) == (4, "head")
    node = next(n for n in outcome.model.proto.graph.node if n.op_type == "MultiHeadAttention")
    assert [a.i for a in node.attribute if a.name == "num_heads"] == [2]
    weight = "w_in" if parts == 3 else "w_kv"
    removed = np.flatnonzero(~outcome.plan.masks(net.proto())[weight][0]).reshape(2, parts, SIZE)
    heads = np.flatnonzero(~outcome.plan.masks(net.proto())["w_out"][:, 0]).reshape(2, SIZE)
    assert (removed // (parts * SIZE) == (heads // SIZE)[:, None]).all()
