"""Parts of a graph that can go as a whole, priced against units of groups by damage for what they save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.allocation.kinds import KINDS, BudgetKind
from onnxprune.allocation.options import Options
from onnxprune.allocation.selection import question
from onnxprune.allocation.strategies import Limit, allocate
from onnxprune.tracing import Groups
from onnxprune.typing import Array


@dataclass(frozen=True)
class PricedPart:
    """A part of a graph that can go as a whole.

    Attributes:
        names: its tensors and weights.
        damage: what is lost with it, in the terms of the scores of units that accumulate.
        groups: numbers of the groups whose weights are all inside.
        gone: it goes whatever else does.
    """

    names: frozenset[str]
    damage: float
    groups: tuple[int, ...] = ()
    gone: bool = False


def cheapest_part(
    groups: Groups,
    scores: Array,
    options: Options,
    parts: Sequence[PricedPart],
    *,
    kinds: Mapping[str, BudgetKind] = KINDS,
    multiples: Mapping[str, int] | None = None,
) -> int | None:
    """Choose the part that does least damage for what it saves, of those that go where parts and units compete.

    Parts and groups are allocated together, a part as a group of one unit, by the strategy of the options.

    Args:
        groups: the traced model.
        scores: float64[classes], damage that accumulates.
        options: the budgets, and which units may go.
        parts: the parts; no two share a tensor.
        kinds: the kinds of budgets, by their names.
        multiples: group name -> what its width is rounded to, instead of what the options say.

    Returns:
        The place of the part in `parts`; None where units alone go, or what is gone already is enough.

    Raises:
        GoalMissed: no group may lose units.
    """
    asked = question(groups, scores, options, kinds=kinds, multiples=multiples, parts=[part.names for part in parts])
    limits = [Limit(measure, goal.most) for goal, measure in asked.goals]
    ones = np.ones(1, np.int64)
    inside = {len(groups.groups) + place: part.groups for place, part in enumerate(parts)}
    for widths in asked.problems:
        problem = replace(
            widths,
            units=np.concatenate([widths.units, np.repeat(ones, len(parts))]),
            allowed_counts=[*widths.allowed_counts, *(ones if part.gone else np.arange(2) for part in parts)],
            values=[*widths.values, *(np.array([part.damage]) for part in parts)],
            damage=[*widths.damage, *(np.array([0.0, part.damage]) for part in parts)],
            limits=limits,
            inside=inside,
        )
        counts = allocate(problem, options.strategy)
        if problem.holds(counts):
            break
    prices = {}
    for place, part in enumerate(parts):
        number = len(groups.groups) + place
        if counts[number] and not part.gone:
            saved = max(
                float(np.ptp(limit.measure.along(counts, number, np.arange(2)))) / limit.unit for limit in limits
            )
            prices[place] = part.damage / max(saved, 1e-12)
    return min(prices, key=prices.__getitem__) if prices else None
