"""Operators that read an image between its pixels: GridSample, DeformConv and RoiAlign, as reads and weights.

The place of a read is a number; its weights are products of functions of that number, one for each axis, so the image
and the places both get gradients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.lowering.registry import Inputs, leading, lowering, optional, settings_of

_INT64 = np.dtype(np.int64)
# Where a coordinate that a tap reads lies, and whether it is inside: what a padding makes of it.
Bounds = Callable[[Value, int], tuple[Value, Value | None]]
Taps = Sequence[tuple[Value, Value]]


def _read(image: Value, places: Sequence[Taps], bounds: Bounds) -> Value:
    """Read an image at places between its pixels.

    Args:
        image: [batch, channels, sizes].
        places: for each spatial axis the taps, each a coordinate [batch, reads] (whole, perhaps beyond the image) and
            its weight.
        bounds: what to make of coordinates beyond the image.

    Returns:
        [batch, channels, reads].
    """
    batch, channels, *sizes = image.shape
    flat = image.reshape([batch, channels, math.prod(sizes)])
    parts = []
    for taps in itertools.product(*places):
        index, weight = None, None
        for (coordinate, share), size in zip(taps, sizes, strict=True):
            inside, mask = bounds(coordinate, size)
            share = share if mask is None else share * mask
            whole = inside.cast(_INT64)
            index = whole if index is None else index * size + whole
            weight = share if weight is None else weight * share
        assert index is not None and weight is not None
        reads = index.shape[1]
        where = index.reshape([batch, 1, reads]).expand([batch, channels, reads])
        pixels = image.graph.op("GatherElements", flat, where, shape=where.shape, axis=2)
        parts.append(pixels * weight.reshape([batch, 1, reads]))
    return image.graph.total(parts)


def _linear(place: Value) -> Taps:
    """The two neighbours of a place."""
    low = place.map("Floor")
    share = place - low
    return [(low, 1.0 - share), (low + 1.0, share)]


def _nearest(place: Value) -> Taps:
    """The nearest pixel; halves go to the even one."""
    return [(place.map("Round"), place * 0.0 + 1.0)]


def _cubic(place: Value, a: float = -0.75) -> Taps:
    """The four neighbours of a place, by cubic convolution (Keys 1981)."""
    low = place.map("Floor")
    t = place - low

    def near(d: Value) -> Value:
        return ((a + 2) * d - (a + 3)) * d * d + 1.0

    def far(d: Value) -> Value:
        return ((d - 5.0) * d + 8.0) * d * a - 4 * a

    weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
    return [(low + float(shift), weight) for shift, weight in zip((-1, 0, 1, 2), weights, strict=True)]


def _clipped(value: Value, low: float, high: float) -> Value:
    """Keep numbers within bounds."""
    return value.graph.op("Clip", value, value.like(low), value.like(high), shape=value.shape)


def _zeros_beyond(coordinate: Value, size: int) -> tuple[Value, Value | None]:
    """What is beyond the image is zero."""
    mask = coordinate.mask("GreaterOrEqual", 0.0) * coordinate.mask("LessOrEqual", float(size - 1))
    return _clipped(coordinate, 0.0, float(size - 1)), mask


def _border_beyond(coordinate: Value, size: int) -> tuple[Value, Value | None]:
    """What is beyond the image is its last pixel."""
    return _clipped(coordinate, 0.0, float(size - 1)), None


def _mirrored(place: Value, size: int, *, corners: bool) -> Value:
    """A place beyond the image, reflected at the border until it is inside."""
    low, high = (0.0, float(size - 1)) if corners else (-0.5, size - 0.5)
    span = high - low
    if span == 0:
        return place * 0.0
    apart = (place - low).map("Abs")
    turns = (apart / span).map("Floor")
    rest = apart - turns * span
    odd = turns - (turns * 0.5).map("Floor") * 2.0
    return rest + odd * (span - 2.0 * rest) + low


@lowering("GridSample")
def _grid_sample(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    image, grid = leading(inputs), inputs[1]
    assert grid is not None
    settings = settings_of(node)
    mode, padding = settings.get("mode", "linear"), settings.get("padding_mode", "zeros")
    corners, sizes = bool(settings.get("align_corners")), image.shape[2:]
    batch, *made, axes = grid.shape
    reads = math.prod(made)
    flat = grid.reshape([batch, reads, axes])
    bounds: Bounds = _zeros_beyond if padding == "zeros" else _border_beyond
    if padding == "reflection":
        bounds = lambda c, size: (_clipped(_mirrored(c, size, corners=corners), 0.0, size - 1.0), None)  # noqa: E731
    taps = {"nearest": _nearest, "cubic": _cubic, "bicubic": _cubic}.get(mode, _linear)
    places = []
    for axis, size in enumerate(sizes):
        # The last entry of a grid's row is the place along the last axis.
        place = flat.slice(2, axes - 1 - axis, axes - axis).reshape([batch, reads])
        place = (place + 1.0) * ((size - 1) / 2) if corners else ((place + 1.0) * float(size) - 1.0) * 0.5
        if taps is not _cubic and padding != "zeros":  # cubic weights are those of the place that was asked for
            place = bounds(place, size)[0]
        places.append(taps(place))
    result = _read(image, places, bounds)
    return [result.reshape([batch, image.shape[1], *made])]


@lowering("DeformConv")
def _deform_conv(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    """Every tap of the kernel reads at a place of its own; what it reads is multiplied by the weight."""
    x, weight, offset, bias, mask = leading(inputs), inputs[1], inputs[2], optional(inputs, 3), optional(inputs, 4)
    settings, rank = settings_of(node), leading(inputs).rank - 2
    assert weight is not None and offset is not None
    groups, shared = settings.get("group", 1), settings.get("offset_group", 1)
    strides, dilations = (settings.get(k) or [1] * rank for k in ("strides", "dilations"))
    before = (settings.get("pads") or [0] * 2 * rank)[:rank]
    batch, channels = x.shape[:2]
    kernel, made = weight.shape[2:], offset.shape[2:]
    taps, reads = math.prod(kernel), math.prod(made)
    # One image for each group of channels that share their places.
    images = x.reshape([batch * shared, channels // shared, *x.shape[2:]])
    moved = offset.reshape([batch * shared, taps, rank, reads])
    places = []
    for axis in range(rank):
        tap = np.indices(kernel)[axis].reshape(taps, 1) * dilations[axis] - before[axis]
        start = np.indices(made)[axis].reshape(1, reads) * strides[axis]
        base = graph.constant((tap + start).reshape(1, taps, reads).astype(x.dtype))
        place = moved.slice(2, axis, axis + 1).reshape([batch * shared, taps, reads]) + base
        places.append(_linear(place.reshape([batch * shared, taps * reads])))
    found = _read(images, places, _zeros_beyond)
    if mask is not None:
        found = found * mask.reshape([batch * shared, 1, taps * reads])
    columns = found.reshape([batch, groups, channels // groups * taps, reads])
    rows = weight.reshape([groups, weight.shape[0] // groups, channels // groups * taps])
    y = (rows @ columns).reshape([batch, weight.shape[0], *made])
    return [y if bias is None else y + bias.reshape([1, bias.size, *[1] * rank])]


@lowering("RoiAlign")
def _roi_align(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    """Averages over reads in the cells of each box; None where the number of reads depends on the box."""
    image, boxes, which = leading(inputs), inputs[1], inputs[2]
    assert boxes is not None and which is not None
    settings = settings_of(node)
    half = settings.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    count = settings.get("sampling_ratio", 0)
    if count <= 0 or settings.get("mode", "avg") != "avg":
        return None
    rois, channels = boxes.shape[0], image.shape[1]
    scale, cells = settings.get("spatial_scale", 1.0), [settings.get(f"output_{k}", 1) for k in ("height", "width")]
    places = []
    for axis, (cell, size) in enumerate(zip(cells, image.shape[2:], strict=True)):
        start, end = (
            boxes.slice(1, slot, slot + 1) * float(scale) - (0.5 if half else 0.0) for slot in (1 - axis, 3 - axis)
        )
        length = end - start
        if not half:
            length = graph.op("Max", length, length.like(1.0), shape=length.shape)
        shares = ((np.arange(cell * count) + 0.5) / (cell * count)).astype(image.dtype)
        places.append((start + length * graph.constant(shares.reshape(1, -1)), size))
    grids = []
    for axis, (place, size) in enumerate(places):
        reads = [p.shape[1] for p, _ in places]
        laid = place.reshape([rois, *(n if a == axis else 1 for a, n in enumerate(reads))])
        whole = laid.expand([rois, *reads]).reshape([rois, math.prod(reads)])
        inside = whole.mask("GreaterOrEqual", -1.0) * whole.mask("LessOrEqual", float(size))
        grids.append([(low, share * inside) for low, share in _linear(_clipped(whole, 0.0, size - 1.0))])
    chosen = graph.op("Gather", image, which, shape=[rois, *image.shape[1:]], axis=0)
    found = _read(chosen, grids, _border_beyond)
    cut = found.reshape([rois, channels, cells[0], count, cells[1], count])
    return [cut.mean([3, 5])]
