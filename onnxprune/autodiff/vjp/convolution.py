"""Convolutions and their transposes.

Gradient by the input: a transposed convolution with the same weights. Gradient by the weight: for each tap of the
kernel, one product of matrices between the output's gradient and the input at the positions that the tap reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune.autodiff.builder import Shape, Value
from onnxprune.autodiff.registry import BackwardNode, register_vjp

Gradients = Sequence[Value | None]

# Channels up to which a first layer's large kernel is cheaper as one convolution than tap by tap.
_FEW_CHANNELS = 4
# Width up to which a depthwise kernel is cheapest by whole rows.
_NARROW = 32


@dataclass(frozen=True)
class Window:
    """Where a window over spatial axes stands.

    Attributes:
        kernel: positions of the window along each axis.
        strides: positions between two windows.
        dilations: positions between two taps of a window.
        before: padding in front of each axis.
        after: padding behind each axis.
        group: number of groups of channels.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    group: int = 1

    @property
    def taps(self) -> int:
        """Number of positions of the window."""
        return math.prod(self.kernel)

    @property
    def is_pointwise(self) -> bool:
        """Whether every window is one position, and every position has one."""
        return self.taps == 1 and set(self.strides) == {1} and not any((*self.before, *self.after))

    def reach(self, outputs: Sequence[int]) -> list[int]:
        """Positions of the padded input that windows at `outputs` places touch, from the first to the last."""
        return [
            (n - 1) * s + (k - 1) * d + 1
            for n, s, k, d in zip(outputs, self.strides, self.kernel, self.dilations, strict=True)
        ]

    def attributes(self) -> dict[str, Any]:
        """The attributes of a Conv or ConvTranspose node."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "pads": [*self.before, *self.after],
            "group": self.group,
        }


def window(node: BackwardNode, inner: Sequence[int], outer: Sequence[int], kernel: Sequence[int]) -> Window:
    """Read the window of a node.

    Args:
        node: a Conv, ConvTranspose or pooling node.
        inner: spatial sizes that the windows stand on (the input of Conv, the output of ConvTranspose).
        outer: number of windows along each axis.
        kernel: positions of the window.
    """
    rank, given = len(kernel), node.attributes
    strides = tuple(given.get("strides") or [1] * rank)
    dilations = tuple(given.get("dilations") or [1] * rank)
    pads = list(given.get("pads") or [0] * 2 * rank)
    mode = given.get("auto_pad", "NOTSET")
    if mode == "VALID":
        pads = [0] * 2 * rank
    elif mode.startswith("SAME"):
        free = Window(tuple(kernel), strides, dilations, (), ())
        missing = [max(reach - n, 0) for reach, n in zip(free.reach(outer), inner, strict=True)]
        less = [n // 2 for n in missing]
        more = [n - half for n, half in zip(missing, less, strict=True)]
        pads = [*less, *more] if mode == "SAME_UPPER" else [*more, *less]
    return Window(
        kernel=tuple(kernel),
        strides=strides,
        dilations=dilations,
        before=tuple(pads[:rank]),
        after=tuple(pads[rank:]),
        group=given.get("group", 1),
    )


def spread_back(gradient: Value, weight: Value, shape: Shape, at: Window) -> Value:
    """Apply the adjoint of a convolution to its output's gradient: the gradient of an input of `shape`."""
    if at.is_pointwise and at.group == 1:
        places = math.prod(gradient.shape[2:])
        flat = gradient.reshape([*gradient.shape[:2], places])
        return (weight.reshape(weight.shape[:2]).mT @ flat).reshape(shape)
    reach = at.reach(gradient.shape[2:])
    extra = [n + b + a - r for n, b, a, r in zip(shape[2:], at.before, at.after, reach, strict=True)]
    # ConvTranspose takes an output padding smaller than the stride only. Windows may leave more than that unread, and
    # those of a pooling that rounds up reach beyond the padded input.
    inside = [max(min(e, max(s, d) - 1), 0) for e, s, d in zip(extra, at.strides, at.dilations, strict=True)]
    made = [n - (e - i) for n, e, i in zip(shape[2:], extra, inside, strict=True)]
    result = gradient.graph.op(
        "ConvTranspose", gradient, weight, shape=[*shape[:2], *made], output_padding=inside, **at.attributes()
    )
    return result.pad([0] * result.rank, [0, 0, *(n - m for n, m in zip(shape[2:], made, strict=True))])


@register_vjp("Conv")
def _conv(node: BackwardNode) -> Gradients:
    x, weight, dy = node.input(0), node.input(1), node.dy
    at = window(node, x.shape[2:], dy.shape[2:], weight.shape[2:])
    return _gradients(node, at, back=spread_back, pair=(x, dy))


