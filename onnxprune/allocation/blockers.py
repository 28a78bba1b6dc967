"""Which options keep a budget from being met, and what relaxing each would save."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from onnxprune.allocation.kinds import KINDS, BudgetKind
from onnxprune.allocation.options import Options
from onnxprune.allocation.selection import max_counts
from onnxprune.cost import AxisLengths, units_in_order
from onnxprune.tracing import Groups

# Field of `Options` that can keep groups larger than they must be -> the value with which it does not.
RELAXED: Mapping[str, Any] = {
    "round_to": 1,
    "keep": (),
    "only": (),
    "exact_only": False,
    "ratios": {},
    "max_ratio": 0.999,
}
# Smaller savings, as shares of the original's cost, are rounding.
ROUNDING = 1e-9


def blocking_options(groups: Groups, options: Options, budget: str) -> dict[tuple[str, ...], float]:
    """Options that block a budget, largest saving first.

    Args:
        groups: the traced model.
        options: the options that block it.
        budget: name of its kind, as in `kinds.KINDS`.

    Returns:
        Names of fields of `Options` -> share of the original's cost that relaxing them would save (MACs for the
        latency). Several names only where none saves anything alone.
    """
    kind = KINDS[budget]
    relaxed = {name: value for name, value in RELAXED.items() if getattr(options, name) not in (value, None)}
    if kind.is_timed and options.is_aligned:
        relaxed |= {"round_to": 1}
    least_cost = _least_cost(groups, kind)
    present = least_cost(options)

    def saving(names: tuple[str, ...]) -> float:
        return present - least_cost(replace(options, **{name: relaxed[name] for name in names}))

    savings: dict[tuple[str, ...], float] = {(name,): saving((name,)) for name in relaxed}
    if relaxed and not any(share > ROUNDING for share in savings.values()):
        savings = {tuple(relaxed): saving(tuple(relaxed))}
    ordered = sorted(savings.items(), key=lambda pair: -pair[1])
    return {names: share for names, share in ordered if share > ROUNDING}


def _least_cost(groups: Groups, kind: BudgetKind) -> Callable[[Options], float]:
    """Options -> the cost where every group loses as much as it may, as a share of the original's."""
    order = {g.name: units_in_order(g, np.zeros(groups.classes.count)) for g in groups.groups}
    cost = kind.cost(AxisLengths(groups, order))
    original = max(cost.total(np.zeros(len(groups.groups), np.int64)), 1e-12)
    return lambda options: cost.total(max_counts(groups, options)) / original
