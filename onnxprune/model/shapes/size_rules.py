"""The operators whose output sizes are computed from sizes, or from the entries of small integer tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import helper

from onnxprune.model.shapes.constant_fold import split_sizes
from onnxprune.model.shapes.entries import Entries
from onnxprune.model.shapes.polynomials import (
    Dim,
    Dims,
    Size,
    bounds,
    broadcast_dims,
    floor,
    is_known,
    largest,
    product,
    quotient,
    smallest,
)

Shape = tuple[int, ...]
# An end of a Slice that is as good as none.
FAR = 1 << 31


class Sized(Protocol):
    """What is known of the tensors in front of a node."""

    def dims_of(self, tensor: str) -> Dims:
        """The sizes of a tensor."""

    def entries(self, tensor: str) -> Entries | None:
        """The entries of a tensor."""

    def shape_of(self, tensor: str) -> Shape:
        """The sizes of a tensor at numbers."""


@dataclass(frozen=True)
class SizeNode:
    """A node whose sizes are asked for."""

    node: onnx.NodeProto
    of: Sized

    def attribute(self, name: str, default: Any = 0) -> Any:
        """The value of an attribute."""
        return next((helper.get_attribute_value(a) for a in self.node.attribute if a.name == name), default)

    def has(self, slot: int) -> bool:
        """Whether an optional input is given."""
        return 0 <= slot < len(self.node.input) and bool(self.node.input[slot])

    def dims(self, slot: int = 0) -> Dims:
        """The sizes of an input."""
        return self.of.dims_of(self.node.input[slot])

    def out(self, slot: int = 0) -> Shape:
        """The sizes of an output at numbers."""
        return self.of.shape_of(self.node.output[slot])

    def listed(self, name: str, slot: int) -> list[Any] | None:
        """A list that is an attribute in old opsets and an input in new ones; None if it is not given.

        Raises:
            LookupError: its entries are not known.
        """
        if not self.has(slot):
            found = self.attribute(name, None)
            return None if found is None else list(found)
        entries = self.of.entries(self.node.input[slot])
        if entries is None:
            raise LookupError(f"{name} is computed at run time")
        return list(np.asarray(entries, object).flat)

    def axes(self, slot: int, rank: int) -> list[int] | None:
        """Axes, none negative."""
        found = self.listed("axes", slot)
        return None if found is None else [int(a) % rank for a in found]


Made = Sequence[Sequence[Dim | None] | None]


def _reshape(n: SizeNode) -> Made:
    x, target = n.dims(), n.listed("shape", 1) or []
    made: list[Dim | None] = []
    for axis, t in enumerate(target):
        if is_known(t):
            made.append(x[axis] if t == 0 and not n.attribute("allowzero") else int(t))
        else:  # one that may be -1 or 0 says nothing
            made.append(t if bounds(t)[0] >= 0 else None)
    if -1 in made:
        rest = [d for d in made if d != -1]
        left = None if None in rest else quotient(product(x), product([d for d in rest if d is not None]))
        made[made.index(-1)] = left
    return [made]


def _expand(n: SizeNode) -> Made:
    return [broadcast_dims(n.dims(), tuple(n.listed("shape", 1) or []))]


def _tile(n: SizeNode) -> Made:
    return [[d * r for d, r in zip(n.dims(), n.listed("repeats", 1) or [], strict=True)]]


def _fill(n: SizeNode) -> Made:
    return [n.listed("shape", 0)]


def _range(n: SizeNode) -> Made:
    start, limit, delta = (n.listed("", slot) or [] for slot in range(3))
    return [[_steps(limit[0] - start[0], delta[0])]]


def _steps(length: Dim, step: Any) -> Dim:
    """How many steps fit into a length."""
    if not is_known(step) or step == 0 or isinstance(step, float):
        raise ValueError("the step is not known")
    if step < 0:
        length, step = -length, -int(step)
    return largest(floor(length + (int(step) - 1), int(step)), 0)


def _concat(n: SizeNode) -> Made:
    parts = [n.dims(slot) for slot in range(len(n.node.input))]
    axis = n.attribute("axis") % len(parts[0])
    return [
        [
            sum(p[a] for p in parts) if a == axis else next((p[a] for p in parts if is_known(p[a])), parts[0][a])
            for a in range(len(parts[0]))
        ]
    ]


def _slice(n: SizeNode) -> Made:
    made: list[Dim | None] = list(n.dims())
    listed = n.axes(3, len(made))
    try:
        starts, ends, steps = n.listed("starts", 1), n.listed("ends", 2), n.listed("steps", 4)
    except LookupError:
        starts = ends = steps = None
    count = len(starts or ends or listed or made)
    for i, axis in enumerate(listed or range(count)):
        size = made[axis]
        assert size is not None
        made[axis] = _span(size, starts[i], ends[i], steps[i] if steps else 1) if starts and ends else None
    return [made]


def _span(size: Dim, start: Dim, end: Dim, step: Dim) -> Dim | None:
    """How many positions of an axis a Slice takes."""
    if isinstance(step, Size):
        return None
    if step < 0:
        whole = start == -1 and bounds(end)[1] < -FAR
        return _steps(size, -step) if whole else None
    low, high = _place(size, start), _place(size, end)
    return None if low is None or high is None else _steps(high - low, step)


def _place(size: Dim, place: Dim) -> Dim | None:
    """A bound of a Slice, counted from the front and within the axis."""
    low, high = bounds(place)
    if low >= FAR:
        return size
    if low >= 0:
        return smallest(place, size)
    if size + place == 0:  # the last `size`, of none too
        return 0
    return largest(size + place, 0) if high < 0 else None


def _split(n: SizeNode) -> Made:
    x, count = n.dims(), len(n.node.output)
    axis = n.attribute("axis") % len(x)
    sizes: Sequence[Dim | None] | None = n.listed("split", 1)
    if sizes is None and is_known(x[axis]):
        sizes = split_sizes(x[axis], count)
    elif sizes is None:
        sizes = [quotient(x[axis], count)] * count
    return [[*x[:axis], size, *x[axis + 1 :]] for size in sizes]


def _flatten(n: SizeNode) -> Made:
    x, axis = n.dims(), n.attribute("axis", 1)
    return [[product(x[:axis]), product(x[axis:])]]


def _pad(n: SizeNode) -> Made:
    made: list[Dim | None] = list(n.dims())
    axes = n.axes(3, len(made)) if n.has(3) else None
    axes = list(range(len(made))) if axes is None else axes
    try:
        pads = n.listed("pads" if n.attribute("pads", None) is not None else "paddings", 1) or []
    except LookupError:
        pads = [None] * (2 * len(axes))
    for i, axis in enumerate(axes):
        size, front, back = made[axis], pads[i], pads[i + len(axes)]
        made[axis] = None if size is None or front is None or back is None else size + front + back
    return [made]


def _resize(n: SizeNode) -> Made:
    x, out = n.dims(), n.out()
    if n.attribute("coordinate_transformation_mode", b"") == b"tf_crop_and_resize":
        raise ValueError("of a region")
    axes = n.axes(-1, len(x)) or list(range(len(x)))
    made: list[Dim | None] = list(x)
    if n.has(3) and n.attribute("keep_aspect_ratio_policy", b"stretch") == b"stretch":
        sizes = n.listed("sizes", 3) or []
        for axis, size in zip(axes, sizes, strict=True):
            made[axis] = size
        return [made]
    slot = next((s for s in (2, 1) if n.has(s)), -1)
    scales = n.listed("scales", slot) or []
    for axis, scale in zip(axes, scales, strict=True):
        if is_known(scale) and is_known(x[axis]):
            made[axis] = out[axis]  # which the scan at numbers has computed from the same
        elif not is_known(scale) or scale != 1:
            made[axis] = None
    return [made]


def _squeeze(n: SizeNode) -> Made:
    x, axes = n.dims(), n.axes(1, len(n.dims()))
    return [[d for a, d in enumerate(x) if (a not in axes if axes is not None else d != 1)]]


def _sizes_of(n: SizeNode) -> Made:
    return [n.out()]


def _joint(n: SizeNode) -> Made:
    if n.attribute("broadcast"):  # of old opsets
        return [n.dims()]
    return [broadcast_dims(*(n.dims(slot) for slot in range(len(n.node.input))))]


def _conv(n: SizeNode) -> Made:
    x, (outputs, _, *kernel) = n.dims(), n.dims(1)
    count = len(kernel)
    strides, dilations = n.attribute("strides", [1] * count), n.attribute("dilations", [1] * count)
    pads = n.attribute("pads", [0] * 2 * count)
    kind = n.attribute("auto_pad", b"NOTSET").decode()
    made: list[Dim | None] = [x[0], outputs]
    for axis, length in enumerate(x[2:]):
        if kind.startswith("SAME"):
            made.append(floor(length + (strides[axis] - 1), strides[axis]))
            continue
        room = 0 if kind == "VALID" else pads[axis] + pads[axis + count]
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        made.append(floor(length + (room - reach), strides[axis]) + 1)
    return [made]


SIZES: Mapping[str, Callable[[SizeNode], Made]] = {
    **dict.fromkeys(
        ("Add", "And", "Div", "Equal", "Greater", "Less", "Mod", "Mul", "Or", "Pow", "Sub", "Where"), _joint
    ),
    "Concat": _concat,
    "ConstantOfShape": _fill,
    "Conv": _conv,
    "Expand": _expand,
    "Flatten": _flatten,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _sizes_of,
    "Size": _sizes_of,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Upsample": _resize,
}
