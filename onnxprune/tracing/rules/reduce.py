"""Reductions, pooling, resampling, and operators along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import through
from onnxprune.tracing.rules.means import average_of, follow_count
from onnxprune.tracing.rules.norm import axis_of
from onnxprune.tracing.rules.registry import rule
from onnxprune.tracing.rules.site import Letter, MaskedAxis, Site

# Sums to which a removed position, being zero, contributes nothing; every other reduction changes its value.
ZERO_IS_NEUTRAL = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
ZERO_COUNTS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp")


@rule(*ZERO_IS_NEUTRAL, *ZERO_COUNTS, follow=follow_count)
def reduce(site: Site) -> list[Axes]:
    """Reduced axes are summed over (exact) or averaged over (approximate, as is a sum x 1/C); the others are kept."""
    rank = len(site.shape(0))
    axes = site.listed("axes", 1)
    if not axes:
        axes = [] if site.attrs.get("noop_with_empty_axes") else list(range(rank))
    axes = [a % rank for a in axes]
    if site.attrs.get("keepdims", 1):
        output: list[Letter] = [f"one{a}" if a in axes else a for a in range(rank)]
    else:
        output = [a for a in range(rank) if a not in axes]
    mixes: Sequence[Letter] = axes
    if site.node.op_type in ZERO_IS_NEUTRAL and not site.constant[0]:
        site.average = average_of(site, 0, axes)
        mixes = site.average.axes if site.average is not None else ()
    return through(site, [range(rank)], [output], mixes=mixes)


@rule("ArgMax", "ArgMin")
def arg_reduce(site: Site) -> list[Axes]:
    """Kept across `axis`, which must stay whole."""
    rank, axis = len(site.shape(0)), axis_of(site, 0)
    output: list[Letter] = [f"one{a}" if a == axis else a for a in range(rank)]
    if not site.attrs.get("keepdims", 1):
        del output[axis]
    return through(site, [range(rank)], [output], fixes={axis: "positions are results"})


@rule("TopK")
def top_k(site: Site) -> list[Axes]:
    """Kept across `axis`, which must stay whole."""
    rank, axis = len(site.shape(0)), axis_of(site, -1)
    output: list[Letter] = ["top" if a == axis else a for a in range(rank)]
    return through(site, [range(rank)], [output] * len(site.node.output), fixes={axis: "positions are ranked"})


@rule("CumSum")
def cumulative_sum(site: Site) -> list[Axes]:
    """Kept across and along the axis: removed positions count as zero."""
    letters = range(len(site.shape(0)))
    listed = site.listed("axis", 1)
    site.readings.append(MaskedAxis(0, (listed or [0])[0] % len(letters), False))
    return through(site, [letters], [letters])


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "AveragePool", "MaxPool", "LpPool")
def pool(site: Site) -> list[Axes]:
    """Per channel; spatial axes must stay whole."""
    space = range(len(site.shape(0)) - 2)
    fixes: dict[Letter, str] = dict.fromkeys(space, "pooled over")
    if len([o for o in site.node.output if o]) > 1:
        fixes["c"] = "indices count through the channels"
    outputs = [("n", "c", *(f"o{a}" for a in space))] * len(site.node.output)
    return through(site, [("n", "c", *space)], outputs, fixes=fixes)


def _follow_sizes(edit: Edit) -> None:
    """The `sizes` input follows."""
    if not edit.site.has(3):
        return
    if "axes" not in edit.site.attrs:
        edit.retarget(3)
    elif any(a % len(edit.site.shape(0)) in edit.changed() for a in edit.site.attrs["axes"]):
        new = edit.new_out[0] or ()
        edit.set_input(3, np.array([new[a] for a in edit.site.attrs["axes"]], np.int64), "sizes")


@rule("Crop")
def crop(site: Site) -> list[Axes]:
    """Per channel; cropped axes must stay whole (an experimental operator of old exporters)."""
    letters = ("n", "c", "h", "w")
    return through(site, [letters], [("n", "c", "y", "x")], fixes=dict.fromkeys(letters[2:], "cropped"))


def _resampled(site: Site) -> set[int]:
    """The axes that are resampled: one may be, and keep its size."""
    old, new = site.dims(site.node.input[0]), site.dims(site.node.output[0])
    found = {a for a, (o, n) in enumerate(zip(old, new, strict=True)) if o != n}
    listed = [a % len(old) for a in site.attrs.get("axes", range(len(old)))]
    scales = site.value(1 if site.node.op_type == "Upsample" or site.version < 11 else 2)
    if scales is None:
        scales = np.array(site.attrs.get("scales", ()))
    found.update(a for a, scale in zip(listed, scales, strict=False) if scale != 1)
    # These choose one scale for all axes, or cut out a part first.
    is_stretched = site.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    if (found and not is_stretched) or site.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        found.update(listed)
    return found


@rule("Resize", "Upsample", follow=_follow_sizes)
def resize(site: Site) -> list[Axes]:
    """Axes that are not resampled are kept; resampled ones must stay whole."""
    letters, resampled = range(len(site.shape(0))), _resampled(site)
    output: list[Letter] = [f"o{a}" if a in resampled else a for a in letters]
    return through(site, [letters], [output], fixes=dict.fromkeys(resampled, "resampled"))


@rule("GridSample")
def grid_sample(site: Site) -> list[Axes]:
    """Per channel; spatial axes and the grid must stay whole."""
    space = range(len(site.shape(0)) - 2)
    grid = ("n", *(f"o{a}" for a in space), "xy")
    fixes = dict.fromkeys([*space, "xy"], "sampled at computed places")
    return through(site, [("n", "c", *space), grid], [("n", "c", *grid[1:-1])], fixes=fixes)


@rule("RoiAlign", "MaxRoiPool")
def roi(site: Site) -> list[Axes]:
    """Per channel and region; spatial axes and images must stay whole."""
    rois = [("r", "corner"), ("r",)][: len(site.node.input) - 1]
    fixes: dict[Letter, str] = dict.fromkeys(("n", "h", "w", "corner"), "sampled at computed places")
    return through(site, [("n", "c", "h", "w"), *rois], [("r", "c", "y", "x")], fixes=fixes)


@rule("Trilu")
def trilu(site: Site) -> list[Axes]:
    """Batch axes are kept; the two matrix axes must stay whole."""
    letters = range(len(site.shape(0)))
    return through(site, [letters], [letters], fixes=dict.fromkeys(letters[-2:], "triangle of a matrix"))


@rule("ReverseSequence")
def reverse_sequence(site: Site) -> list[Axes]:
    """Kept across the time axis, which must stay whole; each batch position has its own length."""
    letters = range(len(site.shape(0)))
    time, batch = int(site.attrs.get("time_axis", 0)), int(site.attrs.get("batch_axis", 1))
    return through(site, [letters, [batch]], [letters], fixes={time: "reversed by computed lengths"})


@rule("Col2Im")
def col2im(site: Site) -> list[Axes]:
    """Channels are rows of kernel positions and go whole; spatial axes must stay."""
    x, block = site.labels(0), site.listed("block_shape", 2)
    channels = site.out_shape()[1]
    if block is None:
        raise Unsupported("its channels do not carry labels")
    rows = np.broadcast_to(site.uniform(x[1], 1), (site.shape(0)[1],)).reshape(channels, -1)
    site.ledger.tie(rows, rows[:, :1])
    site.ledger.fix(x[2], site.reason("image positions"))
    space = tuple(site.barrier("image positions") for _ in site.out_shape()[2:])
    return [(x[0], rows[:, 0], *space)]
