"""Budgets that hold for the model as it is written: what was expected is corrected by what turned out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune import cost
from onnxprune.cut import Cut
from onnxprune.errors import ModelError
from onnxprune.grouping import Groups
from onnxprune.labels import Array
from onnxprune.measures import Measure
from onnxprune.model import Model, file_size
from onnxprune.options import Options
from onnxprune.rewrite import rewrite
from onnxprune.selection import MEASURES, Goal, Selection, gone, select
from onnxprune.widths import Widths

# Selections that are made anew because the model turned out larger or smaller than was expected.
CORRECTIONS = 6


@dataclass(frozen=True)
class Meter:
    """A cost that budgets limit.

    Attributes:
        expected: makes its function of widths.
        actual: measures it on a model that was cut; None where what is expected is exact.
        noise: measurements differ by this share, so that the limit less it is aimed at.
    """

    expected: Callable[[Widths], Measure]
    actual: Callable[[Model, Cut], float] | None = None
    noise: float = 0.0


# Widths do not tell of copies of shared weights, of biases that a repair adds, and of what else is in a file.
_ACTUAL: Mapping[str, Callable[[Model, Cut], float]] = {
    "params": lambda model, cut: cost.of_trace(cut.groups.tracing, model, cut.size).params,
    "size": lambda model, cut: file_size(model),
}
METERS: Mapping[str, Meter] = {kind: Meter(measure, _ACTUAL.get(kind)) for kind, measure in MEASURES.items()}


def fit(
    groups: Groups,
    scores: Array,
    options: Options,
    *,
    meters: Mapping[str, Meter] = METERS,
    reserve: Mapping[str, float] | None = None,
    multiples: Mapping[str, int] | None = None,
) -> Selection:
    """The units that go so that all budgets hold for the model that is written.

    Args:
        groups: the traced model.
        scores: float64[classes].
        options: what to prune.
        meters: the costs that budgets limit.
        reserve: what the model will gain after it was cut.
        multiples: group name -> what its width is rounded to, instead of what the options say.

    Returns:
        The selection, its goals with what was reached; if not all are met, that is as little as can be reached.
    """
    reserve = reserve or {}
    excess, costs = dict(reserve), {kind: meter.expected for kind, meter in meters.items()}
    found: Selection | None = None
    known: dict[str, list[tuple[float, float]]] = {}
    for _ in range(CORRECTIONS):
        selection = select(groups, scores, options, costs=costs, excess=excess, multiples=multiples)
        if not any(meters[goal.kind].actual for goal in selection.goals):
            return selection
        cut = Cut(groups, gone(groups, selection.removed))
        try:
            small = rewrite(groups, cut.gone)
        except ModelError:  # the proof finds the group that no node can follow, and rolls it back
            return selection
        written = reached(selection.goals, small, cut, meters)
        grown = (replace(goal, reached=goal.reached + reserve.get(goal.kind, 0.0)) for goal in written)
        measured = replace(selection, goals=tuple(grown))
        if found is None or _is_better(measured, found):
            found = measured
        off = {g.kind: m.reached - g.reached for g, m in zip(selection.goals, measured.goals, strict=True)}
        if not any(off.values()) or _is_close(measured, meters):
            break
        for goal in measured.goals:
            kind, noise = goal.kind, meters[goal.kind].noise
            if noise:
                seen = known.setdefault(kind, [(goal.before, goal.before)])
                seen.append((goal.reached, goal.reached - off[kind] - excess.get(kind, 0.0)))
                least = excess.get(kind, 0.0) + goal.reached - goal.most if not goal.met else -np.inf
                excess[kind] = max(least, goal.most - _expected_at(seen, goal.most * (1 - noise)))
            else:
                excess[kind] = excess.get(kind, 0.0) + off[kind]
    assert found is not None
    return found


def _expected_at(seen: Sequence[tuple[float, float]], wanted: float) -> float:
    """What is expected where `wanted` will be measured: straight between what is known, in proportion below that.

    Args:
        seen: what was measured, and what was expected of the same.
        wanted: what shall be measured.
    """
    measured, expected = np.array(sorted(seen)).T
    if wanted < measured[0]:
        return float(expected[0] * wanted / measured[0])
    return float(np.interp(wanted, measured, expected))


def _is_better(new: Selection, old: Selection) -> bool:
    """Whether budgets are met, or by less is missed what is missed most; of two that meet them, the larger."""
    shares = [max(goal.reached / (goal.most or 1) for goal in selection.goals) for selection in (new, old)]
    if new.met != old.met:
        return new.met
    return shares[0] >= shares[1] if new.met else shares[0] < shares[1]


def _is_close(found: Selection, meters: Mapping[str, Meter]) -> bool:
    """Whether budgets are met, and a cost that is measured with noise is as close as makes sense."""
    noisy = [goal for goal in found.goals if meters[goal.kind].noise]
    return bool(noisy) and found.met and any(g.reached >= g.most * (1 - 3 * meters[g.kind].noise) for g in noisy)


def reached(goals: tuple[Goal, ...], model: Model, cut: Cut, meters: Mapping[str, Meter] = METERS) -> tuple[Goal, ...]:
    """The goals, with what a model has reached."""
    actual = {goal.kind: meters[goal.kind].actual for goal in goals}
    return tuple(replace(g, reached=of(model, cut)) if (of := actual[g.kind]) else g for g in goals)
