"""One node as a rule sees it, and the one algorithm behind all rules that can be written as letters.

A rule names every axis of every input and output by a *letter*, as `einsum` does. Axes with the same letter
are tied; a letter that is only in inputs is contracted (a removed position contributes nothing); letters in
`mixes` change the values at the other positions; letters in `fixes` must stay whole. An axis that holds the
positions of a letter several times over (the gates of an LSTM) is named by `Copies`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import onnx

from onnxprune.model.shapes.infer import Facts, Shape
from onnxprune.model.shapes.polynomials import Dims
from onnxprune.tracing.labels import Axes, Ledger, Reason, as_field, as_line, is_barrier
from onnxprune.tracing.rules.attributes import Attributes, Unsupported
from onnxprune.typing import Array

Letter = Hashable
Letters = Sequence[Letter]


COMPUTED = "index computed at run time"
LONG = "its channels lie at more positions than any weight has"
OVERRIDABLE = "is a graph input with a default, which a caller may override"


@dataclass(frozen=True)
class Copies:
    """An axis of an input that lists all positions of a letter `count` times, which go together."""

    letter: Letter
    count: int


class LabelState(Protocol):
    """The labels of all tensors of the graph that is traced."""

    def labels(self, node: onnx.NodeProto, slot: int) -> Axes:
        """The labels of an input of `node`."""

    def is_weight(self, tensor: str) -> bool:
        """Whether `tensor` is an initializer or the output of a `Constant`."""

    def is_overridable(self, tensor: str) -> bool:
        """Whether `tensor` is a stored default of a graph input, which a caller may override."""

    def stored_value(self, name: str) -> Array | None:
        """The value of a weight as it is stored."""

    def assign(self, node: onnx.NodeProto, slot: int, axis: int, labels: Array) -> None:
        """Replace the labels of an axis of a weight."""

    def is_zero(self, tensor: str) -> bool:
        """Whether all elements of `tensor` are zero, whatever the inputs are."""

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that use `tensor`; those with subgraphs, which may use anything, are among them."""

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes `tensor`."""

    def fixed_rows(self, table: str) -> str:
        """Why the rows of a table that computed ids index must stay; empty if they may go."""

    def branch_taken(self, node: onnx.NodeProto) -> str:
        """The branch that an If takes whatever it is fed; empty if that is not known."""

    def is_output(self, tensor: str) -> bool:
        """Whether `tensor` is an output of the graph."""


@dataclass(frozen=True)
class Reading:
    """An input axis whose removed positions must be silent in the masked reference.

    Attributes:
        slot: index of the input.
        axis: its axis.
        mixed: the node is computed on the remaining positions only; otherwise zeros are put in.
        zero: the input that holds what stands for zero (a zero point); 0 if there is none.
        factors: the inputs that are multiplied before they are summed over; the input alone where None. Empty where
            removed positions reach other removed positions only.
    """

    slot: int
    axis: int
    mixed: bool
    zero: int | None = None
    factors: tuple[int, ...] | None = None


# The stored value of an input that is a weight itself, else None.
Stored = Callable[[int], Array | None]


@dataclass(frozen=True)
class Encoding:
    """What the stored numbers of an input stand for.

    Attributes:
        decode: the real values, with the axes of the stored ones (an axis that is not cut may have another size).
        zero: what is stored for zero, broadcastable to the stored values.
        slots: inputs that hold scales and zero points, which are no parameters themselves.
    """

    decode: Callable[[Stored], Array]
    zero: Callable[[Stored], Array]
    slots: tuple[int, ...]


@dataclass
class Site:
    """One node of the traced graph.

    Attributes:
        node: the node.
        version: opset version of the node's domain.
        facts: static shapes and values.
        ledger: where ties go.
        state: the labels of every tensor; those of weights are made when they are first asked for.
        constant: per input, whether it is computed from weights alone.
        readings: filled by rules, for the masked reference.
        encodings: filled by rules, by input: what the numbers of a quantised weight mean.
        letters: filled by `through`: a letter per axis of every input (None where they play no part) and output.
    """

    node: onnx.NodeProto
    name: str
    version: int
    facts: Facts
    ledger: Ledger
    state: LabelState
    constant: list[bool]
    readings: list[Reading] = field(default_factory=list)
    encodings: dict[int, Encoding] = field(default_factory=dict)
    letters: tuple[Sequence[list[Letter] | None], Sequence[list[Letter]]] = ((), ())

    @cached_property
    def attrs(self) -> Attributes:
        """Attribute values by name; strings decoded."""
        return Attributes.of(self.node)

    def has(self, slot: int) -> bool:
        """Whether the optional input is given."""
        return slot < len(self.node.input) and bool(self.node.input[slot])

    def shape(self, slot: int) -> Shape:
        """Sizes of an input that must be there."""
        if not self.has(slot):
            raise Unsupported(f"input {slot} is missing")
        return self._shape_of(self.node.input[slot])

    def out_shape(self, slot: int = 0) -> Shape:
        """Sizes of an output that must be asked for."""
        if slot >= len(self.node.output) or not self.node.output[slot]:
            raise Unsupported(f"output {slot} is not asked for")
        return self._shape_of(self.node.output[slot])

    def _shape_of(self, tensor: str) -> Shape:
        shape = self.facts.shapes.get(tensor)
        if shape is None:
            raise Unsupported(f"the shape of {tensor!r} is unknown", tensor)
        return shape

    def dims(self, tensor: str) -> Dims:
        """Sizes of a tensor, with polynomials where they depend on what the run alone knows."""
        return self.facts.dims.get(tensor) or self._shape_of(tensor)

    def value(self, slot: int) -> Array | None:
        """The static value of an input; None where it is omitted, dynamic or large.

        Raises:
            Unsupported: it is a default that a caller may override.
        """
        if self.has(slot) and self.state.is_overridable(self.node.input[slot]):
            raise Unsupported(f"{self.node.input[slot]!r} {OVERRIDABLE}")
        return self.facts.values.get(self.node.input[slot]) if self.has(slot) else None

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
        return self.has(slot) and self.state.is_weight(self.node.input[slot])

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

    def uniform(self, labels: Array, axis: int) -> Array:
        """`labels` of `axis` as a line: rows that differ are tied to each other."""
        if labels.ndim == 1:
            return labels
        first = labels[tuple(slice(None) if a == axis else slice(0, 1) for a in range(labels.ndim))]
        self.ledger.tie(labels, first)
        return first.reshape(-1)


@dataclass(frozen=True)
class _Entry:
    """The labels of one axis of one input."""

    labels: Array
    letter: Letter
    letters: Letters

    def renamed(self, letter: Letter) -> _Entry:
        """The entry under another letter, which may be that of another of its axes."""
        names = {self.letter: letter, letter: ("across", letter)}
        return _Entry(self.labels, letter, [names.get(x, x) for x in self.letters])

    def over(self, order: Letters) -> Array:
        """The labels laid out over `order`, which holds all letters that they vary on."""
        rank = len(order)
        if self.labels.ndim == 1:
            return as_field(self.labels, order.index(self.letter), rank)
        places = [order.index(letter) for letter in self.letters]
        turned = np.transpose(self.labels, np.argsort(places))
        shape = [1] * rank
        for place, size in zip(sorted(places), turned.shape, strict=True):
            shape[place] = size
        return turned.reshape(shape)


def through(
    site: Site,
    inputs: Sequence[Letters | None],
    outputs: Sequence[Letters],
    *,
    mixes: Sequence[Letter] = (),
    fixes: Mapping[Letter, str] | None = None,
    inherent: Mapping[Letter, str] | None = None,
    same: Mapping[Letter, Letter] | None = None,
    zeros: Mapping[int, int] | None = None,
) -> list[Axes]:
    """Take the labels of a node's inputs to its outputs by letters.

    Args:
        site: the node.
        inputs: a letter per axis of each input, None for an input whose axes play no part.
        outputs: a letter per axis of each output; a letter that no input has is a new axis.
        mixes: letters whose removal changes the values at other positions.
        fixes: letter -> the reason why it must stay whole.
        inherent: the same, for what no model can shrink (the spatial axes of a kernel).
        same: letters that stand for the same positions (what a recurrence reads is what it made before).
        zeros: input -> the input that holds its zero point.

    Returns:
        The labels of every output.
    """
    entries = _entries(site, inputs)
    produced = {letter for letters in outputs for letter in letters}
    chosen: dict[Letter, _Entry] = {}
    for letter, found in entries.items():
        chosen[letter] = first = min(found, key=_weight)
        for other in found:
            _tie(site.ledger, first, other)
        if fixes and letter in fixes:
            chosen[letter] = _fixed(site, first, site.reason(fixes[letter]))
        elif inherent and letter in inherent:
            chosen[letter] = _fixed(site, first, site.reason(inherent[letter], inherent=True))
    for letter, twin in (same or {}).items():
        if letter in chosen and twin in chosen:
            _tie(site.ledger, chosen[letter].renamed(twin), chosen[twin])
    _read(site, inputs, produced, mixes, zeros or {})
    plain = [None if letters is None else list(map(_plain, letters)) for letters in inputs]
    site.letters = (plain, [list(map(_plain, letters)) for letters in outputs])
    results: list[Axes] = []
    for slot, letters in enumerate(outputs):
        if not site.node.output[slot]:  # an optional output that is not asked for
            results.append(())
            continue
        shape = site.out_shape(slot)
        made = [
            _output(site, chosen[letter], letter, letters) if letter in chosen else _new(site, size)
            for letter, size in zip(letters, shape, strict=True)
        ]
        results.append(tuple(made))
    return results


def _entries(site: Site, inputs: Sequence[Letters | None]) -> dict[Letter, list[_Entry]]:
    entries: dict[Letter, list[_Entry]] = {}
    for slot, letters in enumerate(inputs):
        if letters is None:
            continue
        sizes, axes = site.shape(slot), site.labels(slot)
        if len(letters) != len(sizes):
            raise Unsupported(f"input {slot} has {len(sizes)} axes, not {len(letters)}")
        plain = [_plain(letter) for letter in letters]
        for axis, (letter, size, labels) in enumerate(zip(letters, sizes, axes, strict=True)):
            if size == 1:
                continue
            labels = _once(site, labels, axis, letters)
            if isinstance(letter, Copies) and size == letter.count:
                site.ledger.fix(labels, site.reason("copies of a single position", inherent=True))
            else:
                entries.setdefault(plain[axis], []).append(_Entry(labels, plain[axis], plain))
    return entries


def _plain(letter: Letter) -> Letter:
    return letter.letter if isinstance(letter, Copies) else letter


def _once(site: Site, labels: Array, own: int, letters: Letters) -> Array:
    """The labels of an input's axis `own` with all copies of a position tied, and one of them left."""
    for axis, letter in enumerate(letters):
        if not isinstance(letter, Copies) or (labels.ndim == 1 and axis != own):
            continue
        place = axis if labels.ndim > 1 else 0
        size = labels.shape[place]
        if size % letter.count and size != 1:
            raise Unsupported(f"an axis of {size} positions does not hold {letter.count} copies")
        if size != 1:
            parted = labels.reshape(*labels.shape[:place], letter.count, -1, *labels.shape[place + 1 :])
            first = parted.take([0], place)
            site.ledger.tie(parted, first)
            labels = first.squeeze(place)
    return labels


