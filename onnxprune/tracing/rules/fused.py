"""Operators that ONNX Runtime's optimisers make of several standard ones (domain com.microsoft)."""

from __future__ import annotations

import numpy as np

from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules import contraction
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Letters, through
from onnxprune.tracing.rules.means import averaged_letters, resize_count
from onnxprune.tracing.rules.node_view import Letter, MaskedAxis, NodeView
from onnxprune.tracing.rules.registry import rule

# --- position by position --------------------------------------------------------------------------------


@rule("Gelu", "QuickGelu", domain=MICROSOFT)
def activation(view: NodeView) -> list[Axes]:
    """Each position on its own."""
    return [view.labels(0)]


@rule("BiasGelu", "FastGelu", "BiasAdd", domain=MICROSOFT)
def with_bias(view: NodeView) -> list[Axes]:
    """Inputs tied position by position, broadcast from the right."""
    rank = len(view.out_shape())
    given: list[Letters | None] = [
        range(rank - len(view.shape(slot)), rank) if view.has(slot) else None for slot in range(len(view.node.input))
    ]
    return through(view, given, [range(rank)])


@rule("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(view: NodeView) -> list[Axes]:
    """The first half times the GELU of the second: both lose the same positions."""
    *rest, size = view.shape(0)
    axes = list(through(view, [(*range(len(rest)), "whole"), ("whole",)], [(*range(len(rest)), "half")])[0])
    line = np.broadcast_to(view.uniform(view.labels(0)[-1], len(rest)), (size,))
    halves = line.reshape(2, -1)
    view.ledger.tie(halves, halves[:1])
    axes[-1] = halves[0]
    return [tuple(axes)]


# --- normalisation ---------------------------------------------------------------------------------------


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_normalization(view: NodeView) -> list[Axes]:
    """A sum, averaged over the last axis: removal changes the statistics."""
    x = range(len(view.shape(0)))
    given: list[Letters | None] = [
        x[len(x) - len(view.shape(slot)) :] if view.has(slot) else None for slot in range(len(view.node.input))
    ]
    statistics: Letters = [*x[:-1], "one"]
    outputs = [x, statistics, statistics, x]
    return through(view, given, outputs[: len(view.node.output)], averages=x[-1:])


@rule("EmbedLayerNormalization", domain=MICROSOFT)
def embed_normalization(view: NodeView) -> list[Axes]:
    """Rows of tables, added and averaged over their columns: removal changes the statistics."""
    ids, column = ("b", "s"), ("c",)
    letters: list[Letters] = [ids, ids, ("word", "c"), ("place", "c"), ("kind", "c"), column, column, ids, ids]
    given = [letters[slot] if view.has(slot) else None for slot in range(len(view.node.input))]
    outputs: list[Letters] = [("b", "s", "c"), ("b",), ("b", "s", "c")]
    fixes: dict[Letter, str] = dict.fromkeys(("word", "place", "kind"), "positions are looked up")
    return through(view, given, outputs[: len(view.node.output)], averages=column, fixes=fixes)


# --- contractions ----------------------------------------------------------------------------------------


def _factor(view: NodeView, slot: int, last: tuple[str, str]) -> list[Letter]:
    """Letters of a factor: batch axes are numbers, counted from the right."""
    rank, side = len(view.shape(slot)), "AB"[slot]
    if rank == 1:
        return ["k"]
    row, column = last[::-1] if view.attrs.get(f"trans{side}") else last
    batch: list[Letter] = [*range(2 - rank, 0)]
    return [row, *batch, column] if view.attrs.get(f"transBatch{side}") else [*batch, row, column]


@rule(
    "FusedMatMul",
    "TransposeMatMul",
    domain=MICROSOFT,
    resize=resize_count,
    contraction=lambda s: [(None, a) for a in range(len(s.out_shape()))] + [(0, _factor(s, 0, ("m", "k")).index("k"))],
)
def fused_matmul(view: NodeView) -> list[Axes]:
    """Inner axis contracted, outer and batch axes kept."""
    a, b = _factor(view, 0, ("m", "k")), _factor(view, 1, ("k", "n"))
    batch: list[Letter] = [*range(2 - max(len(a), len(b)), 0)]
    output = [*batch, *("m" if "m" in a else ""), *("n" if "n" in b else "")]
    averages = averaged_letters(view, [a, b], output, view.attrs.get("alpha", 1.0))
    results = through(view, [a, b], [output], averages=averages)
    contraction.note_heads(view, [a, b], batch)
    return results


@rule(
    "GemmFastGelu",
    domain=MICROSOFT,
    contraction=lambda s: [(None, a) for a in range(len(s.out_shape()))] + [(1, 0)],
)
def gemm_fast_gelu(view: NodeView) -> list[Axes]:
    """Inner axis contracted, outer axes kept."""
    batch = range(len(view.shape(0)) - 1)
    bias = [("n",)] if view.has(2) else []
    return through(view, [(*batch, "k"), ("k", "n"), *bias], [(*batch, "n")])


rule(
    "FusedGemm",
    domain=MICROSOFT,
    resize=resize_count,
    contraction=lambda s: [(None, 0), (None, 1), (0, 0 if s.attrs.get("transA") else 1)],
)(contraction.gemm)


@rule("FusedConv", domain=MICROSOFT, resize=contraction.resize_group, contraction=contraction.conv_contraction)
def fused_conv(view: NodeView) -> list[Axes]:
    """A convolution and an activation; what is added in between is tied to the output."""
    results = contraction.conv(view)
    if view.has(3):
        for axis, (labels, made) in enumerate(zip(view.labels(3), results[0], strict=True)):
            view.ledger.tie(view.uniform(labels, axis), view.uniform(made, axis))
    return results


@rule(
    "NhwcConv",
    domain=MICROSOFT,
    contraction=contraction.conv_contraction,
)
def nhwc_conv(view: NodeView) -> list[Axes]:
    """Input channels, the last axis, contracted; output channels made."""
    if int(view.attrs.get("group", 1)) > 1:
        raise Unsupported("NhwcConv in groups")
    count = len(view.shape(0)) - 2
    kernel, space, output = (tuple(f"{x}{i}" for i in range(count)) for x in "ksy")
    bias = [("m",)] if view.has(2) else []
    return through(
        view,
        [("n", *space, "c"), ("m", *kernel, "c"), *bias],
        [("n", *output, "m")],
        fixes=dict.fromkeys(space, contraction.SPATIAL),
        inherent=dict.fromkeys(kernel, contraction.KERNEL),
    )


# --- mixtures of experts ---------------------------------------------------------------------------------


def _resize_experts(edit: Edit) -> None:
    """`k` is at most the number of experts that remain."""
    left = int(edit.kept(1, 1).sum())
    if int(edit.view.attrs.get("k", 1)) > left:
        edit.set_attribute("k", left)


def _expert_contractions(view: NodeView) -> list[list[tuple[int | None, int]]]:
    """Every expert on every token: how many are chosen is not a size."""
    tokens: list[tuple[int | None, int]] = [(0, a) for a in range(len(view.shape(0)) - 1)]
    return [[*tokens, *((slot, a) for a in range(3))] for slot in (2, 4, 6) if view.has(slot)]


@rule("MoE", domain=MICROSOFT, resize=_resize_experts, contractions=_expert_contractions)
def experts(view: NodeView) -> list[Axes]:
    """Experts go whole (the routing changes), and so do positions within all experts; the hidden axis is contracted."""
    tokens = range(len(view.shape(0)) - 1)
    gated = view.shape(2)[1] != view.shape(4)[2]  # gate and value in one weight
    first = "both" if gated else "inner"
    letters: list[Letters] = [
        *([*tokens, "hidden"], ["routed", "expert"]),
        *(["expert", first, "hidden"], ["expert", first]),
        *(["expert", "hidden", "inner"], ["expert", "hidden"]),
        *(["expert", "inner", "hidden"], ["expert", "inner"]),
    ]
    given = [letters[slot] if view.has(slot) else None for slot in range(len(view.node.input))]
    results = through(view, given, [[*tokens, "hidden"]], averages=["expert"])
    if gated:
        _tie_gate(view)
    # The hidden axis is contracted though the output has one of the same labels; what the inner axis carries is
    # silenced where it is contracted, since a bias would make something of a zero.
    view.masked_axes += [MaskedAxis(0, len(tokens), False, factors=(0, 2)), MaskedAxis(4, 2, False)]
    return results


def _tie_gate(view: NodeView) -> None:
    """A position within an expert is two rows of its first weight: side by side, or in both halves."""
    line = view.uniform(view.labels(2)[1], 1)
    inner = view.uniform(view.labels(4)[2], 2)
    size = view.shape(4)[2]
    both = np.broadcast_to(line, (2 * size,))
    pairs = both.reshape(size, 2) if view.attrs.get("swiglu_fusion") == 1 else both.reshape(2, size).T
    view.ledger.tie(pairs, np.broadcast_to(inner, (size,))[:, None])


@rule("QMoE", domain=MICROSOFT, resize=_resize_experts)
def quantized_experts(view: NodeView) -> list[Axes]:
    """Experts go whole (the routing changes); what is packed in bytes stays."""
    tokens = range(len(view.shape(0)) - 1)
    letters: list[Letters | None] = [[*tokens, "hidden"], ["routed", "expert"]]
    fixes: dict[Letter, str] = {"hidden": "packed in bytes"}
    for slot in range(2, len(view.node.input)):
        if not view.has(slot):
            letters.append(None)
        elif slot == 14:
            letters.append(["routed", "expert"])
        else:
            own: list[Letter] = [f"{slot}-{axis}" for axis in range(1, len(view.shape(slot)))]
            fixes |= dict.fromkeys(own, "packed in bytes")
            letters.append(["expert", *own])
    return through(view, letters, [[*tokens, "hidden"]], averages=["expert"], fixes=fixes)
