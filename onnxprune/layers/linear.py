"""Contractions with a weight as matrix products: rows of inputs times a matrix, whatever the operator.

A layer computes y = x W + b for every row x of its input: a position of a product, or a patch of a convolution. Rows
are [groups, n, D], the weight is [groups, D, O]; all but grouped convolutions and products with a batch of weights
have one group.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.typing import Array


@dataclass(frozen=True)
class LinearLayer(ABC):
    """A node that multiplies its input with a weight.

    Attributes:
        node: the node.
        weight: slot of the weight.
        scale: what the product is multiplied with (alpha of a Gemm).
        bias: slot of the bias; None where the operator has none.
        source: the tensor that the weight is multiplied with, where that is not the other one of the first two inputs.
        step: scale and zero point of that tensor, where it holds whole numbers.
    """

    node: onnx.NodeProto
    weight: int = 1
    scale: float = 1.0
    bias: int | None = None
    source: str = ""
    step: tuple[float, float] | None = None

    @property
    def input(self) -> str:
        """The tensor that the weight is multiplied with."""
        return self.source or self.node.input[1 - self.weight]

    def real(self, x: Array) -> Array:
        """The numbers that values of the input stand for."""
        if self.step is None:
            return x
        return ((x.astype(np.float32) - np.float32(self.step[1])) * np.float32(self.step[0])).astype(np.float32)

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
    def as_matrix(self, weight: Array) -> Array:
        """A weight, or anything of its shape, as [groups, D, O]; not scaled."""

    @abstractmethod
    def tensor(self, matrix: Array, shape: Sequence[int]) -> Array:
        """The inverse of `matrix`."""

    @abstractmethod
    def laid_out(self, values: Array, shape: Sequence[int]) -> Array:
        """A value per output [groups, O], with the axes of the output; size 1 along those that the weight lacks.

        Args:
            values: a value per group and output of it.
            shape: that of the weight.
        """

    @abstractmethod
    def laid_in(self, values: Array, shape: Sequence[int]) -> Array:
        """A value per input channel [groups, channels], with the axes of the input; size 1 along the others.

        Args:
            values: a value per group and channel of it.
            shape: that of the weight.
        """

    @property
    @abstractmethod
    def inner_axis(self) -> int:
        """The axis of the weight that lies along the inputs of one group."""

    @property
    @abstractmethod
    def sees_whole_windows(self) -> bool:
        """Whether every output is made of a whole row of inputs, none of which is padding."""

    @property
    @abstractmethod
    def drawn(self) -> Sequence[int]:
        """The axes of the input over which rows are drawn."""

    @abstractmethod
    def sample_positions(self, x: Array, most: int, rng: np.random.Generator) -> Array:
        """At most so many positions of the input, to draw rows at."""

    @property
    @abstractmethod
    def reading(self) -> Hashable:
        """How rows are taken from the input: of one tensor, layers of equal readings take equal rows."""

    @abstractmethod
    def input_rows(self, x: Array, places: Array) -> Array:
        """What the weight is multiplied with at `places`, in single precision: float32[groups, n, D]."""

    @property
    def in_order(self) -> bool:
        """Whether the output lies in memory as its rows do."""
        return False

    @abstractmethod
    def output_rows(self, y: Array, places: Array, outputs: int) -> Array:
        """What the layer makes of the rows at `places`, taken from anything like its output: [groups, n, O]."""
