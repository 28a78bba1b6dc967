"""One node of the graph as a rule sees it: shapes, labels, and room for what the rule finds out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import onnx

from onnxprune.model.shapes.infer import StaticInfo
from onnxprune.model.shapes.polynomials import Dims, is_known
from onnxprune.tracing.labels import Axes, Constraints, Reason
from onnxprune.tracing.moved_weights import MovedWeight
from onnxprune.tracing.rules.attributes import Attributes, Unsupported
from onnxprune.typing import Array, Shape

Letter = Hashable

COMPUTED = "index computed at run time"
LONG = "its channels lie at more positions than any weight has"
OVERRIDABLE = "is a graph input with a default, which a caller may override"


class LabelState(Protocol):
    """The labels of all tensors of the graph that is traced."""

    def labels(self, node: onnx.NodeProto, slot: int) -> Axes:
        """The labels of an input of `node`."""

    def is_weight(self, tensor: str) -> bool:
        """Whether `tensor` is an initializer or the output of a `Constant`."""

    def is_stored(self, tensor: str) -> bool:
        """Whether `tensor` is an initializer or the output of a `Constant`, and not computed."""

    def is_overridable(self, tensor: str) -> bool:
        """Whether `tensor` is a stored default of a graph input, which a caller may override."""

    def stored_value(self, name: str) -> Array | None:
        """The value of a weight as it is stored."""

    def filler(self, tensor: str) -> float | None:
        """The number that all elements of a constant are; None where they differ, or no constant is known."""

    def assign(self, node: onnx.NodeProto, slot: int, axis: int, labels: Array) -> None:
        """Replace the labels of an axis of a weight."""

    def is_zero(self, tensor: str) -> bool:
        """Whether all elements of `tensor` are zero, whatever the inputs are."""

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that use `tensor`; those with subgraphs, which may use anything, are among them."""

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes `tensor`."""

    def moved(self, tensor: str) -> MovedWeight | None:
        """The weight whose elements a tensor holds behind nodes that move them; None where it holds others."""

    def fixed_rows(self, table: str) -> str:
        """Why the rows of a table that computed ids index must stay; empty if they may go."""

    def branch_taken(self, node: onnx.NodeProto) -> str:
        """The branch that an If takes whatever it is fed; empty if that is not known."""

    def is_output(self, tensor: str) -> bool:
        """Whether `tensor` is an output of the graph."""


@dataclass(frozen=True)
class MaskedAxis:
    """An input axis whose removed positions must be silent in the masked reference.

    Attributes:
        slot: index of the input.
        axis: its axis.
        averaged: the node is computed on the remaining positions only; otherwise zeros are put in.
        zero: the input that holds what stands for zero (a zero point); 0 if there is none.
        factors: the inputs that are multiplied before they are summed over; the input alone where None. Empty where
            removed positions reach other removed positions only.
    """

    slot: int
    axis: int
    averaged: bool
    zero: int | None = None
    factors: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Average:
    """A sum that is divided by how many positions it is over.

    Attributes:
        slot: the input that is summed.
        axes: its axes whose positions are counted.
        less: how many fewer positions are counted than there are: 1 for a sample variance.
        power: for s times as many positions of equal value, the sum is s ** power times as large.
        weight: the input that the positions are multiplied by, a constant of equal entries; None if there is none.
    """

    slot: int = 0
    axes: tuple[int, ...]
    weight: int | None = None
    less: int = 0
    power: float = 1.0


# The stored value of an input that is a weight itself, else None.
Stored = Callable[[int], Array | None]


@dataclass(frozen=True)
class Encoding:
    """What the stored numbers of an input stand for.

    Attributes:
        decode: the real values, with the axes of the stored ones (an axis that is not cut may have another size).
        zero: what is stored for zero, broadcastable to the stored values.
        slots: inputs that hold scales and zero points, which are no parameters themselves.
        bits: of a number, where several share a byte along the last axis; 0 where none do.
    """

    decode: Callable[[Stored], Array]
    zero: Callable[[Stored], Array]
    slots: tuple[int, ...]
    bits: int = 0


@dataclass
class NodeView:
    """One node of the traced graph.

    Attributes:
        node: the node.
        version: opset version of the node's domain.
        static: static shapes and values.
        ledger: where ties go.
        state: the labels of every tensor; those of weights are made when they are first asked for.
        constant: per input, whether it is computed from weights alone.
        masked_axes: filled by rules, for the masked reference.
        encodings: filled by rules, by input: what the numbers of a quantised weight mean.
        average: filled by rules: what a sum is a mean over; None where it is no mean.
        letters: filled by `through`: a letter per axis of every input (None where they play no part) and output.
    """

    node: onnx.NodeProto
    name: str
    version: int
    static: StaticInfo
    ledger: Constraints
    state: LabelState
    constant: list[bool]
    masked_axes: list[MaskedAxis] = field(default_factory=list)
    encodings: dict[int, Encoding] = field(default_factory=dict)
    average: Average | None = None
    letters: tuple[Sequence[list[Letter] | None], Sequence[list[Letter]]] = ((), ())

    @cached_property
    def attrs(self) -> Attributes:
        """Attribute values by name; strings decoded."""
        return Attributes.of(self.node)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The names of the node's inputs; empty for one that is omitted."""
        return tuple(self.node.input)

    def has(self, slot: int) -> bool:
        """Whether the optional input is given."""
        return slot < len(self.inputs) and bool(self.inputs[slot])

    def shape(self, slot: int) -> Shape:
        """Sizes of an input that must be there."""
        if not self.has(slot):
            raise Unsupported(f"input {slot} is missing")
        return self._shape_of(self.inputs[slot])

    def out_shape(self, slot: int = 0) -> Shape:
        """Sizes of an output that must be asked for."""
        made = self.node.output
        if slot >= len(made) or not made[slot]:
            raise Unsupported(f"output {slot} is not asked for")
        return self._shape_of(made[slot])

    def _shape_of(self, tensor: str) -> Shape:
        shape = self.static.shapes.get(tensor)
        if shape is None:
            raise Unsupported(f"the shape of {tensor!r} is unknown", tensor)
        return shape

    def dims(self, tensor: str) -> Dims:
        """Sizes of a tensor, with polynomials where they depend on what the run alone knows."""
        return self.static.dims.get(tensor) or self._shape_of(tensor)

    def value(self, slot: int) -> Array | None:
        """The static value of an input; None where it is omitted, dynamic or large.

        Raises:
            Unsupported: it is a default that a caller may override.
        """
        if not self.has(slot):
            return None
        if self.state.is_overridable(self.inputs[slot]):
            raise Unsupported(f"{self.inputs[slot]!r} {OVERRIDABLE}")
        return self.static.constant_values.get(self.inputs[slot])

    def labels(self, slot: int) -> Axes:
        """The labels of an input that must be there."""
        if not self.has(slot):
            raise Unsupported(f"input {slot} is missing")
        return self.state.labels(self.node, slot)

    def looks_at(self, slot: int) -> None:
        """Only the type or the sizes of an input matter: its positions may go."""
        self.labels(slot)

    def is_weight(self, slot: int) -> bool:
        """Whether the input is a weight itself, not something computed from one."""
        return self.has(slot) and self.state.is_weight(self.inputs[slot])

    def assign(self, slot: int, axis: int, labels: Array) -> None:
        """Give `axis` of a weight labels that differ from row to row, instead of the line that it had."""
        self.state.assign(self.node, slot, axis, labels)

    def reason(self, text: str, *, inherent: bool = False) -> Reason:
        """A reason that names this node."""
        return Reason(text, self.name, self.node.op_type, inherent)

    def barrier(self, text: str) -> Array:
        """A barrier line that names this node."""
        return self.ledger.barrier(self.reason(text))

    def is_too_long(self, positions: int, *labels: Array) -> bool:
        """Whether labels would have to be made for more positions than any weight has; the labels stay whole then."""
        if positions <= self.ledger.longest:
            return False
        for one in labels:
            self.ledger.fix(one, self.reason(LONG))
        return True

    def listed(self, name: str, slot: int) -> list[int] | None:
        """A list that is an attribute in old opsets and an input in new ones; None if it is not given."""
        if self.has(slot):
            value = self.value(slot)
            if value is None:
                raise Unsupported(f"{name} is computed at run time")
            return [int(i) for i in np.atleast_1d(value)]
        return [int(i) for i in self.attrs[name]] if name in self.attrs else None

    def listed_in_part(self, name: str, slot: int) -> list[int | None] | None:
        """A list as `listed` gives it, with None for the entries that the run alone knows."""
        unknown = self.has(slot) and self.value(slot) is None
        entries = self.static.entries.get(self.inputs[slot]) if unknown else None
        if entries is None:
            known = self.listed(name, slot)
            return None if known is None else list(known)
        return [int(entry) if is_known(entry) else None for entry in entries.flat]

    def uniform(self, labels: Array, axis: int) -> Array:
        """`labels` of `axis` as a line: rows that differ are tied to each other."""
        if labels.ndim == 1:
            return labels
        first = labels[tuple(slice(None) if a == axis else slice(0, 1) for a in range(labels.ndim))]
        self.ledger.tie(labels, first)
        return first.reshape(-1)
