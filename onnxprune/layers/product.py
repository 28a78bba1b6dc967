"""Gemm, MatMul and Einsum as matrix products."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.layers.linear import LinearLayer
from onnxprune.layers.operands import operands_of, weight_axes
from onnxprune.model.traits import traits_of
from onnxprune.tracing import Letter, NodeView
from onnxprune.tracing.rules.contraction import letters, product_letters
from onnxprune.typing import Array


@dataclass(frozen=True)
class Product(LinearLayer):
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

    def as_matrix(self, weight: Array) -> Array:
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

    def laid_out(self, values: Array, shape: Sequence[int]) -> Array:
        """A value per output, with the axes of the output."""
        batch, _, _, outer = self._split()
        return self._along(values, shape, [*batch, *outer], self.leaving)

    def laid_in(self, values: Array, shape: Sequence[int]) -> Array:
        """A value per input channel, with the axes of the input."""
        batch, _, inner, _ = self._split()
        return self._along(values, shape, [*batch, *inner], self.entering)

    def _along(self, values: Array, shape: Sequence[int], own: Sequence[Letter], term: Sequence[Letter]) -> Array:
        """Values by the letters `own`, with the axes of `term`."""
        turned = values.reshape([shape[self.factor.index(x)] for x in own])
        order = [x for x in term if x in own]
        sizes = [shape[self.factor.index(x)] if x in own else 1 for x in term]
        return turned.transpose([own.index(x) for x in order]).reshape(sizes)

    @property
    def is_last(self) -> bool:
        """Whether the last axis of the input becomes the last axis of the output, and all others stay in place."""
        batch, free, inner, outer = self._split()
        single = len(inner) == len(outer) == 1 and not batch
        return single and self.entering == (*free, *inner) and self.leaving == (*free, *outer)

    @property
    def is_single(self) -> bool:
        """Whether the weight is one matrix, and lies along one axis of the output."""
        batch, _, _, outer = self._split()
        return not batch and len(outer) == 1

    @property
    def outer_axis(self) -> int:
        """The axis of the weight that lies along the outputs."""
        return self.factor.index(self._split()[3][0])

    @property
    def inner_axis(self) -> int:
        """The axis of the weight that lies along the inputs."""
        return self.factor.index(self._split()[2][0])

    @property
    def sees_whole_windows(self) -> bool:
        """Always: there are no windows."""
        return True

    @property
    def drawn(self) -> Sequence[int]:
        """The axes that the weight does not have."""
        return [self.entering.index(a) for a in self._split()[1]]

    def sample_positions(self, x: Array, most: int, rng: np.random.Generator) -> Array:
        """Positions over all axes that the weight does not have."""
        _, free, _, _ = self._split()
        return rng.permutation(math.prod(x.shape[self.entering.index(a)] for a in free))[:most]

    @property
    def reading(self) -> Hashable:
        """The axes of the input, by their part in the product."""
        batch, free, inner, _ = self._split()
        return tuple(tuple(self.entering.index(a) for a in part) for part in (batch, free, inner)), self.step

    def input_rows(self, x: Array, places: Array) -> Array:
        """Rows at `places`."""
        batch, free, inner, _ = self._split()
        turned = self.real(x).transpose([self.entering.index(a) for a in (*batch, *free, *inner)])
        sizes = turned.shape
        ends = len(batch), len(batch) + len(free)
        flat = turned.reshape(math.prod(sizes[: ends[0]]), math.prod(sizes[ends[0] : ends[1]]), -1)
        return np.ascontiguousarray(flat[:, places], np.float32)

    @property
    def in_order(self) -> bool:
        """Whether the output lies in memory as its rows do."""
        batch, free, _, outer = self._split()
        return not batch and self.leaving == (*free, *outer)

    def output_rows(self, y: Array, places: Array, outputs: int) -> Array:
        """The outputs at `places`."""
        batch, free, _, outer = self._split()
        if not self.in_order:
            y = y.transpose([self.leaving.index(a) for a in (*batch, *free, *outer)])
        groups = math.prod(y.shape[: len(batch)]) if batch else 1
        return y.reshape(groups, -1, outputs)[:, places]


def product_of(view: NodeView, node: onnx.NodeProto, weight: int, x: int | None = None) -> Product | None:
    """View a traced product, in the form `node`, as a layer; None where an axis is repeated, summed or stretched."""
    x = 1 - weight if x is None else x
    (entering, factor), leaving = _terms(view, x, weight)
    shared = [a for a in factor if a in entering]
    sizes = (
        dict(zip(factor, weight_axes(view, weight)[0], strict=True)),
        dict(zip(entering, view.shape(x), strict=True)),
    )
    plain = (
        all(len(set(term)) == len(term) for term in (entering, factor))
        and all(a in leaving for a in (*entering, *factor) if a not in shared)
        and all(sizes[0][a] == sizes[1][a] for a in shared)
        and any(a not in leaving for a in shared)
    )
    if not plain:
        return None
    scale, bias = float(view.attrs.get("alpha", 1.0)), traits_of(view.node).bias
    if view.attrs.get("beta", 1.0) != 1.0 or weight < x:
        bias = None
    return Product(node, weight, scale, bias, entering=tuple(entering), factor=tuple(factor), leaving=tuple(leaving))


def _terms(view: NodeView, x: int, weight: int) -> tuple[tuple[list[Letter], list[Letter]], list[Letter]]:
    """A letter per axis of the activation and of the weight, and of the product."""
    operands = operands_of(view.node)
    if operands is None or "Gemm" in view.node.op_type:
        terms, leaving = letters(view)
        order = (0, 1) if x < weight else (1, 0)
        return (terms[order[0]], terms[order[1]]), leaving
    if operands.is_packed:
        free: list[Letter] = list(range(len(view.shape(x)) - 1))
        return ([*free, "k"], ["k", "n"]), [*free, "n"]
    entering, factor, leaving, _ = product_letters(view, x, weight)
    return (entering, factor), leaving
