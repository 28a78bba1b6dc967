"""Selections that meet their budgets once the model is written: expected costs are corrected by measured ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    def removal(self) -> Removal:
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
        goals = reached(selection.goals, finished.model, finished.removal, kinds)
        reserve = _errors(selection, replace(selection, goals=goals))
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
    fitting = _Fitting(groups, scores, options, kinds=kinds, reserve=reserve or {}, multiples=multiples)
    overshoot, tried = fitting.reserve, list[Selection]()
    for _ in range(CORRECTIONS):
        expected = fitting.select(overshoot)
        if not any(kinds[goal.kind].measured for goal in expected.goals):
            return expected
        if any(np.array_equal(expected.counts, measured.counts) for measured in tried):
            break
        try:
            measured, small = fitting.measure(expected)
        except ModelError:  # the proof finds the group that no node can follow, and rolls it back
            return expected
        tried.append(measured)
        if not any(_errors(expected, measured).values()) or _is_close(measured, kinds):
            break
        overshoot = fitting.correct(overshoot, expected, tried, small)
    best = reduce(lambda best, new: new if _is_better(new, best, kinds) else best, tried)
    asked = fitting.question()
    told = (replace(g, why=_why(asked, best, g, tried)) if kinds[g.kind].noise else g for g in best.goals)
    return replace(best, goals=tuple(told))


@dataclass(frozen=True, eq=False)
class _Fitting:
    """A model that is fitted to budgets: units are selected, removed and measured.

    Attributes:
        groups: the traced model.
        scores: float64[classes].
        options: what to prune.
        kinds: the kinds of budgets, by their names.
        reserve: kind -> how much the model will gain after it was cut.
        multiples: group name -> what its width is rounded to, instead of what the options say.
    """

    groups: Groups
    scores: Array
    options: Options
    kinds: Mapping[str, BudgetKind]
    reserve: Mapping[str, float]
    multiples: Mapping[str, int] | None

    def select(self, overshoot: Mapping[str, float]) -> Selection:
        """Select units, for models that cost more by `overshoot` than is expected."""
        return select(
            self.groups, self.scores, self.options, kinds=self.kinds, overshoot=overshoot, multiples=self.multiples
        )

    def question(self) -> Question:
        """The budgets as functions of how many units every group loses, corrected by what was measured."""
        return question(self.groups, self.scores, self.options, kinds=self.kinds, multiples=self.multiples)

    def measure(self, expected: Selection) -> tuple[Selection, Model]:
        """Carry a selection out.

        Returns:
            (the selection with the costs that were measured, and what is reserved; the smaller model).

        Raises:
            ModelError: a node cannot take the sizes that are left.
        """
        removal = Removal(self.groups, removed_classes(self.groups, expected.removed))
        small = rewrite(self.groups, removal.removed_classes)
        written = reached(expected.goals, small, removal, self.kinds)
        goals = (replace(goal, reached=goal.reached + self.reserve.get(goal.kind, 0.0)) for goal in written)
        return replace(expected, goals=tuple(goals)), small

    def correct(
        self, overshoot: Mapping[str, float], expected: Selection, tried: Sequence[Selection], small: Model
    ) -> dict[str, float]:
        """Correct the overshoot of every kind by what the last selection was measured to cost.

        Args:
            overshoot: kind -> what the last selection reckoned with.
            expected: the last selection with the costs that were expected.
            tried: all selections with the costs that were measured.
            small: the model of the last selection.
        """
        corrected, errors = dict(overshoot), _errors(expected, tried[-1])
        for goal in tried[-1].goals:
            kind = self.kinds[goal.kind]
            if not kind.noise:
                corrected[goal.kind] = corrected.get(goal.kind, 0.0) + errors[goal.kind]
                continue
            if kind.correct:
                kind.correct(small, expected.counts)
            corrected[goal.kind] = goal.most - _aim(self.question(), goal, kind.noise, tried)
        return corrected


def _errors(expected: Selection, measured: Selection) -> dict[str, float]:
    """Kind -> how much more was measured than was expected."""
    return {new.kind: new.reached - old.reached for old, new in zip(expected.goals, measured.goals, strict=True)}


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
    whole = expected.total(np.zeros_like(tried[-1].counts))
    points, too_much = [(whole, whole)], [np.inf]
    for selection in tried:
        measured = next(one for one in selection.goals if one.kind == goal.kind)
        points.append((measured.reached, expected.total(selection.counts)))
        if not measured.met:
            too_much.append(points[-1][1] * (1 - SAME))
    aim = min(expected_at(points, goal.most * (1 - noise)), *too_much)
    if _extreme(asked, tried) is not None:
        aim = max(aim, expected.total(asked.problems[-1].most) * (1 + noise))
    return float(aim)


def _extreme(asked: Question, tried: Sequence[Selection]) -> Selection | None:
    """The measured selection that removes as much as the options allow, if there is one."""
    most = asked.problems[-1].most
    return next((selection for selection in tried if np.array_equal(selection.counts, most)), None)


def expected_at(points: Sequence[tuple[float, float]], wanted: float) -> float:
    """The expected cost where `wanted` will be measured: linear between the points, in proportion below the least.

    Args:
        points: (measured, expected) costs.
        wanted: a measured cost.

    Returns:
        The expected cost.
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
    for group, allowed in enumerate(problem.allowed_counts):
        place = int(np.searchsorted(allowed, counts[group]))
        if place:
            fewer = counts.copy()
            fewer[group] = allowed[place - 1]
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
    goals: tuple[BudgetResult, ...], model: Model, removal: Removal, kinds: Mapping[str, BudgetKind]
) -> tuple[BudgetResult, ...]:
    """The goals, with what a model has reached."""
    return tuple(_reached(goal, model, removal, kinds[goal.kind]) for goal in goals)


def _reached(goal: BudgetResult, model: Model, removal: Removal, kind: BudgetKind) -> BudgetResult:
    if kind.measured is None:
        return goal
    found = replace(goal, reached=kind.measured(model, removal))
    if not kind.noise or (found.met and _is_near(found)):
        return replace(found, why="")
    return found if found.why else replace(found, why="measured again, it differs from what was measured before")
