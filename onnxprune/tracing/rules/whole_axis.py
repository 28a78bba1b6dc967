"""Operators that work along some axes as a whole, and on every position of the others: transforms, losses, caches."""

from __future__ import annotations

import numpy as np

from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Letters, through
from onnxprune.tracing.rules.norm import axis_of
from onnxprune.tracing.rules.registry import rule
from onnxprune.tracing.rules.site import Letter, Site


@rule("CumProd")
def cumulative_product(site: Site) -> list[Axes]:
    """Kept across and along the axis: removal changes the products behind it."""
    letters = range(len(site.shape(0)))
    listed = site.listed("axis", 1)
    return through(site, [letters], [letters], mixes=[(listed or [0])[0] % len(letters)])


@rule("Det")
def determinant(site: Site) -> list[Axes]:
    """Batch axes are kept; the two matrix axes must stay whole."""
    letters = range(len(site.shape(0)))
    return through(site, [letters], [letters[:-2]], fixes=dict.fromkeys(letters[-2:], "axis of a determinant"))


@rule("DFT", since=20)
def fourier(site: Site) -> list[Axes]:
    """Kept across the axis, which must stay whole, as must real and imaginary part."""
    return _fourier(site, (site.listed("axis", 2) or [-2])[0])


@rule("DFT", until=19)
def fourier_by_attribute(site: Site) -> list[Axes]:
    """Kept across the axis, which must stay whole, as must real and imaginary part."""
    return _fourier(site, int(site.attrs.get("axis", 1)))


def _fourier(site: Site, axis: int) -> list[Axes]:
    rank = len(site.shape(0))
    fixes: dict[Letter, str] = dict.fromkeys((axis % rank, rank - 1), "transformed")
    output: list[Letter] = [f"out{a}" if a in fixes else a for a in range(rank)]
    return through(site, [range(rank)], [output], fixes=fixes)


@rule("STFT")
def windowed_fourier(site: Site) -> list[Axes]:
    """The batch axis is kept; the signal must stay whole."""
    letters = ("b", "t", "pair")[: len(site.shape(0))]
    fixes: dict[Letter, str] = dict.fromkeys(letters[1:], "transformed")
    return through(site, [letters], [("b", "frame", "bin", "part")], fixes=fixes)


@rule("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(site: Site) -> list[Axes]:
    """Classes must stay whole; samples are kept, or summed over (removal changes the sum)."""
    space: list[Letter] = list(range(len(site.shape(0)) - 2))
    scores, samples = ["n", "c", *space], ["n", *space]
    alone = site.attrs.get("reduction", "mean") == "none"
    made: list[Letters] = [samples if alone else [], scores]
    outputs = made[: len(site.node.output)]
    weight = [("c",)] if site.has(2) else []
    return through(
        site, [scores, samples, *weight], outputs, mixes=() if alone else samples, fixes={"c": "classes of a loss"}
    )


@rule("TensorScatter")
def tensor_scatter(site: Site) -> list[Axes]:
    """Kept across `axis`, which must stay whole; each batch position has its own place to write."""
    rank, axis = len(site.shape(0)), axis_of(site, -2)
    update: list[Letter] = [f"new{a}" if a == axis else a for a in range(rank)]
    fixes: dict[Letter, str] = dict.fromkeys((axis, f"new{axis}"), "written in part")
    places = [(0,)] if site.has(2) else []
    return through(site, [range(rank), update, *places], [range(rank)], fixes=fixes)


@rule("CausalConvWithState")
def causal_convolution(site: Site) -> list[Axes]:
    """Per channel; the time axis and that of the kernel must stay whole."""
    x, state = ("n", "c", "l"), ("n", "c", "s")
    given: list[Letters | None] = [x, ("c", "one", "k"), ("c",), state]
    inputs = [letters if site.has(slot) else None for slot, letters in enumerate(given[: len(site.node.input)])]
    fixes: dict[Letter, str] = dict.fromkeys("lks", "convolved along")
    outputs = [("n", "c", "o"), ("n", "c", "t")][: len(site.node.output)]
    return through(site, inputs, outputs, fixes=fixes)


@rule(
    "DeformConv",
    work=lambda s: [(None, a) for a in range(len(s.out_shape()))] + [(1, a) for a in range(1, len(s.shape(1)))],
)
def deformable_convolution(site: Site) -> list[Axes]:
    """Input channels contracted, output channels made; offsets and spatial axes must stay whole."""
    if int(site.attrs.get("group", 1)) > 1 or int(site.attrs.get("offset_group", 1)) > 1:
        raise Unsupported("groups of a deformable convolution")
    count = len(site.shape(0)) - 2
    space, kernel, places = ([f"{x}{i}" for i in range(count)] for x in "skp")
    given: list[Letters] = [
        ("n", "c", *space),
        ("m", "c", *kernel),
        ("n", "offset", *places),
        ("m",),
        ("n", "weight", *places),
    ]
    inputs = [letters if site.has(slot) else None for slot, letters in enumerate(given[: len(site.node.input)])]
    fixes: dict[Letter, str] = dict.fromkeys([*space, *kernel, *places, "offset", "weight"], "sampled at offsets")
    return through(site, inputs, [("n", "m", *(f"o{i}" for i in range(count)))], fixes=fixes)


def _follow_batch(edit: Edit) -> None:
    """The batch in `size` follows."""
    size = edit.site.value(1)
    if size is not None and 0 in edit.changed():
        edit.set_input(1, np.array([(edit.new_out[0] or ())[0], *size[1:]], np.int64), "size")


@rule("AffineGrid", follow=_follow_batch)
def affine_grid(site: Site) -> list[Axes]:
    """The batch axis is kept; matrices must stay whole."""
    fixes: dict[Letter, str] = dict.fromkeys("rc", "axis of an affine matrix")
    if site.value(1) is None:
        fixes["n"] = "its size is computed at run time"
    output = ["n", *(f"o{a}" for a in range(1, len(site.out_shape())))]
    return through(site, [("n", "r", "c")], [output], fixes=fixes)


@rule("CenterCropPad")
def center_crop_pad(site: Site) -> list[Axes]:
    """Axes that are not listed are kept; listed ones must stay whole."""
    rank = len(site.shape(0))
    axes = {a % rank for a in site.attrs.get("axes", range(rank))}
    fixes: dict[Letter, str] = dict.fromkeys(axes, "cropped or padded")
    output: list[Letter] = [f"out{a}" if a in axes else a for a in range(rank)]
    return through(site, [range(rank)], [output], fixes=fixes)


@rule("TreeEnsemble", domain="ai.onnx.ml")
def trees(site: Site) -> list[Axes]:
    """Samples are kept; features must stay whole."""
    return through(site, [("n", "f")], [("n", "t")], fixes={"f": "features of a tree"})


@rule("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(site: Site) -> list[Axes]:
    """Kept in front of the last axis, which must stay whole."""
    letters = range(len(site.shape(0)))
    fixes: dict[Letter, str] = {letters[-1]: "indexed by a table"}
    if not site.constant[1]:
        raise Unsupported("index computed at run time")
    return through(site, [letters, None], [[*letters[:-1], "taken"]], fixes=fixes)
