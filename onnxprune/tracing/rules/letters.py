"""The one algorithm behind all rules that can be written as letters.

A rule names every axis of every input and output by a *letter*, as `einsum` does. Axes with the same letter
are tied; a letter that is only in inputs is contracted (a removed position contributes nothing); letters in
`averages` change the values at the other positions; letters in `fixes` must stay whole. An axis that holds the
positions of a letter several times over (the gates of an LSTM) is named by `Copies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.model.shapes.polynomials import is_known
from onnxprune.tracing.labels import Axes, Constraints, Reason, as_field, as_line, is_barrier
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.node_view import Letter, MaskedAxis, NodeView
from onnxprune.typing import Array

Letters = Sequence[Letter]


@dataclass(frozen=True)
class Copies:
    """An axis of an input that lists all positions of a letter `count` times, which go together."""

    letter: Letter
    count: int


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
    view: NodeView,
    inputs: Sequence[Letters | None],
    outputs: Sequence[Letters],
    *,
    averages: Sequence[Letter] = (),
    fixes: Mapping[Letter, str] | None = None,
    inherent: Mapping[Letter, str] | None = None,
    same: Mapping[Letter, Letter] | None = None,
    zeros: Mapping[int, int] | None = None,
) -> list[Axes]:
    """Take the labels of a node's inputs to its outputs by letters.

    Args:
        view: the node.
        inputs: a letter per axis of each input, None for an input whose axes play no part.
        outputs: a letter per axis of each output; a letter that no input has is a new axis.
        averages: letters whose removal changes the values at other positions.
        fixes: letter -> the reason why it must stay whole.
        inherent: the same, for what no model can shrink (the spatial axes of a kernel).
        same: letters that stand for the same positions (what a recurrence reads is what it made before).
        zeros: input -> the input that holds its zero point.

    Returns:
        The labels of every output.
    """
    entries = _entries(view, inputs)
    produced = {letter for letters in outputs for letter in letters}
    chosen: dict[Letter, _Entry] = {}
    for letter, found in entries.items():
        chosen[letter] = first = min(found, key=_weight)
        for other in found:
            _tie(view.ledger, first, other)
        if fixes and letter in fixes:
            chosen[letter] = _fixed(view, first, view.reason(fixes[letter]))
        elif inherent and letter in inherent:
            chosen[letter] = _fixed(view, first, view.reason(inherent[letter], inherent=True))
    for letter, twin in (same or {}).items():
        if letter in chosen and twin in chosen:
            _tie(view.ledger, chosen[letter].renamed(twin), chosen[twin])
    _read(view, inputs, produced, averages, zeros or {})
    plain = [None if letters is None else list(map(_plain, letters)) for letters in inputs]
    view.letters = (plain, [list(map(_plain, letters)) for letters in outputs])
    results: list[Axes] = []
    for slot, letters in enumerate(outputs):
        if not view.node.output[slot]:  # an optional output that is not asked for
            results.append(())
            continue
        shape = view.out_shape(slot)
        made = [
            _output(view, chosen[letter], letter, letters) if letter in chosen else _new(view, size)
            for letter, size in zip(letters, shape, strict=True)
        ]
        results.append(tuple(made))
    return results


def _entries(view: NodeView, inputs: Sequence[Letters | None]) -> dict[Letter, list[_Entry]]:
    entries: dict[Letter, list[_Entry]] = {}
    for slot, letters in enumerate(inputs):
        if letters is None:
            continue
        sizes, axes, dims = view.shape(slot), view.labels(slot), view.dims(view.inputs[slot])
        if len(letters) != len(sizes):
            raise Unsupported(f"input {slot} has {len(sizes)} axes, not {len(letters)}")
        plain = [_plain(letter) for letter in letters]
        has_copies = any(isinstance(letter, Copies) for letter in letters)
        for axis, (letter, size, labels) in enumerate(zip(letters, sizes, axes, strict=True)):
            if size == 1 and is_known(dims[axis]):
                continue
            if size == 1:
                labels = view.barrier("one position or as many as the others, as sizes say that the run alone knows")
            if has_copies:
                labels = _once(view, labels, axis, letters)
            if isinstance(letter, Copies) and size == letter.count:
                view.ledger.fix(labels, view.reason("copies of a single position", inherent=True))
            else:
                entries.setdefault(plain[axis], []).append(_Entry(labels, plain[axis], plain))
    return entries


def _plain(letter: Letter) -> Letter:
    return letter.letter if isinstance(letter, Copies) else letter


def _once(view: NodeView, labels: Array, own: int, letters: Letters) -> Array:
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
            view.ledger.tie(parted, first)
            labels = first.squeeze(place)
    return labels


def _fixed(view: NodeView, entry: _Entry, reason: Reason) -> _Entry:
    """A barrier in place of the labels, which stay."""
    if is_barrier(entry.labels):
        return entry
    view.ledger.fix(entry.labels, reason)
    return _Entry(view.ledger.barrier(reason), entry.letter, (entry.letter,))


def _weight(entry: _Entry) -> tuple[bool, int, int]:
    """Barriers first, then lines, then the smallest field."""
    return (not is_barrier(entry.labels), entry.labels.ndim > 1, entry.labels.size)


def _tie(ledger: Constraints, one: _Entry, other: _Entry) -> None:
    if one.labels is other.labels and one.letters == other.letters:
        return
    if one.labels.ndim == 1 and other.labels.ndim == 1:
        ledger.tie(one.labels, other.labels)
        return
    order = list(dict.fromkeys([*one.letters, *other.letters]))
    ledger.tie(one.over(order), other.over(order))


def _output(view: NodeView, entry: _Entry, letter: Letter, letters: Letters) -> Array:
    if entry.labels.ndim == 1:
        return entry.labels
    absent = tuple(x not in letters for x in entry.letters)
    labels = entry.labels
    if any(g and labels.shape[a] > 1 for a, g in enumerate(absent)):
        first = labels[tuple(slice(0, 1) if g else slice(None) for g in absent)]
        view.ledger.tie(labels, first)
        labels = first
    kept = [x for x, g in zip(entry.letters, absent, strict=True) if not g]
    labels = labels.reshape([s for s, g in zip(labels.shape, absent, strict=True) if not g])
    order = list(letters)
    return as_line(_Entry(labels, letter, kept).over(order), order.index(letter)) if len(order) > 1 else labels.ravel()


def _new(view: NodeView, size: int) -> Array:
    return view.barrier("axis made by the operator" if size != 1 else "axis of a single position")


def _read(
    view: NodeView,
    inputs: Sequence[Letters | None],
    produced: set[Letter],
    averages: Sequence[Letter],
    zeros: Mapping[int, int],
) -> None:
    """Note which inputs the masked reference must silence: contracted letters, and mixed ones.

    A contracted letter is silenced where activations have it, else (two weights) in one of the weights.
    """
    summed: dict[Letter, list[MaskedAxis]] = {}
    for slot, letters in enumerate(inputs):
        for axis, letter in enumerate(map(_plain, letters or ())):
            averaged = letter in averages
            if not averaged and letter in produced:
                continue
            if view.shape(slot)[axis] == 1 or is_barrier(view.labels(slot)[axis]):
                continue
            if averaged:
                view.masked_axes.append(MaskedAxis(slot, axis, True))
            else:
                summed.setdefault(letter, []).append(MaskedAxis(slot, axis, False, zeros.get(slot)))
    for found in summed.values():
        active = [r for r in found if not view.constant[r.slot]]
        factors = tuple(r.slot for r in found)
        view.masked_axes.extend(replace(r, factors=factors) for r in active or found[:1])
