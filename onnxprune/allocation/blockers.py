"""What holds a cost up, of what was asked for: how much less there would be without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from onnxprune.allocation.options import Options
from onnxprune.allocation.selection import MEASURES, most_of
from onnxprune.cost import Widths
from onnxprune.cost.axis_lengths import units_in_order
from onnxprune.tracing import Groups

# A budget that only a run can tell, and what is looked at instead.
_STAND_IN = {"latency": "macs"}
ALMOST = 0.999
# Options that leave groups larger than they must be -> what they are where they do not.
LOOSE: Mapping[str, Any] = {
    "round_to": 1,
    "keep": (),
    "only": (),
    "exact_only": False,
    "ratios": {},
    "max_ratio": ALMOST,
}


def held_by(groups: Groups, options: Options, kind: str) -> dict[tuple[str, ...], float]:
    """Options that hold a cost up, and how much less there would be without, the most first.

    Args:
        groups: the traced model.
        options: what was asked for.
        kind: of the budget: "params", "macs", "size", "memory" or "latency".

    Returns:
        (name of a field of `Options`) -> share of the original's cost, of MACs for the latency; where several options
        only do it together, their names -> the same.
    """
    given = {name: value for name, value in LOOSE.items() if getattr(options, name) not in (value, None)}
    if kind == "latency":
        given |= {"round_to": 1} if options.is_aligned else {}
    least = _least(groups, _STAND_IN.get(kind, kind))
    now = least(options)
    saved = {(name,): now - least(replace(options, **{name: value})) for name, value in given.items()}
    found: dict[tuple[str, ...], float] = {names: share for names, share in saved.items() if share > 1e-9}
    if not found and given:
        together = now - least(replace(options, **given))
        found = {tuple(given): together} if together > 1e-9 else {}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _least(groups: Groups, kind: str) -> Callable[[Options], float]:
    """Options -> what a cost comes down to where every group loses as much as it may, as a share of the original's."""
    order = {g.name: units_in_order(g, np.zeros(groups.classes.count)) for g in groups.groups}
    measure = MEASURES[kind](Widths(groups, order))
    whole = max(measure.total(np.zeros(len(groups.groups), np.int64)), 1e-12)
    return lambda options: measure.total(most_of(groups, options)) / whole