@register_vjp("ConvTranspose")
def _conv_transpose(node: BackwardNode) -> Gradients:
    """A transposed convolution is the adjoint of a convolution from its output to its input."""
    x, weight, dy = node.input(0), node.input(1), node.dy
    if node.attributes.get("auto_pad", "NOTSET").startswith("SAME") or "output_shape" in node.attributes:
        at = _window_of_output_shape(node)
    else:
        at = window(node, dy.shape[2:], x.shape[2:], weight.shape[2:])
    return _gradients(node, at, back=_forward, pair=(_reached(dy, at, x.shape[2:]), x))


def _reached(dy: Value, at: Window, windows: Sequence[int]) -> Value:
    """The part of an output that windows reach; an output of a given size may be larger, and is zero beyond."""
    for axis, (reach, before, after) in enumerate(zip(at.reach(windows), at.before, at.after, strict=True), 2):
        dy = dy.slice(axis, 0, min(dy.shape[axis], reach - before - after))
    return dy


def _gradients(
    node: BackwardNode, at: Window, *, back: Callable[[Value, Value, Shape, Window], Value], pair: tuple[Value, Value]
) -> Gradients:
    """Gradients of input, weight and bias.

    Args:
        node: a convolution or a transposed one.
        at: the window.
        back: takes the output's gradient to the input's.
        pair: the tensor that the windows stand on, and the tensor with one position for each window.
    """
    weight, dy = node.input(1), node.dy
    gradients: list[Value | None] = [None] * len(node.inputs)
    if node.needed(0):
        gradients[0] = back(dy, weight, node.x.shape, at)
    if node.needed(1):
        gradients[1] = by_weight(*pair, weight.shape, at)
    if node.needed(2):
        gradients[2] = dy.sum([0, *range(2, dy.rank)])
    return gradients


