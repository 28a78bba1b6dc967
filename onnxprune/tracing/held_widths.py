"""Groups of one width hold it together, where it is stated once for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.model import HeldWidths
from onnxprune.tracing.group import Group
from onnxprune.tracing.labels import Classes, Constraints, Reason
from onnxprune.tracing.partition import with_fixes
from onnxprune.typing import Array


def classes_held(groups: Sequence[Group], widths: Iterable[HeldWidths]) -> dict[HeldWidths, tuple[Array, ...]]:
    """The classes of all groups of the widths that are stated once, each group's apart; without widths of none.

    Args:
        groups: of a trace.
        widths: the widths.
    """
    found = {
        held: tuple(group.classes for group in groups if (group.kind, group.units) in held.widths) for held in widths
    }
    return {held: alike for held, alike in found.items() if alike}


def with_widths_held(classes: Classes, ledger: Constraints, widths: Mapping[HeldWidths, Sequence[Array]]) -> Classes:
    """The classes of a trace with what widths that are stated once demand of them.

    A balance keeps the groups of such widths in proportion: each is one of its rows, and loses units of its own.

    Args:
        classes: of the finished trace.
        ledger: of the trace, which is told why widths stay.
        widths: the widths, and the classes of their groups.

    Returns:
        The classes with more balances, and with more of them fixed.
    """
    for held, alike in widths.items():
        if held.locked:
            classes = with_fixes(classes, np.concatenate(alike), ledger, Reason(held.locked))
        elif len(alike) > 1:
            classes = replace(classes, balances=(*classes.balances, _rows(alike)))
    return classes


def _rows(alike: Sequence[Array]) -> Array:
    """int[groups, width]: the classes of every group, in rows of one length: shares are numbers of positions then."""
    width = math.lcm(*map(len, alike))
    return np.stack([np.repeat(ids, width // len(ids)) for ids in alike])
