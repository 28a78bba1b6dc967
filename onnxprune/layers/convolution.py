"""Conv and ConvTranspose as matrix products: rows are the patches under the kernel."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from onnxprune.layers.linear import LinearLayer
from onnxprune.model.traits import traits_of
from onnxprune.tracing import NodeView
from onnxprune.typing import Array


@dataclass(frozen=True)
class Convolution(LinearLayer):
    """Conv, or ConvTranspose as the convolution of its input spread out by its strides.

    Attributes:
        group: number of groups.
        kernel: sizes of the kernel.
        strides: strides per spatial axis.
        dilations: dilations per spatial axis.
        pads: begins, then ends, of a convolution; of a ConvTranspose those that its spread input is padded by.
        transposed: whether it is a ConvTranspose.
    """

    group: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    transposed: bool = False

    @property
    def positions(self) -> int:
        """The size of the kernel."""
        return math.prod(self.kernel)

    def as_matrix(self, weight: Array) -> Array:
        """A weight as [groups, D, O]."""
        if not self.transposed:
            return weight.reshape(self.group, len(weight) // self.group, -1).transpose(0, 2, 1)
        flipped = np.flip(weight, tuple(range(2, weight.ndim)))
        split = flipped.reshape(self.group, len(weight) // self.group, weight.shape[1], -1)
        return split.transpose(0, 1, 3, 2).reshape(self.group, -1, weight.shape[1])

    def tensor(self, matrix: Array, shape: Sequence[int]) -> Array:
        """The inverse of `matrix`."""
        if not self.transposed:
            return matrix.transpose(0, 2, 1).reshape(shape)
        split = matrix.reshape(self.group, shape[0] // self.group, -1, shape[1]).transpose(0, 1, 3, 2)
        return np.flip(split.reshape(shape), tuple(range(2, len(shape))))

    def laid_out(self, values: Array, shape: Sequence[int]) -> Array:
        """A value per output, with the axes of the output."""
        return values.reshape(1, -1, *[1] * len(self.kernel))

    def laid_in(self, values: Array, shape: Sequence[int]) -> Array:
        """A value per input channel, with the axes of the input."""
        return values.reshape(1, -1, *[1] * len(self.kernel))

    @property
    def inner_axis(self) -> int:
        """The axis of the weight that lies along the inputs of one group."""
        return 0 if self.transposed else 1

    @property
    def sees_whole_windows(self) -> bool:
        """Whether there is no padding, and nothing is spread out."""
        return not any(pad > 0 for pad in self.pads) and not (self.transposed and any(s > 1 for s in self.strides))

    def _prepared(self, x: Array) -> Array:
        """The input, spread out and padded: the kernel moves over it."""
        count = len(self.kernel)
        if self.transposed:
            sizes = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], self.strides, strict=True)]
            spread = np.zeros((*x.shape[:2], *sizes), x.dtype)
            spread[(slice(None), slice(None), *(slice(None, None, s) for s in self.strides))] = x
            x = spread
        sides = [(self.pads[i], self.pads[i + count]) for i in range(count)]
        cropped = [slice(max(0, -a), n + min(0, b)) for (a, b), n in zip(sides, x.shape[2:], strict=True)]
        index = (slice(None), slice(None), *cropped)
        added = [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in sides)]
        return np.pad(x[index], added) if np.any(added) else x[index]

    @property
    def drawn(self) -> Sequence[int]:
        """Samples and the axes of the kernel."""
        return [0, *range(2, 2 + len(self.kernel))]

    def sample_positions(self, x: Array, most: int, rng: np.random.Generator) -> Array:
        """(sample, first position on each spatial axis of the prepared input)."""
        count = len(self.kernel)
        sizes, steps = [], [1 if self.transposed else s for s in self.strides]
        for i, size in enumerate(x.shape[2:]):
            spread = (size - 1) * self.strides[i] + 1 if self.transposed else size
            free = spread + self.pads[i] + self.pads[i + count] - self.dilations[i] * (self.kernel[i] - 1) - 1
            sizes.append(free // steps[i] + 1)
        each, area = -(-most // len(x)), math.prod(sizes)
        drawn = np.arange(area) if each >= area else rng.integers(0, area, (len(x), each))
        corners = np.unravel_index(np.broadcast_to(drawn, (len(x), min(each, area))), sizes)
        columns = [np.repeat(np.arange(len(x)), min(each, area))]
        columns += [corner.reshape(-1) * step for corner, step in zip(corners, steps, strict=True)]
        return rng.permutation(np.stack(columns, axis=1))[:most]

    @property
    def reading(self) -> Hashable:
        """The window."""
        return self.group, self.kernel, self.strides, self.dilations, self.pads, self.transposed, self.step

    def input_rows(self, x: Array, places: Array) -> Array:
        """Patches at `places`."""
        steps = np.meshgrid(
            *(np.arange(k) * d for k, d in zip(self.kernel, self.dilations, strict=True)), indexing="ij"
        )
        sample, *corner = places.T
        index = tuple(c[:, None] + step.reshape(1, -1) for c, step in zip(corner, steps, strict=True))
        taken = self._prepared(self.real(x))[
            (sample[:, None], slice(None), *index)
        ]  # [n, positions of the kernel, channels]
        n, size, channels = taken.shape
        split = taken.reshape(n, size, self.group, channels // self.group)
        return np.ascontiguousarray(split.transpose(2, 0, 3, 1), np.float32).reshape(self.group, n, -1)

    def output_rows(self, y: Array, places: Array, outputs: int) -> Array:
        """The outputs at `places`."""
        sample, *corner = places.T
        steps = [1] * len(corner) if self.transposed else self.strides
        taken = y[(sample, slice(None), *(c // s for c, s in zip(corner, steps, strict=True)))]
        return taken.reshape(len(places), self.group, outputs).transpose(1, 0, 2)


def convolution_of(view: NodeView, node: onnx.NodeProto, x: int = 0, weight: int = 1) -> Convolution | None:
    """View a traced convolution, in the form `node`, as a layer; None where its padding is not stored."""
    transposed, kernel = view.node.op_type == "ConvTranspose", tuple(view.shape(weight)[2:])
    count = len(kernel)
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    strides = tuple(attrs.get("strides", [1] * count))
    dilations = tuple(attrs.get("dilations", [1] * count))
    mode = attrs.get("auto_pad", b"NOTSET")
    given = list(attrs.get("pads", [0] * 2 * count))
    if transposed:
        if mode != b"NOTSET" or "output_shape" in attrs:
            return None
        extra = attrs.get("output_padding", [0] * count)
        reach = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        pads = [r - p for r, p in zip(reach * 2, given, strict=True)]
        pads = [p + (extra[i - count] if i >= count else 0) for i, p in enumerate(pads)]
    else:
        pads = _pads(mode, given, sizes=view.shape(x)[2:], kernel=kernel, strides=strides, dilations=dilations)
    return Convolution(
        node,
        weight,
        bias=traits_of(view.node).bias,
        group=int(attrs.get("group", 1)),
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        pads=tuple(pads),
        transposed=transposed,
    )


def _pads(
    mode: bytes,
    given: list[int],
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    if mode in (b"NOTSET", b""):
        return given
    if mode == b"VALID":
        return [0] * len(given)
    total = [
        max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return small + large if mode == b"SAME_UPPER" else large + small


# The operators whose windows `convolution_of` lays out: that there is code for them is no trait.
CONVOLUTIONS = ("Conv", "ConvTranspose")
