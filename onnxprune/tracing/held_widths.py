"""Groups of one width hold it together, where it is stated once for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from onnxprune.model import HeldWidths, Width
from onnxprune.tracing.group import Group
from onnxprune.tracing.labels import Classes, Reason
from onnxprune.tracing.partition import with_fixes
from onnxprune.tracing.trace_result import TraceResult
from onnxprune.typing import Array

# Those of a tensor that nothing has labelled: a barrier.
NO_LABELS = np.array([-1])


def groups_held(groups: Sequence[Group], widths: Iterable[HeldWidths]) -> dict[HeldWidths, list[Group]]:
    """The groups of the widths that are stated once; without widths that no group has.

    Args:
        groups: of a trace.
        widths: the widths.
    """
    found = {held: [group for group in groups if (group.kind, group.units) in held.widths] for held in widths}
    return {held: alike for held, alike in found.items() if alike}


def with_widths_held(tracing: TraceResult, classes: Classes, widths: Mapping[HeldWidths, Sequence[Group]]) -> Classes:
    """The classes of a trace with what widths that are stated once demand of them.

    A balance keeps the groups of such widths in proportion: each is one of its rows, and loses units of its own.

    Args:
        tracing: the finished trace, whose ledger is told why widths stay.
        classes: its classes.
        widths: the widths, and their groups.

    Returns:
        The classes with more balances, and with more of them fixed.
    """
    for held, groups in widths.items():
        alike = [group.classes for group in groups]
        if why := held.locked or _why_whole(tracing, classes, held, {(group.kind, group.units) for group in groups}):
            classes = with_fixes(classes, np.concatenate(alike), tracing.ledger, Reason(why))
        elif len(alike) > 1:
            classes = replace(classes, balances=(*classes.balances, _rows(alike)))
    return classes


def _why_whole(tracing: TraceResult, classes: Classes, held: HeldWidths, found: Set[Width]) -> str:
    """Why widths must stay since others do that are stated with them; empty if they need not."""
    if len(held.widths) > 1 and len({kind for kind, _ in found}) == 1:
        return "stated in proportion to others, which stay"
    for width, name, axis in held.places:
        labels = tracing.axes[name][axis] if name in tracing.axes else NO_LABELS
        if width in found and not (labels.min() >= 0 and classes.free[classes.of[labels]].all()):
            return f"stated for {name!r} too, which stays"
    return ""


def _rows(alike: Sequence[Array]) -> Array:
    """int[groups, width]: the classes of every group, in rows of one length: shares are numbers of positions then."""
    width = math.lcm(*map(len, alike))
    return np.stack([np.repeat(ids, width // len(ids)) for ids in alike])
