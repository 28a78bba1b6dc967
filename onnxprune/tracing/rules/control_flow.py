"""If, Loop and Scan, laid out flat (see `model/control_flow.py`): what goes into their bodies and what comes out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.model import control_flow
from onnxprune.tracing.labels import Axes, as_field, is_barrier
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.index import without
from onnxprune.tracing.rules.node_view import NodeView
from onnxprune.tracing.rules.registry import rule
from onnxprune.typing import Array

STEPS = "the steps of a loop"


@rule(control_flow.BODY_START, domain=control_flow.DOMAIN)
def body_start(view: NodeView) -> Sequence[Axes | None]:
    """A loop's state has the labels that it starts with, a slice those of what it is cut from."""
    counted, states, axes = control_flow.body_start_outputs(view.node)
    given: list[Axes | None] = []
    for slot, name in enumerate(view.node.output):
        shape = view.static.shapes.get(name)
        if slot < counted:
            given.append((view.barrier("counted"),) * len(shape or ()))
        elif shape is None:
            _fix(view, slot, "changes its shape from step to step")
            given.append(None)
        elif slot < counted + states:
            given.append(view.labels(slot))
        else:
            given.append(_slice(view, slot, axes[slot - counted - states]))
    return given


def _check_flat(view: NodeView) -> None:
    if not control_flow.is_flat(view.node):
        raise Unsupported("its inputs, outputs and attributes do not fit its bodies")


def _slice(view: NodeView, slot: int, axis: int) -> Axes:
    """The labels of a slice: those of the whole, which must not shrink along the axis of the steps."""
    rank = len(view.shape(slot))
    if not -rank <= axis < rank:
        raise Unsupported(f"its input {slot} has no axis {axis}")
    axis %= rank
    labels = view.labels(slot)
    view.ledger.fix(labels[axis], view.reason(STEPS))
    return without(view, labels, axis)


@rule("If")
def if_(view: NodeView) -> Sequence[Axes | None]:
    """Outputs of both branches tied; a branch that can never be taken says nothing."""
    _check_flat(view)
    slots = control_flow.branches(view.node)
    taken = view.state.branch_taken(view.node)
    used = [slots[taken]] if taken else list(slots.values())
    _ignore(view, 0)
    why = "the branches give other shapes"
    return [_tied(view, [part[i] for part in used], why, alike=False) for i in range(len(used[0]))]


@rule("Scan", since=9)
@rule("Loop")
def loop(view: NodeView) -> Sequence[Axes | None]:
    """State tied from step to step; what every step adds is kept behind a new axis."""
    _check_flat(view)
    of = control_flow.steps(view.node)
    for slot in {*range(len(view.node.input))} - {*of.states, *of.ends, *of.parts}:
        _ignore(view, slot)
    results = [
        _tied(view, pair, "changes its shape from step to step") for pair in zip(of.states, of.ends, strict=True)
    ]
    return results + [_stacked(view, slot, axis) for slot, axis in zip(of.parts, of.axes, strict=True)]


def _tied(view: NodeView, slots: Sequence[int], otherwise: str, *, alike: bool = True) -> Axes | None:
    """The labels of tensors that stand for one.

    Args:
        view: the node.
        slots: of the tensors.
        otherwise: why what is not tied stays whole.
        alike: their shapes must be equal; else axes of the same length are tied, and the others stay whole.

    Returns:
        The labels; None where all stay whole.
    """
    known = [view.static.shapes.get(view.node.input[s]) for s in slots]
    sizes = control_flow.common(known)
    if sizes is None or (alike and len(set(known)) > 1):
        for slot in slots:
            _fix(view, slot, otherwise)
        return None
    made: list[Array] = []
    for axis, size in enumerate(sizes):
        found = {slot: view.labels(slot)[axis] for slot in slots}
        same = [
            found[slot] for slot, shape in zip(slots, known, strict=True) if shape is not None and shape[axis] == size
        ]
        for labels in found.values():
            if not any(labels is one for one in same):
                view.ledger.fix(labels, view.reason(otherwise))
        first = min(same, key=lambda x: (not is_barrier(x), x.ndim > 1)) if same else view.barrier(otherwise)
        for other in same:
            rank = max(x.ndim for x in (first, other))
            view.ledger.tie(*((x if rank == 1 else as_field(x, axis, rank)) for x in (first, other)))
        made.append(first)
    return tuple(made)


def _stacked(view: NodeView, slot: int, axis: int) -> Axes | None:
    """The labels of what all steps give, one after the other along a new axis."""
    of = control_flow.steps(view.node)
    output = view.node.output[slot - of.ends.start]
    inner, outer = (view.static.shapes.get(name) for name in (view.node.input[slot], output))
    if inner is None or outer is None:
        _fix(view, slot, "the number of steps is unknown")
        return None
    axis %= len(outer)
    made = [x if x.ndim == 1 else np.expand_dims(x, axis) for x in view.labels(slot)]
    made.insert(axis, view.barrier(STEPS))
    return tuple(made)


def _ignore(view: NodeView, slot: int) -> None:
    """A condition or a count has no channels."""
    if view.has(slot) and view.node.input[slot] in view.static.shapes:
        view.looks_at(slot)


def _fix(view: NodeView, slot: int, why: str) -> None:
    if view.node.input[slot] in view.static.shapes:
        for labels in view.labels(slot):
            view.ledger.fix(labels, view.reason(why))
