"""If, Loop and Scan, laid out flat (see `model/control_flow.py`): what goes into their bodies and what comes out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.model import control_flow
from onnxprune.tracing.labels import Axes, as_field, is_barrier
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.index import without
from onnxprune.tracing.rules.registry import rule
from onnxprune.tracing.rules.site import Site
from onnxprune.typing import Array

STEPS = "the steps of a loop"


@rule(control_flow.BEGIN, domain=control_flow.DOMAIN)
def begin(site: Site) -> Sequence[Axes | None]:
    """A loop's state has the labels that it starts with, a slice those of what it is cut from."""
    counted, states, axes = control_flow.begins(site.node)
    given: list[Axes | None] = []
    for slot, name in enumerate(site.node.output):
        shape = site.facts.shapes.get(name)
        if slot < counted:
            given.append((site.barrier("counted"),) * len(shape or ()))
        elif shape is None:
            _fix(site, slot, "changes its shape from step to step")
            given.append(None)
        elif slot < counted + states:
            given.append(site.labels(slot))
        else:
            given.append(_slice(site, slot, axes[slot - counted - states]))
    return given


def _check_flat(site: Site) -> None:
    if not control_flow.is_flat(site.node):
        raise Unsupported("its inputs, outputs and attributes do not fit its bodies")


def _slice(site: Site, slot: int, axis: int) -> Axes:
    """The labels of a slice: those of the whole, which must not shrink along the axis of the steps."""
    rank = len(site.shape(slot))
    if not -rank <= axis < rank:
        raise Unsupported(f"its input {slot} has no axis {axis}")
    axis %= rank
    labels = site.labels(slot)
    site.ledger.fix(labels[axis], site.reason(STEPS))
    return without(site, labels, axis)


@rule("If")
def if_(site: Site) -> Sequence[Axes | None]:
    """Outputs of both branches tied; a branch that can never be taken says nothing."""
    _check_flat(site)
    slots = control_flow.branches(site.node)
    taken = site.state.branch_taken(site.node)
    used = [slots[taken]] if taken else list(slots.values())
    _ignore(site, 0)
    return [_tied(site, [part[i] for part in used], "the branches give other shapes") for i in range(len(used[0]))]


@rule("Scan", since=9)
@rule("Loop")
def loop(site: Site) -> Sequence[Axes | None]:
    """State tied from step to step; what every step adds is kept behind a new axis."""
    _check_flat(site)
    of = control_flow.steps(site.node)
    for slot in {*range(len(site.node.input))} - {*of.states, *of.ends, *of.parts}:
        _ignore(site, slot)
    results = [
        _tied(site, pair, "changes its shape from step to step") for pair in zip(of.states, of.ends, strict=True)
    ]
    return results + [_stacked(site, slot, axis) for slot, axis in zip(of.parts, of.axes, strict=True)]


def _tied(site: Site, slots: Sequence[int], otherwise: str) -> Axes | None:
    """The labels of tensors that stand for one; None where their shapes differ, and all stay whole."""
    shapes = {site.facts.shapes.get(site.node.input[s]) for s in slots}
    if None in shapes or len(shapes) > 1:
        for slot in slots:
            _fix(site, slot, otherwise)
        return None
    made: list[Array] = []
    for axis, labels in enumerate(zip(*(site.labels(s) for s in slots), strict=True)):
        first = min(labels, key=lambda x: (not is_barrier(x), x.ndim > 1))
        for other in labels:
            rank = max(x.ndim for x in (first, other))
            site.ledger.tie(*((x if rank == 1 else as_field(x, axis, rank)) for x in (first, other)))
        made.append(first)
    return tuple(made)


def _stacked(site: Site, slot: int, axis: int) -> Axes | None:
    """The labels of what all steps give, one after the other along a new axis."""
    of = control_flow.steps(site.node)
    output = site.node.output[slot - of.ends.start]
    inner, outer = (site.facts.shapes.get(name) for name in (site.node.input[slot], output))
    if inner is None or outer is None:
        _fix(site, slot, "the number of steps is unknown")
        return None
    axis %= len(outer)
    made = [x if x.ndim == 1 else np.expand_dims(x, axis) for x in site.labels(slot)]
    made.insert(axis, site.barrier(STEPS))
    return tuple(made)


def _ignore(site: Site, slot: int) -> None:
    """A condition or a count has no channels."""
    if site.has(slot) and site.node.input[slot] in site.facts.shapes:
        site.looks_at(slot)


def _fix(site: Site, slot: int, why: str) -> None:
    if site.node.input[slot] in site.facts.shapes:
        for labels in site.labels(slot):
            site.ledger.fix(labels, site.reason(why))
