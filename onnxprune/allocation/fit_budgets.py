"""Budgets that hold for the model as it is written: what was expected is corrected by what turned out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.allocation.options import Options
from onnxprune.allocation.selection import MEASURES, Goal, Question, Selection, question, select
from onnxprune.allocation.strategies import Problem, within
from onnxprune.cost import Widths
from onnxprune.cost import counts as cost
from onnxprune.cost.functions import Measure
from onnxprune.errors import ModelError
from onnxprune.model import Model, file_size
from onnxprune.rewriting import Cut, gone
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import Groups
from onnxprune.typing import Array

# Selections that are made anew because the model turned out larger or smaller than was expected.
CORRECTIONS = 6
# A cost that is measured is close to its limit if it is no further below than this.
CLOSE = 0.05
# Costs that are expected to differ by less are the same.
SAME = 1e-6


@dataclass(frozen=True)
class Meter:
    """A cost that budgets limit.

    Attributes:
        expected: makes its function of widths.
        actual: measures it on a model that was cut; None where what is expected is exact.
        noise: measurements differ by this share, so that the limit less it is aimed at.
        correct: lets a model that was cut, and how many units its groups have lost, correct what is expected.
    """

    expected: Callable[[Widths], Measure]
    actual: Callable[[Model, Cut], float] | None = None
    noise: float = 0.0
    correct: Callable[[Model, Array], None] | None = None


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
    best: Selection | None = None
    seen: list[Selection] = []
    for _ in range(CORRECTIONS):
        selection = select(groups, scores, options, costs=costs, excess=excess, multiples=multiples)
        if not any(meters[goal.kind].actual for goal in selection.goals):
            return selection
        if any(np.array_equal(selection.counts, old.counts) for old in seen):
            break
        cut = Cut(groups, gone(groups, selection.removed))
        try:
            small = rewrite(groups, cut.gone)
        except ModelError:  # the proof finds the group that no node can follow, and rolls it back
            return selection
        written = reached(selection.goals, small, cut, meters)
        grown = (replace(goal, reached=goal.reached + reserve.get(goal.kind, 0.0)) for goal in written)
        measured = replace(selection, goals=tuple(grown))
        seen.append(measured)
        if best is None or _is_better(measured, best, meters):
            best = measured
        off = {g.kind: m.reached - g.reached for g, m in zip(selection.goals, measured.goals, strict=True)}
        if not any(off.values()) or _is_close(measured, meters):
            break
        for goal in measured.goals:
            meter = meters[goal.kind]
            if meter.noise:
                if meter.correct:
                    meter.correct(small, selection.counts)
                asked = question(groups, scores, options, costs=costs, multiples=multiples)
                excess[goal.kind] = goal.most - _aim(asked, goal, meter.noise, seen)
            else:
                excess[goal.kind] = excess.get(goal.kind, 0.0) + off[goal.kind]
    assert best is not None
    asked = question(groups, scores, options, costs=costs, multiples=multiples)
    told = (replace(g, why=_why(asked, best, g, seen)) if meters[g.kind].noise else g for g in best.goals)
    return replace(best, goals=tuple(told))


def _aim(asked: Question, goal: Goal, noise: float, seen: Sequence[Selection]) -> float:
    """The limit on what is expected for which the limit on what is measured holds by the noise of measurements.

    Where that turned out to be out of reach, by the least that is expected and the noise: nothing goes for savings that
    no run shows.

    Args:
        asked: with costs that are corrected by what was measured.
        goal: the budget.
        noise: what measurements differ by.
        seen: what was selected and measured so far.
    """
    measure = asked.cost(goal.kind)
    known = [(goal.before, goal.before)]
    too_much = [np.inf]
    for selection in seen:
        measured = next(one for one in selection.goals if one.kind == goal.kind)
        known.append((measured.reached, measure.total(selection.counts)))
        if not measured.met:
            too_much.append(known[-1][1] * (1 - SAME))
    aim = min(_expected_at(known, goal.most * (1 - noise)), *too_much)
    if _extreme(asked, seen) is not None:
        aim = max(aim, measure.total(asked.problems[-1].most) * (1 + noise))
    return float(aim)


def _extreme(asked: Question, seen: Sequence[Selection]) -> Selection | None:
    """What was measured where as much goes as the options allow."""
    most = asked.problems[-1].most
    return next((selection for selection in seen if np.array_equal(selection.counts, most)), None)


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


def _is_near(goal: Goal) -> bool:
    return goal.reached >= goal.most * (1 - CLOSE)


def _why(asked: Question, best: Selection, goal: Goal, seen: Sequence[Selection]) -> str:
    """What keeps a measured cost from being met closely; empty where it is."""
    if goal.met and _is_near(goal):
        return ""
    problem = asked.problems[-1]
    measure = asked.cost(goal.kind)
    if not goal.met:
        extreme = _extreme(asked, seen)
        if extreme is None:
            return f"of {len(seen)} models that were measured none was below"
        least = next(one.reached for one in extreme.goals if one.kind == goal.kind)
        return f"{least / goal.before:.0%} was measured where as much goes as the options allow"
    wider, held = _given_back(asked, problem, best.counts, goal.kind)
    if not wider:
        return "another budget holds" if held else "every group is whole"
    least = min(map(measure.total, wider))
    if least > goal.most:
        return f"the next wider model is expected at {least / goal.before:.1%}: widths go in steps"
    return (
        f"of {len(seen)} models that were measured none was closer: times of runs differ by more than steps of widths"
    )


def _given_back(asked: Question, problem: Problem, counts: Array, kind: str) -> tuple[list[Array], bool]:
    """`counts` with a step of one group given back, wherever other budgets allow that, and whether one did not."""
    others = [(goal, measure) for goal, measure in asked.goals if goal.kind != kind]
    found, held = [], False
    for group, menu in enumerate(problem.menus):
        place = int(np.searchsorted(menu, counts[group]))
        if place:
            fewer = counts.copy()
            fewer[group] = menu[place - 1]
            if all(within(measure.total(fewer), goal.most) for goal, measure in others):
                found.append(fewer)
            else:
                held = True
    return found, held


def _is_better(new: Selection, old: Selection, meters: Mapping[str, Meter]) -> bool:
    """Whether budgets are met, or by less is missed what is missed most; of two that meet them, the larger.

    Of two that miss by the same but for the noise of measurements, the one with less damage.
    """
    shares = [max(goal.reached / (goal.most or 1) for goal in selection.goals) for selection in (new, old)]
    if new.met != old.met:
        return new.met
    if new.met:
        return shares[0] >= shares[1]
    noise = max(meters[goal.kind].noise for goal in new.goals)
    return new.damage < old.damage if abs(shares[0] / shares[1] - 1) <= noise else shares[0] < shares[1]


def _is_close(found: Selection, meters: Mapping[str, Meter]) -> bool:
    """Whether budgets are met, and a cost that is measured with noise is as close as makes sense."""
    noisy = [goal for goal in found.goals if meters[goal.kind].noise]
    return bool(noisy) and found.met and any(_is_near(g) for g in noisy)


def reached(goals: tuple[Goal, ...], model: Model, cut: Cut, meters: Mapping[str, Meter] = METERS) -> tuple[Goal, ...]:
    """The goals, with what a model has reached."""
    return tuple(_reached(goal, model, cut, meters[goal.kind]) for goal in goals)


def _reached(goal: Goal, model: Model, cut: Cut, meter: Meter) -> Goal:
    if meter.actual is None:
        return goal
    found = replace(goal, reached=meter.actual(model, cut))
    if not meter.noise or (found.met and _is_near(found)):
        return replace(found, why="")
    return found if found.why else replace(found, why="measured again, it differs from what was measured before")
