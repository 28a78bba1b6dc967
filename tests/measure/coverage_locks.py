"""What of a traced model can be pruned, what is locked, and why: the figures of `python -m tests.measure.coverage`."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import numpy as np

CONTRACTIONS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"))

Result = dict[str, Any]


def account(groups: Any) -> Result:
    """Groups, the share of weights that some group holds, and reasons for the rest."""
    held, total = groups.prunable
    return {
        "groups": len(groups.groups),
        "heads": sum(g.kind == "head" for g in groups.groups),
        "approximate": sum(not g.exact for g in groups.groups),
        "held": held,
        "weights": total,
        "barriers": dict(locks(groups).most_common(12)),
        "locked_axes": locked_axes(groups),
        "untouched": untouched(groups),
    }


def locks(groups: Any) -> Counter[str]:
    """Weight elements that lie at a locked position of some axis, by reason."""
    held: dict[str, dict[str, dict[int, int]]] = {}
    for barrier in groups.barriers:
        tensors = held.setdefault(plain(barrier.reason, barrier.op), {})
        for tensor, axis, positions in barrier.members:
            axes = tensors.setdefault(tensor, {})
            axes[axis] = axes.get(axis, 0) + positions
    found: Counter[str] = Counter()
    for reason, tensors in held.items():
        for tensor, axes in tensors.items():
            shape = groups.static.shapes[tensor]
            free = math.prod(1 - min(1.0, n / shape[a]) for a, n in axes.items())
            found[reason] += round(math.prod(shape) * (1 - free))
    return found


def plain(reason: str, op: str) -> str:
    """A reason without the names of its own model."""
    text = re.sub(r"'[^']*'", "…", reason).replace(" …", "").strip()
    return f"{op}: {text}" if op else text


def locked_axes(groups: Any) -> list[list[Any]]:
    """[weight, op, axis, size, positions that no group holds, reasons] of every axis of a contraction's weight."""
    tracing = groups.tracing
    found = []
    for view, _ in tracing.views:
        if view.node.op_type not in CONTRACTIONS or view.node.domain not in ("", "ai.onnx"):
            continue
        for slot, name in enumerate(view.node.input):
            shape = tracing.static.shapes.get(name)
            constant = slot < len(view.constant) and view.constant[slot]
            if not name or not constant or shape is None or len(shape) < 2:
                continue
            axes = tracing.axes.get(tracing.use_key(view.node, slot))
            for axis, size in enumerate(shape):
                if size < 2 or (axis > 1 and view.node.op_type.startswith("Conv")):
                    continue
                labels = None if axes is None else axes[axis]
                locked, why = why_locked(groups, labels, axis, size)
                if locked:
                    found.append([name, view.node.op_type, axis, size, locked, why])
    return found


def why_locked(groups: Any, labels: np.ndarray | None, axis: int, size: int) -> tuple[int, list[str]]:
    """How many positions of an axis no group holds, and why."""
    if labels is None:
        return size, ["the node was not traced"]
    reasons, classes = groups.tracing.ledger.reasons, groups.classes
    flat = labels.reshape(-1)
    ids = np.where(flat >= 0, classes.of[np.maximum(flat, 0)] if classes.of.size else -1, -1)
    is_free = (flat >= 0) & (groups.group_of[ids] >= 0) if classes.count else np.zeros(flat.size, bool)
    if is_free.all():
        return 0, []
    texts: Counter[str] = Counter()
    for label in np.unique(flat[flat < 0]):
        reason = reasons[-1 - int(label)]
        texts[plain(reason.text, reason.op)] += int((flat == label).sum())
    stuck = np.unique(ids[~is_free & (flat >= 0)])
    fixed = classes.fixes[np.isin(classes.fixes[:, 0], stuck)]
    for index, count in zip(*np.unique(fixed[:, 1], return_counts=True), strict=True):
        reason = reasons[int(index)]
        texts[plain(reason.text, reason.op)] += int(count)
    share = float((~is_free).mean())
    return max(1, round(share * size)), [t for t, _ in texts.most_common(4)] or ["in no group"]


def untouched(groups: Any) -> list[list[Any]]:
    """[weight, op, elements, reasons] of every contraction weight of which nothing can be removed."""
    locked: dict[str, list[list[Any]]] = {}
    for row in locked_axes(groups):
        locked.setdefault(row[0], []).append(row)
    found = []
    for name, rows in locked.items():
        shape = groups.static.shapes[name]
        is_conv = rows[0][1].startswith("Conv")
        open_axes = {a for a, n in enumerate(shape) if n > 1 and not (is_conv and a > 1)}
        if open_axes == {r[2] for r in rows if r[4] >= r[3]}:
            why = sorted({f"axis {r[2]}: {w}" for r in rows for w in r[5]})
            found.append([name, rows[0][1], math.prod(shape), why])
    return found
