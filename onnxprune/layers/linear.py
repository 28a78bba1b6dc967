"""Contractions with a weight, seen as matrix products: rows of inputs times a matrix, whatever the operator.

A layer computes y = x W + b for every row x of its input: a position of a product, or a patch of a convolution. Rows
are [groups, n, D], the weight is [groups, D, O]; all but grouped convolutions and products with a batch of weights
have one group.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from onnxprune.tracing import Site
from onnxprune.tracing.rules.contraction import letters
from onnxprune.tracing.rules.site import Letter
from onnxprune.typing import Array

# The operators whose windows `_convolution` lays out: that there is code for them is no trait.
CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Layer(ABC):
    """A node that multiplies its input with a weight.

    Attributes:
        node: the node.
        weight: slot of the weight.
        scale: what the product is multiplied with (alpha of a Gemm).
        bias: slot of the bias; None where the operator has none.
    """

    node: onnx.NodeProto
    weight: int = 1
    scale: float = 1.0
    bias: int | None = None

    @property
    def input(self) -> str:
        """The tensor that the weight is multiplied with."""
        return self.node.input[1 - self.weight]

    @property
    def positions(self) -> int:
        """Entries of a row that belong to one channel: the size of the kernel."""
        return 1

    def channels(self, rows: Array) -> Array:
        """Rows [groups, n, D] as [groups, n x positions, channels]."""
        groups, n, size = rows.shape
        split = rows.reshape(groups, n, size // self.positions, self.positions)
        return np.ascontiguousarray(split.transpose(0, 1, 3, 2)).reshape(groups, n * self.positions, -1)

    @abstractmethod
    def matrix(self, weight: Array) -> Array:
        """A weight, or anything of its shape, as [groups, D, O]; not scaled."""

    @abstractmethod
    def tensor(self, matrix: Array, shape: Sequence[int]) -> Array:
        """The inverse of `matrix`."""

    @property
    @abstractmethod
    def drawn(self) -> Sequence[int]:
        """The axes of the input over which rows are drawn."""

    @abstractmethod
    def places(self, x: Array, most: int, rng: np.random.Generator) -> Array:
        """At most so many positions of the input, to draw rows at."""

    @abstractmethod
    def rows(self, x: Array, places: Array) -> Array:
        """What the weight is multiplied with at `places`, in single precision: float32[groups, n, D]."""

    @property
    def in_order(self) -> bool:
        """Whether the output lies in memory as its rows do."""
        return False

    @abstractmethod
    def made(self, y: Array, places: Array, outputs: int) -> Array:
        """What the layer makes of the rows at `places`, taken from anything like its output: [groups, n, O]."""


@dataclass(frozen=True)
class Product(Layer):
    """Gemm, MatMul or Einsum of an activation and a weight.

    Attributes:
        entering: letters of the activation.
        factor: letters of the weight.
        leaving: letters of the output.
    """

    entering: tuple[Letter, ...] = ()
    factor: tuple[Letter, ...] = ()
    leaving: tuple[Letter, ...] = ()

    def _split(self) -> tuple[list[Letter], list[Letter], list[Letter], list[Letter]]:
        """Letters of groups, of rows, contracted, and made by the weight."""
        shared = [x for x in self.factor if x in self.entering]
        batch = [x for x in shared if x in self.leaving]
        inner = [x for x in shared if x not in self.leaving]
        return batch, [x for x in self.entering if x not in shared], inner, [x for x in self.factor if x not in shared]

    def matrix(self, weight: Array) -> Array:
        """A weight as [groups, D, O]."""
        batch, _, inner, outer = self._split()
        turned = weight.transpose([self.factor.index(x) for x in (*batch, *inner, *outer)])
        sizes = turned.shape
        ends = len(batch), len(batch) + len(inner)
        return turned.reshape(math.prod(sizes[: ends[0]]), math.prod(sizes[ends[0] : ends[1]]), -1)

    def tensor(self, matrix: Array, shape: Sequence[int]) -> Array:
        """The inverse of `matrix`."""
        batch, _, inner, outer = self._split()
        places = [self.factor.index(x) for x in (*batch, *inner, *outer)]
        return matrix.reshape([shape[p] for p in places]).transpose(np.argsort(places))

    @property
    def drawn(self) -> Sequence[int]:
        """The axes that the weight does not have."""
        return [self.entering.index(a) for a in self._split()[1]]

    def places(self, x: Array, most: int, rng: np.random.Generator) -> Array:
        """Positions over all axes that the weight does not have."""
        _, free, _, _ = self._split()
        return rng.permutation(math.prod(x.shape[self.entering.index(a)] for a in free))[:most]

    def rows(self, x: Array, places: Array) -> Array:
        """Rows at `places`."""
        batch, free, inner, _ = self._split()
        turned = x.transpose([self.entering.index(a) for a in (*batch, *free, *inner)])
        sizes = turned.shape
        ends = len(batch), len(batch) + len(free)
        flat = turned.reshape(math.prod(sizes[: ends[0]]), math.prod(sizes[ends[0] : ends[1]]), -1)
        return np.ascontiguousarray(flat[:, places], np.float32)

    @property
    def in_order(self) -> bool:
        """Whether the output lies in memory as its rows do."""
        batch, free, _, outer = self._split()
        return not batch and self.leaving == (*free, *outer)

    def made(self, y: Array, places: Array, outputs: int) -> Array:
        """The outputs at `places`."""
        batch, free, _, outer = self._split()
        if not self.in_order:
            y = y.transpose([self.leaving.index(a) for a in (*batch, *free, *outer)])
        groups = math.prod(y.shape[: len(batch)]) if batch else 1
        return y.reshape(groups, -1, outputs)[:, places]


@dataclass(frozen=True)
class Convolution(Layer):
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

    def matrix(self, weight: Array) -> Array:
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
        return np.pad(x[index], [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in sides)])

    @property
    def drawn(self) -> Sequence[int]:
        """Samples and the axes of the kernel."""
        return [0, *range(2, 2 + len(self.kernel))]

    def places(self, x: Array, most: int, rng: np.random.Generator) -> Array:
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

    def rows(self, x: Array, places: Array) -> Array:
        """Patches at `places`."""
        steps = np.meshgrid(
            *(np.arange(k) * d for k, d in zip(self.kernel, self.dilations, strict=True)), indexing="ij"
        )
        sample, *corner = places.T
        index = tuple(c[:, None] + step.reshape(1, -1) for c, step in zip(corner, steps, strict=True))
        taken = self._prepared(x)[(sample[:, None], slice(None), *index)]  # [n, positions of the kernel, channels]
        n, size, channels = taken.shape
        split = taken.reshape(n, size, self.group, channels // self.group)
        return np.ascontiguousarray(split.transpose(2, 0, 3, 1), np.float32).reshape(self.group, n, -1)

    def made(self, y: Array, places: Array, outputs: int) -> Array:
        """The outputs at `places`."""
        sample, *corner = places.T
        steps = [1] * len(corner) if self.transposed else self.strides
        taken = y[(sample, slice(None), *(c // s for c, s in zip(corner, steps, strict=True)))]
        return taken.reshape(len(places), self.group, outputs).transpose(1, 0, 2)


def layer_of(site: Site, node: onnx.NodeProto | None = None) -> Layer | None:
    """The layer that a traced node is, or that `node`, its pruned form, is.

    None where there is no float weight, or what it is multiplied with has no known shape.
    """
    of = site.node.op_type
    slots = [s for s in (1, 0) if s < len(site.node.input) and site.is_weight(s) and _is_stored_float(site, s)]
    if of not in (*CONVOLUTIONS, "Gemm", "MatMul", "Einsum") or len(slots) != 1 or site.constant[1 - slots[0]]:
        return None
    if site.facts.shapes.get(site.node.input[1 - slots[0]]) is None:
        return None
    if of in CONVOLUTIONS:
        return _convolution(site, node or site.node) if slots[0] == 1 else None
    if of == "Einsum" and len(site.node.input) != 2:
        return None
    return _product(site, node or site.node, slots[0])


def _is_stored_float(site: Site, slot: int) -> bool:
    name = site.node.input[slot]
    return site.facts.dtypes.get(name) in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def _product(site: Site, node: onnx.NodeProto, weight: int) -> Product | None:
    terms, leaving = letters(site)
    entering, factor = terms[1 - weight], terms[weight]
    shared = [x for x in factor if x in entering]
    sizes = dict(zip(factor, site.shape(weight), strict=True)), dict(zip(entering, site.shape(1 - weight), strict=True))
    plain = (
        all(len(set(term)) == len(term) for term in terms)
        and all(x in leaving for x in (*entering, *factor) if x not in shared)
        and all(sizes[0][x] == sizes[1][x] for x in shared)
        and any(x not in leaving for x in shared)
    )
    if not plain:
        return None
    is_gemm = site.node.op_type == "Gemm"
    bias = 2 if is_gemm and site.attrs.get("beta", 1.0) == 1.0 and weight == 1 else None
    scale = float(site.attrs.get("alpha", 1.0)) if is_gemm else 1.0
    return Product(node, weight, scale, bias, tuple(entering), tuple(factor), tuple(leaving))


def _convolution(site: Site, node: onnx.NodeProto) -> Convolution | None:
    transposed, kernel = site.node.op_type == "ConvTranspose", tuple(site.shape(1)[2:])
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
        pads = _pads(mode, given, site.shape(0)[2:], kernel, strides, dilations)
    return Convolution(node, 1, 1.0, 2, int(attrs.get("group", 1)), kernel, strides, dilations, tuple(pads), transposed)


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
