"""Reductions, pooling, resampling, and operators along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import through
from onnxprune.tracing.rules.means import average_of, resize_count
from onnxprune.tracing.rules.node_view import Letter, MaskedAxis, NodeView
from onnxprune.tracing.rules.norm import axis_of
from onnxprune.tracing.rules.registry import rule

# Sums to which a removed position, being zero, contributes nothing; every other reduction changes its value.
ZERO_IS_NEUTRAL = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
ZERO_COUNTS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp")


@rule(*ZERO_IS_NEUTRAL, *ZERO_COUNTS, resize=resize_count)
def reduce(view: NodeView) -> list[Axes]:
    """Reduced axes are summed over (exact) or averaged over (approximate, as is a sum x 1/C); the others are kept."""
    rank = len(view.shape(0))
    axes = view.listed("axes", 1)
    if not axes:
        axes = [] if view.attrs.get("noop_with_empty_axes") else list(range(rank))
    axes = [a % rank for a in axes]
    if view.attrs.get("keepdims", 1):
        output: list[Letter] = [f"one{a}" if a in axes else a for a in range(rank)]
    else:
        output = [a for a in range(rank) if a not in axes]
    averages: Sequence[Letter] = axes
    if view.node.op_type in ZERO_IS_NEUTRAL and not view.constant[0]:
        view.average = average_of(view, 0, axes)
        averages = view.average.axes if view.average is not None else ()
    return through(view, [range(rank)], [output], averages=averages)


@rule("ArgMax", "ArgMin")
def arg_reduce(view: NodeView) -> list[Axes]:
    """Kept across `axis`, which must stay whole."""
    rank, axis = len(view.shape(0)), axis_of(view, 0)
    output: list[Letter] = [f"one{a}" if a == axis else a for a in range(rank)]
    if not view.attrs.get("keepdims", 1):
        del output[axis]
    return through(view, [range(rank)], [output], fixes={axis: "positions are results"})


@rule("TopK")
def top_k(view: NodeView) -> list[Axes]:
    """Kept across `axis`, which must stay whole."""
    rank, axis = len(view.shape(0)), axis_of(view, -1)
    output: list[Letter] = ["top" if a == axis else a for a in range(rank)]
    return through(view, [range(rank)], [output] * len(view.node.output), fixes={axis: "positions are ranked"})


@rule("CumSum")
def cumulative_sum(view: NodeView) -> list[Axes]:
    """Kept across and along the axis: removed positions count as zero."""
    letters = range(len(view.shape(0)))
    listed = view.listed("axis", 1)
    view.masked_axes.append(MaskedAxis(0, (listed or [0])[0] % len(letters), False))
    return through(view, [letters], [letters])


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "AveragePool", "MaxPool", "LpPool")
def pool(view: NodeView) -> list[Axes]:
    """Per channel; spatial axes must stay whole."""
    space = range(len(view.shape(0)) - 2)
    fixes: dict[Letter, str] = dict.fromkeys(space, "pooled over")
    if len([o for o in view.node.output if o]) > 1:
        fixes["c"] = "indices count through the channels"
    outputs = [("n", "c", *(f"o{a}" for a in space))] * len(view.node.output)
    return through(view, [("n", "c", *space)], outputs, fixes=fixes)


def _resize_sizes(edit: Edit) -> None:
    """The `sizes` input follows."""
    if not edit.view.has(3):
        return
    if "axes" not in edit.view.attrs:
        edit.retarget(3)
    elif any(a % len(edit.view.shape(0)) in edit.changed() for a in edit.view.attrs["axes"]):
        new = edit.new_out[0] or ()
        edit.set_input(3, np.array([new[a] for a in edit.view.attrs["axes"]], np.int64), "sizes")


@rule("Crop")
def crop(view: NodeView) -> list[Axes]:
    """Per channel; cropped axes must stay whole (an experimental operator of old exporters)."""
    letters = ("n", "c", "h", "w")
    return through(view, [letters], [("n", "c", "y", "x")], fixes=dict.fromkeys(letters[2:], "cropped"))


def _resampled(view: NodeView) -> set[int]:
    """The axes that are resampled: one may be, and keep its size."""
    old, new = view.dims(view.node.input[0]), view.dims(view.node.output[0])
    found = {a for a, (o, n) in enumerate(zip(old, new, strict=True)) if o != n}
    listed = [a % len(old) for a in view.attrs.get("axes", range(len(old)))]
    scales = view.value(1 if view.node.op_type == "Upsample" or view.version < 11 else 2)
    if scales is None:
        scales = np.array(view.attrs.get("scales", ()))
    found.update(a for a, scale in zip(listed, scales, strict=False) if scale != 1)
    # These choose one scale for all axes, or cut out a part first.
    is_stretched = view.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    if (found and not is_stretched) or view.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        found.update(listed)
    return found


@rule("Resize", "Upsample", resize=_resize_sizes)
def resize(view: NodeView) -> list[Axes]:
    """Axes that are not resampled are kept; resampled ones must stay whole."""
    letters, resampled = range(len(view.shape(0))), _resampled(view)
    output: list[Letter] = [f"o{a}" if a in resampled else a for a in letters]
    return through(view, [letters], [output], fixes=dict.fromkeys(resampled, "resampled"))


@rule("GridSample")
def grid_sample(view: NodeView) -> list[Axes]:
    """Per channel; spatial axes and the grid must stay whole."""
    space = range(len(view.shape(0)) - 2)
    grid = ("n", *(f"o{a}" for a in space), "xy")
    fixes = dict.fromkeys([*space, "xy"], "sampled at computed places")
    return through(view, [("n", "c", *space), grid], [("n", "c", *grid[1:-1])], fixes=fixes)


@rule("RoiAlign", "MaxRoiPool")
def roi(view: NodeView) -> list[Axes]:
    """Per channel and region; spatial axes and images must stay whole."""
    rois = [("r", "corner"), ("r",)][: len(view.node.input) - 1]
    fixes: dict[Letter, str] = dict.fromkeys(("n", "h", "w", "corner"), "sampled at computed places")
    return through(view, [("n", "c", "h", "w"), *rois], [("r", "c", "y", "x")], fixes=fixes)


@rule("Trilu")
def trilu(view: NodeView) -> list[Axes]:
    """Batch axes are kept; the two matrix axes must stay whole."""
    letters = range(len(view.shape(0)))
    return through(view, [letters], [letters], fixes=dict.fromkeys(letters[-2:], "triangle of a matrix"))


@rule("ReverseSequence")
def reverse_sequence(view: NodeView) -> list[Axes]:
    """Kept across the time axis, which must stay whole; each batch position has its own length."""
    letters = range(len(view.shape(0)))
    time, batch = int(view.attrs.get("time_axis", 0)), int(view.attrs.get("batch_axis", 1))
    return through(view, [letters, [batch]], [letters], fixes={time: "reversed by computed lengths"})


@rule("Col2Im")
def col2im(view: NodeView) -> list[Axes]:
    """Channels are rows of kernel positions and go whole; spatial axes must stay."""
    x, block = view.labels(0), view.listed("block_shape", 2)
    channels = view.out_shape()[1]
    if block is None:
        raise Unsupported("its channels do not carry labels")
    rows = np.broadcast_to(view.uniform(x[1], 1), (view.shape(0)[1],)).reshape(channels, -1)
    view.ledger.tie(rows, rows[:, :1])
    view.ledger.fix(x[2], view.reason("image positions"))
    space = tuple(view.barrier("image positions") for _ in view.out_shape()[2:])
    return [(x[0], rows[:, 0], *space)]
