"""Operators that work along some axes as a whole, and on every position of the others: transforms, losses, caches."""

from __future__ import annotations

import numpy as np

from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Letters, through
from onnxprune.tracing.rules.node_view import Letter, NodeView
from onnxprune.tracing.rules.norm import axis_of
from onnxprune.tracing.rules.registry import rule


@rule("CumProd")
def cumulative_product(view: NodeView) -> list[Axes]:
    """Kept across and along the axis: removal changes the products behind it."""
    letters = range(len(view.shape(0)))
    listed = view.listed("axis", 1)
    return through(view, [letters], [letters], averages=[(listed or [0])[0] % len(letters)])


@rule("Det")
def determinant(view: NodeView) -> list[Axes]:
    """Batch axes are kept; the two matrix axes must stay whole."""
    letters = range(len(view.shape(0)))
    return through(view, [letters], [letters[:-2]], fixes=dict.fromkeys(letters[-2:], "axis of a determinant"))


@rule("DFT", since=20)
def fourier(view: NodeView) -> list[Axes]:
    """Kept across the axis, which must stay whole, as must real and imaginary part."""
    return _fourier(view, (view.listed("axis", 2) or [-2])[0])


@rule("DFT", until=19)
def fourier_by_attribute(view: NodeView) -> list[Axes]:
    """Kept across the axis, which must stay whole, as must real and imaginary part."""
    return _fourier(view, int(view.attrs.get("axis", 1)))


def _fourier(view: NodeView, axis: int) -> list[Axes]:
    rank = len(view.shape(0))
    fixes: dict[Letter, str] = dict.fromkeys((axis % rank, rank - 1), "transformed")
    output: list[Letter] = [f"out{a}" if a in fixes else a for a in range(rank)]
    return through(view, [range(rank)], [output], fixes=fixes)


@rule("STFT")
def windowed_fourier(view: NodeView) -> list[Axes]:
    """The batch axis is kept; the signal must stay whole."""
    letters = ("b", "t", "pair")[: len(view.shape(0))]
    fixes: dict[Letter, str] = dict.fromkeys(letters[1:], "transformed")
    return through(view, [letters], [("b", "frame", "bin", "part")], fixes=fixes)


@rule("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(view: NodeView) -> list[Axes]:
    """Classes must stay whole; samples are kept, or summed over (removal changes the sum)."""
    space: list[Letter] = list(range(len(view.shape(0)) - 2))
    scores, samples = ["n", "c", *space], ["n", *space]
    alone = view.attrs.get("reduction", "mean") == "none"
    made: list[Letters] = [samples if alone else [], scores]
    outputs = made[: len(view.node.output)]
    weight = [("c",)] if view.has(2) else []
    return through(
        view, [scores, samples, *weight], outputs, averages=() if alone else samples, fixes={"c": "classes of a loss"}
    )


@rule("TensorScatter")
def tensor_scatter(view: NodeView) -> list[Axes]:
    """Kept across `axis`, which must stay whole; each batch position has its own place to write."""
    rank, axis = len(view.shape(0)), axis_of(view, -2)
    update: list[Letter] = [f"new{a}" if a == axis else a for a in range(rank)]
    fixes: dict[Letter, str] = dict.fromkeys((axis, f"new{axis}"), "written in part")
    places = [(0,)] if view.has(2) else []
    return through(view, [range(rank), update, *places], [range(rank)], fixes=fixes)


@rule("CausalConvWithState")
def causal_convolution(view: NodeView) -> list[Axes]:
    """Per channel; the time axis and that of the kernel must stay whole."""
    x, state = ("n", "c", "l"), ("n", "c", "s")
    given: list[Letters | None] = [x, ("c", "one", "k"), ("c",), state]
    inputs = [letters if view.has(slot) else None for slot, letters in enumerate(given[: len(view.node.input)])]
    fixes: dict[Letter, str] = dict.fromkeys("lks", "convolved along")
    outputs = [("n", "c", "o"), ("n", "c", "t")][: len(view.node.output)]
    return through(view, inputs, outputs, fixes=fixes)


@rule(
    "DeformConv",
    contraction=lambda s: [(None, a) for a in range(len(s.out_shape()))] + [(1, a) for a in range(1, len(s.shape(1)))],
)
def deformable_convolution(view: NodeView) -> list[Axes]:
    """Input channels contracted, output channels made; offsets and spatial axes must stay whole."""
    if int(view.attrs.get("group", 1)) > 1 or int(view.attrs.get("offset_group", 1)) > 1:
        raise Unsupported("groups of a deformable convolution")
    count = len(view.shape(0)) - 2
    space, kernel, places = ([f"{x}{i}" for i in range(count)] for x in "skp")
    given: list[Letters] = [
        ("n", "c", *space),
        ("m", "c", *kernel),
        ("n", "offset", *places),
        ("m",),
        ("n", "weight", *places),
    ]
    inputs = [letters if view.has(slot) else None for slot, letters in enumerate(given[: len(view.node.input)])]
    fixes: dict[Letter, str] = dict.fromkeys([*space, *kernel, *places, "offset", "weight"], "sampled at offsets")
    return through(view, inputs, [("n", "m", *(f"o{i}" for i in range(count)))], fixes=fixes)


def _resize_batch(edit: Edit) -> None:
    """The batch in `size` follows."""
    size = edit.view.value(1)
    if size is not None and 0 in edit.changed():
        edit.set_input(1, np.array([(edit.new_out[0] or ())[0], *size[1:]], np.int64), "size")


@rule("AffineGrid", resize=_resize_batch)
def affine_grid(view: NodeView) -> list[Axes]:
    """The batch axis is kept; matrices must stay whole."""
    fixes: dict[Letter, str] = dict.fromkeys("rc", "axis of an affine matrix")
    if view.value(1) is None:
        fixes["n"] = "its size is computed at run time"
    output = ["n", *(f"o{a}" for a in range(1, len(view.out_shape())))]
    return through(view, [("n", "r", "c")], [output], fixes=fixes)


@rule("CenterCropPad")
def center_crop_pad(view: NodeView) -> list[Axes]:
    """Axes that are not listed are kept; listed ones must stay whole."""
    rank = len(view.shape(0))
    axes = {a % rank for a in view.attrs.get("axes", range(rank))}
    fixes: dict[Letter, str] = dict.fromkeys(axes, "cropped or padded")
    output: list[Letter] = [f"out{a}" if a in axes else a for a in range(rank)]
    return through(view, [range(rank)], [output], fixes=fixes)


@rule("TreeEnsemble", domain="ai.onnx.ml")
def trees(view: NodeView) -> list[Axes]:
    """Samples are kept; features must stay whole."""
    return through(view, [("n", "f")], [("n", "t")], fixes={"f": "features of a tree"})


@rule("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(view: NodeView) -> list[Axes]:
    """Kept in front of the last axis, which must stay whole."""
    letters = range(len(view.shape(0)))
    fixes: dict[Letter, str] = {letters[-1]: "indexed by a table"}
    if not view.constant[1]:
        raise Unsupported("index computed at run time")
    return through(view, [letters, None], [[*letters[:-1], "taken"]], fixes=fixes)