def _fixed(site: Site, entry: _Entry, reason: Reason) -> _Entry:
    """A barrier in place of the labels, which stay."""
    if is_barrier(entry.labels):
        return entry
    site.ledger.fix(entry.labels, reason)
    return _Entry(site.ledger.barrier(reason), entry.letter, (entry.letter,))


def _weight(entry: _Entry) -> tuple[bool, int, int]:
    """Barriers first, then lines, then the smallest field."""
    return (not is_barrier(entry.labels), entry.labels.ndim > 1, entry.labels.size)


def _tie(ledger: Ledger, one: _Entry, other: _Entry) -> None:
    if one.labels is other.labels and one.letters == other.letters:
        return
    if one.labels.ndim == 1 and other.labels.ndim == 1:
        ledger.tie(one.labels, other.labels)
        return
    order = list(dict.fromkeys([*one.letters, *other.letters]))
    ledger.tie(one.over(order), other.over(order))


def _output(site: Site, entry: _Entry, letter: Letter, letters: Letters) -> Array:
    if entry.labels.ndim == 1:
        return entry.labels
    gone = tuple(x not in letters for x in entry.letters)
    labels = entry.labels
    if any(g and labels.shape[a] > 1 for a, g in enumerate(gone)):
        first = labels[tuple(slice(0, 1) if g else slice(None) for g in gone)]
        site.ledger.tie(labels, first)
        labels = first
    kept = [x for x, g in zip(entry.letters, gone, strict=True) if not g]
    labels = labels.reshape([s for s, g in zip(labels.shape, gone, strict=True) if not g])
    order = list(letters)
    return as_line(_Entry(labels, letter, kept).over(order), order.index(letter)) if len(order) > 1 else labels.ravel()


def _new(site: Site, size: int) -> Array:
    return site.barrier("axis made by the operator" if size != 1 else "axis of a single position")


def _read(
    site: Site,
    inputs: Sequence[Letters | None],
    produced: set[Letter],
    mixes: Sequence[Letter],
    zeros: Mapping[int, int],
) -> None:
    """Note which inputs the masked reference must silence: contracted letters, and mixed ones.

    A contracted letter is silenced where activations have it, else (two weights) in one of the weights.
    """
    summed: dict[Letter, list[Reading]] = {}
    for slot, letters in enumerate(inputs):
        for axis, letter in enumerate(map(_plain, letters or ())):
            mixed = letter in mixes
            if not mixed and letter in produced:
                continue
            if site.shape(slot)[axis] == 1 or is_barrier(site.labels(slot)[axis]):
                continue
            if mixed:
                site.readings.append(Reading(slot, axis, True))
            else:
                summed.setdefault(letter, []).append(Reading(slot, axis, False, zeros.get(slot)))
    for found in summed.values():
        active = [r for r in found if not site.constant[r.slot]]
        factors = tuple(r.slot for r in found)
        site.readings.extend(replace(r, factors=factors) for r in active or found[:1])
