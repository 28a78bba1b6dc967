"""Budgets that hold for the model as it is written: what was expected is corrected by what turned out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Protocol, TypeVar

import numpy as np

from onnxprune.allocation.kinds import KINDS, BudgetKind
from onnxprune.allocation.options import Options
from onnxprune.allocation.selection import BudgetResult, Question, Selection, question, select
from onnxprune.allocation.strategies import Problem, within
from onnxprune.errors import ModelError
from onnxprune.model import Model
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import Groups
from onnxprune.typing import Array

# Selections that are made again because the model turned out larger or smaller than was expected.
CORRECTIONS = 6
# Selections that are finished: the second one reserves room for what recovery added to the first (a bias where there
# was none).
FINISHES = 2
# A cost that is measured is close to its limit if it is no further below than this.
CLOSE = 0.05
# Costs that are expected to differ by less are the same.
SAME = 1e-6


class Finished(Protocol):
    """A selection that was carried out, proven and recovered."""

    @property
    def model(self) -> Model:
        """The smaller model."""

    @property
    def cut(self) -> Removal:
        """The removal, less the groups that failed their proof."""

    @property
    def rolled_back(self) -> Sequence[object]:
        """The groups that failed their proof."""


Result = TypeVar("Result", bound=Finished)


def fit_finished(
    select_with: Callable[[Mapping[str, float]], Selection],
    finish: Callable[[Selection], Result],
    kinds: Mapping[str, BudgetKind],
) -> tuple[Selection, Result]:
    """Select units so that all budgets hold for the finished model.

    Args:
        select_with: makes a selection with a reserve, as `fit` does.
        finish: carries a selection out, proves and recovers it.
        kinds: the kinds of budgets, by their names.

    Returns:
        (the selection, its goals with the costs that the finished model reaches; the finished model).
    """
    reserve = dict[str, float]()
    for _ in range(FINISHES):
        selection = select_with(reserve)
        finished = finish(selection)
        goals = reached(selection.goals, finished.model, finished.cut, kinds)
        reserve = {new.kind: new.reached - old.reached for old, new in zip(selection.goals, goals, strict=True)}
        if finished.rolled_back or not selection.met or all(goal.met for goal in goals):
            break
    return replace(selection, goals=goals), finished


def fit(
    groups: Groups,
    scores: Array,
    options: Options,
    *,
    kinds: Mapping[str, BudgetKind] = KINDS,
    reserve: Mapping[str, float] | None = None,
    multiples: Mapping[str, int] | None = None,
) -> Selection:
    """Select units so that all budgets hold for the model that is written.

    A selection is carried out and measured; the difference between measured and expected costs corrects the next one.

    Args:
        groups: the traced model.
        scores: float64[classes].
        options: what to prune.
        kinds: the kinds of budgets, by their names.
        reserve: kind -> how much the model will gain after it was cut.
        multiples: group name -> what its width is rounded to, instead of what the options say.

    Returns:
        The selection, its goals with what was reached; if not all are met, that is as little as can be reached.
    """
    reserve = reserve or {}
    overshoot, tried = dict(reserve), list[Selection]()
    for _ in range(CORRECTIONS):
        selection = select(groups, scores, options, kinds=kinds, overshoot=overshoot, multiples=multiples)
        if not any(kinds[goal.kind].measured for goal in selection.goals):
            return selection
        if any(np.array_equal(selection.counts, other.counts) for other in tried):
            break
        cut = Removal(groups, removed_classes(groups, selection.removed))
        try:
            small = rewrite(groups, cut.removed_classes)
        except ModelError:  # the proof finds the group that no node can follow, and rolls it back
            return selection
        written = reached(selection.goals, small, cut, kinds)
        goals = tuple(replace(goal, reached=goal.reached + reserve.get(goal.kind, 0.0)) for goal in written)
        tried.append(replace(selection, goals=goals))
        errors = {new.kind: new.reached - old.reached for old, new in zip(selection.goals, goals, strict=True)}
        if not any(errors.values()) or _is_close(tried[-1], kinds):
            break
        for goal in goals:
            kind = kinds[goal.kind]
            if not kind.noise:
                overshoot[goal.kind] = overshoot.get(goal.kind, 0.0) + errors[goal.kind]
                continue
            if kind.correct:
                kind.correct(small, selection.counts)
            asked = question(groups, scores, options, kinds=kinds, multiples=multiples)
            overshoot[goal.kind] = goal.most - _aim(asked, goal, kind.noise, tried)
    best = reduce(lambda best, new: new if _is_better(new, best, kinds) else best, tried)
    asked = question(groups, scores, options, kinds=kinds, multiples=multiples)
    told = (replace(g, why=_why(asked, best, g, tried)) if kinds[g.kind].noise else g for g in best.goals)
    return replace(best, goals=tuple(told))


def _aim(asked: Question, goal: BudgetResult, noise: float, tried: Sequence[Selection]) -> float:
    """The limit on the expected cost for which the measured cost holds its limit by the noise of measurements.

    No less than the least expected cost and the noise, once that was tried: nothing is removed for savings that no run
    shows.

    Args:
        asked: with costs that are corrected by the measurements.
        goal: the budget.
        noise: relative difference of two measurements.
        tried: the selections that were measured.
    """
    expected = asked.cost(goal.kind)
    points, too_much = [(goal.before, goal.before)], [np.inf]
    for selection in tried:
        measured = next(one for one in selection.goals if one.kind == goal.kind)
        points.append((measured.reached, expected.total(selection.counts)))
        if not measured.met:
            too_much.append(points[-1][1] * (1 - SAME))
    aim = min(_expected_at(points, goal.most * (1 - noise)), *too_much)
    if _extreme(asked, tried) is not None:
        aim = max(aim, expected.total(asked.problems[-1].most) * (1 + noise))
    return float(aim)


def _extreme(asked: Question, tried: Sequence[Selection]) -> Selection | None:
    """The measured selection that removes as much as the options allow, if there is one."""
    most = asked.problems[-1].most
    return next((selection for selection in tried if np.array_equal(selection.counts, most)), None)


def _expected_at(points: Sequence[tuple[float, float]], wanted: float) -> float:
    """The expected cost where `wanted` will be measured: linear between the points, in proportion below the least.

    Args:
        points: (measured, expected) costs.
        wanted: a measured cost.
    """
    measured, expected = np.array(sorted(points)).T
    if wanted < measured[0]:
        return float(expected[0] * wanted / measured[0])
    return float(np.interp(wanted, measured, expected))


def _is_near(goal: BudgetResult) -> bool:
    return goal.reached >= goal.most * (1 - CLOSE)


def _why(asked: Question, best: Selection, goal: BudgetResult, tried: Sequence[Selection]) -> str:
    """What keeps a measured cost from being met closely; empty where it is."""
    if goal.met and _is_near(goal):
        return ""
    problem = asked.problems[-1]
    measure = asked.cost(goal.kind)
    if not goal.met:
        extreme = _extreme(asked, tried)
        if extreme is None:
            return f"of {len(tried)} models that were measured none was below"
        least = next(one.reached for one in extreme.goals if one.kind == goal.kind)
        return f"{least / goal.before:.0%} was measured where as much goes as the options allow"
    wider, held = _given_back(asked, problem, best.counts, goal.kind)
    if not wider:
        return "another budget holds" if held else "every group is whole"
    least = min(map(measure.total, wider))
    if least > goal.most:
        return f"the next wider model is expected at {least / goal.before:.1%}: widths go in steps"
    return (
        f"of {len(tried)} models that were measured none was closer: times of runs differ by more than steps of widths"
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


def _is_better(new: Selection, old: Selection, kinds: Mapping[str, BudgetKind]) -> bool:
    """Whether budgets are met, or by less is missed what is missed most; of two that meet them, the larger.

    Of two that miss by the same but for the noise of measurements, the one with less damage.
    """
    shares = [max(goal.reached / (goal.most or 1) for goal in selection.goals) for selection in (new, old)]
    if new.met != old.met:
        return new.met
    if new.met:
        return shares[0] >= shares[1]
    noise = max(kinds[goal.kind].noise for goal in new.goals)
    return new.damage < old.damage if abs(shares[0] / shares[1] - 1) <= noise else shares[0] < shares[1]


def _is_close(found: Selection, kinds: Mapping[str, BudgetKind]) -> bool:
    """Whether budgets are met, and a cost that is measured with noise is as close as makes sense."""
    noisy = [goal for goal in found.goals if kinds[goal.kind].noise]
    return bool(noisy) and found.met and any(_is_near(g) for g in noisy)


def reached(
    goals: tuple[BudgetResult, ...], model: Model, cut: Removal, kinds: Mapping[str, BudgetKind]
) -> tuple[BudgetResult, ...]:
    """The goals, with what a model has reached."""
    return tuple(_reached(goal, model, cut, kinds[goal.kind]) for goal in goals)


def _reached(goal: BudgetResult, model: Model, cut: Removal, kind: BudgetKind) -> BudgetResult:
    if kind.measured is None:
        return goal
    found = replace(goal, reached=kind.measured(model, cut))
    if not kind.noise or (found.met and _is_near(found)):
        return replace(found, why="")
    return found if found.why else replace(found, why="measured again, it differs from what was measured before")
