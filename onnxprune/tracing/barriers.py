"""Barriers: reasons why axes stay whole, each with all the weights that it locks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnxprune.tracing.labels import Classes
from onnxprune.tracing.trace_result import TraceResult


@dataclass(frozen=True)
class Barrier:
    """Why positions cannot be removed, and how much that locks.

    Attributes:
        reason: the reason, for people.
        node: node, graph input or output that says so.
        op: its operator type.
        members: the weight axes with positions that it locks, as (tensor, axis, positions).
        params: weight elements at these positions.
    """

    reason: str
    node: str
    op: str
    members: tuple[tuple[str, int, int], ...]
    params: int


def barriers(tracing: TraceResult, classes: Classes) -> tuple[Barrier, ...]:
    """What every reason locks, by the classes that it fixes: each element of a weight once."""
    reasons = tracing.ledger.reasons
    order = np.argsort(classes.fixes[:, 0], kind="stable")
    fixed, reason = classes.fixes[order, 0], classes.fixes[order, 1]
    locks: dict[int, list[tuple[str, int, int]]] = {}
    shares: dict[int, dict[str, dict[int, float]]] = {}
    elements: dict[str, int] = {}
    for key, axes in tracing.weights_axes():
        if not tracing.holds_parameters(key):
            continue
        name = tracing.weights[key]
        elements[name] = math.prod(tracing.static.shapes[tracing.weights[key]])
        for axis, labels in enumerate(axes):
            flat = labels.reshape(-1)
            ids = classes.of[flat[flat >= 0]]
            low, high = np.searchsorted(fixed, ids), np.searchsorted(fixed, ids, "right")
            for step in range(int((high - low).max()) if ids.size else 0):
                hit = low + step < high
                for r, n in zip(*np.unique(reason[(low + step)[hit]], return_counts=True), strict=True):
                    if not reasons[r].inherent:
                        locks.setdefault(int(r), []).append((name, axis, int(n)))
                        held = shares.setdefault(int(r), {}).setdefault(name, {})
                        held[axis] = max(held.get(axis, 0.0), n / flat.size)
    params = {
        r: sum(elements[name] * (1 - math.prod(1 - s for s in axes.values())) for name, axes in held.items())
        for r, held in shares.items()
    }
    found = [
        Barrier(reasons[r].text, reasons[r].node, reasons[r].op, tuple(members), round(params[r]))
        for r, members in locks.items()
    ]
    return tuple(sorted(found, key=lambda b: -b.params))