def _window_of_output_shape(node: BackwardNode) -> Window:
    """The window of a ConvTranspose whose padding follows from its output's size, as the operator's text says."""
    rank, given = node.x.rank - 2, node.attributes
    at = window(node, node.y.shape[2:], node.x.shape[2:], node.input(1).shape[2:])
    extra = given.get("output_padding") or [0] * rank
    reach = at.reach(node.x.shape[2:])
    total = [r + e - n for r, e, n in zip(reach, extra, node.y.shape[2:], strict=True)]
    total = [max(n, 0) for n in total]
    half = [n // 2 for n in total]
    rest = [n - h for n, h in zip(total, half, strict=True)]
    # The operator puts the odd position in front, but for SAME_UPPER.
    upper = given.get("auto_pad", "NOTSET") == "SAME_UPPER"
    before, after = (half, rest) if upper else (rest, half)
    return replace(at, before=tuple(before), after=tuple(after))


def _forward(value: Value, weight: Value, shape: Shape, at: Window) -> Value:
    """Convolve; windows that an output padding adds are cut off."""
    padded = [n + b + a for n, b, a in zip(value.shape[2:], at.before, at.after, strict=True)]
    one = at.reach([1] * len(at.kernel))
    windows = [(n - k) // s + 1 for n, k, s in zip(padded, one, at.strides, strict=True)]
    result = value.graph.op("Conv", value, weight, shape=[*shape[:2], *windows], **at.attributes())
    for axis, size in enumerate(shape[2:], 2):
        result = result.slice(axis, 0, size)
    return result


# --- gradient by the weight --------------------------------------------------------------------------------


def by_weight(x: Value, dy: Value, shape: Shape, at: Window) -> Value:
    """The gradient of a convolution's weight.

    Args:
        x: input [N, C, ...].
        dy: gradient of the output [N, M, ...].
        shape: of the weight, [M, C / group, ...].
        at: the window.
    """
    channels, outputs = x.shape[1], dy.shape[1]
    if at.group == 1 and channels <= _FEW_CHANNELS and at.taps > 9:
        return _as_convolution(x, dy, shape, at)
    if at.group == channels == outputs and len(at.kernel) == 2 and x.shape[3] <= _NARROW and min(at.before) >= 0:
        return _by_rows(x, dy, at)
    # Sample by sample, a product as large as the weight is made and added up; channels first, both tensors are moved.
    places = math.prod(dy.shape[2:])
    if at.group == 1 and places * (channels + outputs) >= channels * outputs:
        return _by_taps(x, dy, shape, at)
    return _by_taps_of_groups(x, dy, shape, at)


def _as_convolution(x: Value, dy: Value, shape: Shape, at: Window) -> Value:
    """One convolution in which batch and channels, strides and dilations change places."""
    swap = [1, 0, *range(2, x.rank)]
    padded = [n + b + a for n, b, a in zip(x.shape[2:], at.before, at.after, strict=True)]
    full = [
        (n - ((m - 1) * s + 1)) // d + 1
        for n, m, s, d in zip(padded, dy.shape[2:], at.strides, at.dilations, strict=True)
    ]
    swapped = Window(dy.shape[2:], at.dilations, at.strides, at.before, at.after)
    sizes = [x.shape[1], dy.shape[1], *full]
    result = x.graph.op("Conv", x.transpose(swap), dy.transpose(swap), shape=sizes, **swapped.attributes())
    for axis, size in enumerate(shape[2:], 2):
        result = result.slice(axis, 0, size)
    return result.transpose(swap)


def _padded(x: Value, at: Window) -> Value:
    return x.pad([0, 0, *at.before], [0, 0, *at.after])


def _tap(x: Value, tap: Sequence[int], outputs: Sequence[int], at: Window) -> Value:
    """The positions of a padded input that one tap of the window reads."""
    for axis, (t, n, s, d) in enumerate(zip(tap, outputs, at.strides, at.dilations, strict=True), 2):
        x = x.slice(axis, t * d, t * d + (n - 1) * s + 1, s)
    return x


def _by_taps(x: Value, dy: Value, shape: Shape, at: Window) -> Value:
    batch, channels = x.shape[:2]
    outputs, places = dy.shape[1], math.prod(dy.shape[2:])
    padded, flat = _padded(x, at), dy.reshape([batch, outputs, places])
    parts = []
    for tap in np.ndindex(*at.kernel):
        read = _tap(padded, tap, dy.shape[2:], at).reshape([batch, channels, places])
        parts.append((flat @ read.mT).sum([0]).reshape([outputs, channels, 1]))
    return x.graph.concat(parts, 2).reshape(shape)


def _by_taps_of_groups(x: Value, dy: Value, shape: Shape, at: Window) -> Value:
    """Channels first, so that the groups are the stack of the products."""
    swap = [1, 0, *range(2, x.rank)]
    group, outputs, places = at.group, dy.shape[1], dy.size // dy.shape[1]
    padded = _padded(x.transpose(swap), at)
    flat = dy.transpose(swap).reshape([group, outputs // group, places])
    parts = []
    for tap in np.ndindex(*at.kernel):
        read = _tap(padded, tap, dy.shape[2:], at).reshape([group, x.shape[1] // group, places])
        parts.append((flat @ read.mT).reshape([outputs, x.shape[1] // group, 1]))
    return x.graph.concat(parts, 2).reshape(shape)


def _by_rows(x: Value, dy: Value, at: Window) -> Value:
    """Depthwise: the product of whole rows, of which the taps are diagonals.

    A product of rows of the input and of the output's gradient has the sum of every tap on a diagonal of its own; a
    constant matrix picks them. That is more arithmetic than tap by tap and far less memory traffic on narrow maps.
    """
    swap = [1, 0, 2, 3]
    padded, turned = _padded(x.transpose(swap), at), dy.transpose(swap)
    channels, batch, height, width = turned.shape
    row = padded.shape[3]
    picks = np.zeros((row, width, at.kernel[1]), dy.dtype)
    for tap in range(at.kernel[1]):
        places = np.arange(width)
        picks[places * at.strides[1] + tap * at.dilations[1], places, tap] = 1
    picker = x.graph.constant(picks.reshape(row * width, at.kernel[1]))
    gradients = turned.reshape([channels, batch * height, width])
    parts = []
    for tap in range(at.kernel[0]):
        start = tap * at.dilations[0]
        rows = padded.slice(2, start, start + (height - 1) * at.strides[0] + 1, at.strides[0])
        product = rows.reshape([channels, batch * height, row]).mT @ gradients
        picked = product.reshape([channels, row * width]) @ picker
        parts.append(picked.reshape([channels, 1, 1, at.kernel[1]]))
    return x.graph.concat(parts, 2)


# --- columns -----------------------------------------------------------------------------------------------


@register_vjp("Col2Im")
def _col2im(node: BackwardNode) -> Gradients:
    """Every column is a window that is added to the image: its gradient is the window of the gradient."""
    image = [int(n) for n in node.constant(1, "the size of Col2Im's image")]
    kernel = [int(n) for n in node.constant(2, "the size of Col2Im's blocks")]
    batch, rows, columns = node.x.shape
    rank = len(image)
    at = window(node, image, [1] * rank, kernel)
    padded = [n + b + a for n, b, a in zip(image, at.before, at.after, strict=True)]
    one = at.reach([1] * rank)
    counts = [(n - k) // s + 1 for n, k, s in zip(padded, one, at.strides, strict=True)]
    places = np.zeros((math.prod(kernel), math.prod(counts)), np.int64)
    taps, starts = np.indices(kernel).reshape(rank, -1, 1), np.indices(counts).reshape(rank, 1, -1)
    for axis in range(rank):
        places = places * padded[axis] + taps[axis] * at.dilations[axis] + starts[axis] * at.strides[axis]
    full = node.dy.pad([0, 0, *at.before], [0, 0, *at.after])
    flat = full.reshape([*full.shape[:2], math.prod(padded)])
    index = node.graph.constant(places.reshape(-1))
    read = node.graph.op("Gather", flat, index, shape=[*flat.shape[:2], places.size], axis=2)
    return node.only_first(read.reshape([batch, rows, columns]))
