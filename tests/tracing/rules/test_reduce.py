"""Labels through reductions, pooling, resampling and operators along one axis."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.tracing.rules.reduce import ZERO_IS_NEUTRAL
from tests.graphs.net import Net
from tests.graphs.sandwich import Case, check_case, parameters

IMAGE = (2, 8, 6, 4)
REDUCTIONS = [
    "ReduceSum",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceLogSum",
    "ReduceLogSumExp",
]


def reduced(op: str, axes: list[int] | None, **attrs):
    def build(net: Net, x: str) -> str:
        if op in ("ReduceLogSum", "ReduceProd"):
            x = net.add("Add", net.add("Abs", x), net.const(np.float32(0.5)))
        return net.listed(op, x, axes, since=13 if op == "ReduceSum" else 18, **attrs)

    return build


def no_axes(net: Net, x: str) -> str:
    return net.add("ReduceSum", x, noop_with_empty_axes=1)


def squeeze_excite(net: Net, x: str) -> str:
    """A mean over space, two layers, a gate."""
    mean = net.listed("ReduceMean", x, [2, 3], since=18)
    small = net.add("Relu", net.add("Conv", mean, net.weight(4, 8, 1, 1, name="squeeze")))
    return net.add("Mul", x, net.add("Sigmoid", net.add("Conv", small, net.weight(8, 4, 1, 1, name="excite"))))


def plain(op: str, **attrs):
    def build(net: Net, x: str) -> str:
        return net.add(op, x, **attrs)

    return build


def top_k(axis: int, k: int = 3, outputs: int = 2):
    def build(net: Net, x: str) -> list[str]:
        if net.opset < 10:
            return net.add("TopK", x, outputs=2, axis=axis, k=k)
        return net.add("TopK", x, net.ints(k), outputs=2, axis=axis)

    return build


def cumulative(axis: int, **attrs):
    def build(net: Net, x: str) -> str:
        return net.add("CumSum", x, net.const(np.int64(axis)), **attrs)

    return build


def cumulative_computed(net: Net, x: str) -> str:
    axis = net.add("ArgMax", net.input([4], "which"), axis=0, keepdims=0)
    return net.add("CumSum", x, net.add("Mul", axis, net.const(np.int64(0))))


def with_indices(net: Net, x: str) -> str:
    pooled, index = net.add("MaxPool", x, outputs=2, kernel_shape=[2, 2])
    net.output(index)
    return pooled


def old_max_pool_rank(spatial: int, **attrs):
    return {"kernel_shape": [3, 2, 2][:spatial], **attrs}


def upsample(net: Net, x: str) -> str:
    scales = [1.0, 1.0, 2.0, 3.0]
    if net.opset < 9:
        return net.add("Upsample", x, scales=scales)
    return net.add("Upsample", x, net.const(np.array(scales, np.float32)))


def no_region(net: Net) -> str:
    """An input that is not used: opset 11 asks for an empty tensor."""
    return net.const(np.empty(0, np.float32)) if net.opset < 13 else ""


def by_scales(scales: tuple[float, ...] = (1, 1, 2, 1.5), **attrs):
    def build(net: Net, x: str) -> str:
        given = net.const(np.array(scales, np.float32))
        if net.opset < 11:
            return net.add("Resize", x, given, mode="nearest")
        return net.add("Resize", x, no_region(net), given, **attrs)

    return build


def by_sizes(sizes: tuple[int, ...] = (2, 8, 9, 8), **attrs):
    def build(net: Net, x: str) -> str:
        empty = no_region(net)
        return net.add("Resize", x, empty, empty, net.ints(*sizes), **attrs)

    return build


def by_computed_sizes(net: Net, x: str) -> str:
    """As torch exports `interpolate(x, size=...)`: batch and channels are read off the tensor."""
    shape = net.add("Shape", x)
    if net.opset < 10:
        front = net.add("Slice", shape, starts=[0], ends=[2])
    else:
        front = net.add("Slice", shape, net.ints(0), net.ints(2))
    sizes = net.add("Concat", front, net.ints(9, 8), axis=0)
    empty = no_region(net)
    return net.add("Resize", x, empty, empty, sizes, mode="linear")


def grid_sample(net: Net, x: str) -> str:
    grid = net.input([2, 5, 3, 2], "grid")
    return net.add("GridSample", x, net.add("Tanh", grid))


def grid_sample_made(net: Net, x: str) -> str:
    """The labelled tensor is the grid: it must stay whole."""
    image = net.input([2, 3, 5, 5], "image")
    return net.add("GridSample", image, net.add("Tanh", x))


def roi_align(net: Net, x: str) -> str:
    boxes = net.const(np.array([[0, 0, 3, 3], [1, 1, 4, 5], [0, 2, 3, 5]], np.float32))
    return net.add("RoiAlign", x, boxes, net.ints(0, 1, 1), output_height=2, output_width=3)


def roi_pool(net: Net, x: str) -> str:
    boxes = net.const(np.array([[0, 0, 0, 3, 3], [1, 1, 1, 3, 5]], np.float32))
    return net.add("MaxRoiPool", x, boxes, pooled_shape=[2, 2])


def regions(net: Net, x: str) -> str:
    """One region for every position of a made axis."""
    boxes = net.add("Concat", x, net.add("Add", net.add("Abs", x), net.const(np.float32(3))), axis=1)
    image, index = net.weight(2, 4, 6, 6, name="image"), net.const(np.arange(8) % 2)
    options = {} if net.opset < 16 else {"coordinate_transformation_mode": "output_half_pixel"}
    return net.add("RoiAlign", image, boxes, index, output_height=2, output_width=2, sampling_ratio=2, **options)


def reverse(net: Net, x: str) -> str:
    return net.add("ReverseSequence", x, net.ints(3, 2, 4, 1, 2), time_axis=0, batch_axis=1)


def reverse_batch(net: Net, x: str) -> str:
    return net.add("ReverseSequence", x, net.ints(3, 2, 4, 1, 2, 3, 1, 4), time_axis=0, batch_axis=1)


def col2im(net: Net, x: str) -> str:
    return net.add("Col2Im", x, net.ints(4, 5), net.ints(2, 2))


SPACE = {"units": 0, "why": "pooled over"}
POOLS = ("AveragePool", "MaxPool", "LpPool")
# Of the newest versions of these the runtime has no implementation.
UNTIL = {"GlobalLpPool": 21, "RoiAlign": 21, "MaxRoiPool": 21}
GLOBAL = ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")

CASES = [
    *(
        Case(op, f"along-{keep}", reduced(op, [2], keepdims=keep), out=None, exact=op in ZERO_IS_NEUTRAL)
        for op in REDUCTIONS
        for keep in (0, 1)
    ),
    *(Case(op, "negative", reduced(op, [-1]), out=None, exact=op in ZERO_IS_NEUTRAL) for op in REDUCTIONS),
    *(Case(op, "all", reduced(op, None, keepdims=0), out=None, exact=op in ZERO_IS_NEUTRAL) for op in REDUCTIONS),
    *(Case(op, "across-0", reduced(op, [1], keepdims=0), out=1) for op in REDUCTIONS),
    *(Case(op, "across-1", reduced(op, [0, -2])) for op in REDUCTIONS),
    *(Case(op, "mixed", reduced(op, [1, 2]), out=None, exact=op in ZERO_IS_NEUTRAL) for op in REDUCTIONS),
    Case("ReduceSum", "no-op", no_axes, since=13),
    Case("ReduceMean", "squeeze-excite", squeeze_excite, IMAGE, 1, 1, others={("squeeze", 0): 4, ("excite", 0): 8}),
    *(
        Case(op, f"along-{keep}", plain(op, axis=2, keepdims=keep), out=None, units=0, why="positions are results")
        for op in ("ArgMax", "ArgMin")
        for keep in (0, 1)
    ),
    *(Case(op, "across", plain(op, axis=1)) for op in ("ArgMax", "ArgMin")),
    *(Case(op, "default", plain(op, keepdims=0), out=1) for op in ("ArgMax", "ArgMin")),
    *(Case(op, "last", plain(op, axis=-2, select_last_index=1), since=12) for op in ("ArgMax", "ArgMin")),
    Case("TopK", "along", top_k(2), units=0, why="positions are ranked"),
    Case("TopK", "across", top_k(1)),
    Case("TopK", "across-first", top_k(0, 1)),
    Case("TopK", "across-negative", top_k(-2), since=11),
    Case("CumSum", "along", cumulative(2)),
    Case("CumSum", "along-reverse", cumulative(-1, reverse=1, exclusive=1)),
    Case("CumSum", "across", cumulative(1)),
    Case("CumSum", "computed", cumulative_computed, units=0, why="axis is computed at run time"),
    *(Case(op, "2d", plain(op), IMAGE, 1, 1, until=UNTIL.get(op, 24)) for op in GLOBAL),
    *(Case(op, "1d", plain(op), (2, 8, 5), 1, 1, until=UNTIL.get(op, 24)) for op in GLOBAL),
    *(Case(op, "space", plain(op), IMAGE, 2, 1, **SPACE, until=UNTIL.get(op, 24)) for op in GLOBAL),
    *(
        Case(op, f"{n}d", plain(op, kernel_shape=[3, 2, 2][:n]), (2, 8, 5, 4, 4)[: n + 2], 1, 1)
        for op in POOLS
        for n in (1, 2, 3)
    ),
    *(
        Case(op, "strided", plain(op, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]), IMAGE, 1, 1)
        for op in POOLS
    ),
    *(Case(op, "space", plain(op, kernel_shape=[2, 2]), IMAGE, 3, 1, **SPACE) for op in POOLS),
    *(Case(op, "batch", plain(op, kernel_shape=[2, 2]), (8, 2, 4, 4), 0, 0) for op in POOLS),
    Case(
        "AveragePool",
        "ceil",
        plain("AveragePool", kernel_shape=[3, 3], ceil_mode=1, strides=[2, 2]),
        IMAGE,
        1,
        1,
        since=10,
    ),
    Case("MaxPool", "indices", with_indices, IMAGE, 1, 1, since=8, units=0, why="indices count through the channels"),
    Case("Crop", "", plain("Crop", border=[1, 1, 0, 1]), IMAGE, 1, 1),
    Case("Crop", "space", plain("Crop", border=[1, 1, 0, 1]), IMAGE, 2, 1, units=0, why="cropped"),
    Case("Upsample", "", upsample, IMAGE, 1, 1, until=9),
    Case("Upsample", "space", upsample, IMAGE, 2, 1, until=9, units=0, why="resampled"),
    Case("Resize", "scales", by_scales(), IMAGE, 1, 1),
    Case(
        "Resize", "cubic", by_scales(mode="cubic", coordinate_transformation_mode="asymmetric"), IMAGE, 1, 1, since=11
    ),
    Case("Resize", "same-size", by_scales((1, 1.1, 1, 1)), (2, 8, 3, 4), 1, 1, units=0, why="resampled", since=13),
    Case(
        "Resize",
        "policy-same-size",
        by_sizes((3, 8), axes=[2, 3], keep_aspect_ratio_policy="not_larger"),
        (2, 3, 8, 8),
        2,
        2,
        units=0,
        why="resampled",
        since=18,
    ),
    Case("Resize", "scales-axes", by_scales((2, 3), axes=[2, 3]), IMAGE, 1, 1, since=18),
    Case("Resize", "sizes", by_sizes(), IMAGE, 1, 1, since=11),
    Case(
        "Resize",
        "sizes-linear",
        by_sizes(mode="linear", coordinate_transformation_mode="align_corners"),
        IMAGE,
        1,
        1,
        since=11,
    ),
    Case("Resize", "sizes-axes", by_sizes((9, 8), axes=[2, 3]), IMAGE, 1, 1, since=18),
    Case("Resize", "sizes-channel-axes", by_sizes((8, 9), axes=[1, 2]), IMAGE, 1, 1, since=18),
    Case(
        "Resize", "policy", by_sizes((9, 8), axes=[2, 3], keep_aspect_ratio_policy="not_larger"), IMAGE, 1, 1, since=18
    ),
    Case("Resize", "computed", by_computed_sizes, IMAGE, 1, 1, since=11),
    Case("Resize", "space", by_scales(), IMAGE, 2, 1, units=0, why="resampled"),
    Case("Resize", "space-kept", by_scales((1, 1, 1, 2)), (2, 3, 8, 4), 2, 2),
    Case("GridSample", "", grid_sample, IMAGE, 1, 1),
    Case("GridSample", "space", grid_sample, IMAGE, 2, 1, units=0, why="sampled at computed places"),
    Case("GridSample", "grid", grid_sample_made, (2, 8, 5, 2), 1, 2, others={("w_out", 0): 8}),
    Case("RoiAlign", "", roi_align, IMAGE, 1, 1, until=21),
    Case("RoiAlign", "space", roi_align, IMAGE, 3, 1, units=0, why="sampled at computed places", until=21),
    Case("RoiAlign", "regions", regions, (8, 2), 0, 0, until=21),
    Case("MaxRoiPool", "", roi_pool, IMAGE, 1, 1, until=21),
    Case("Trilu", "batch", plain("Trilu"), (8, 4, 5), 0, 0),
    Case("Trilu", "lower", plain("Trilu", upper=0), (2, 8, 4, 5), 1, 1),
    Case("Trilu", "matrix", plain("Trilu"), units=0, why="triangle of a matrix"),
    Case("ReverseSequence", "", reverse, (4, 5, 8)),
    Case("ReverseSequence", "batch", reverse_batch, (4, 8, 3), 1, 1),
    Case("ReverseSequence", "time", reverse, (4, 5, 8), 0, 0, units=0, why="reversed by computed lengths"),
    Case("Col2Im", "", col2im, (2, 24, 12), 1, 1, units=6),
    Case("Col2Im", "positions", col2im, (2, 24, 12), 2, 1, units=0, why="image positions"),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_reduce(case: Case, version: int) -> None:
    check_case(case, version)
