"""Select the units to remove: which may go, in which numbers, and how budgets and ratios decide between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np

from onnxprune import criteria
from onnxprune.allocation import named_rows as rows
from onnxprune.allocation.amount import Amount
from onnxprune.allocation.kinds import KINDS, BudgetKind
from onnxprune.allocation.options import Options
from onnxprune.allocation.strategies import STRATEGIES, Limit, Problem, allocate, within
from onnxprune.cost import AxisLengths, units_in_order
from onnxprune.cost.functions import CostFunction, Units
from onnxprune.criteria import accumulated, normalized
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.tracing import Group, Groups
from onnxprune.typing import Array


def touches(group: Group, glob: str) -> bool:
    """Whether `glob` matches the name of the group or of a weight, input or output that it cuts."""
    cut = [m.tensor for m in group.members] + [name for name, _ in group.io]
    return fnmatchcase(group.name, glob) or any(fnmatchcase(name, glob) for name in cut)


def named(groups: Sequence[Group], glob: str) -> frozenset[str]:
    """The groups whose name matches `glob`; where there is none, those that cut a weight whose name does."""
    found = frozenset(g.name for g in groups if fnmatchcase(g.name, glob))
    return found or frozenset(g.name for g in groups if touches(g, glob))


@dataclass(frozen=True)
class BudgetResult:
    """A budget, and what was reached.

    Attributes:
        kind: name of the kind of budget, as in `kinds.KINDS`.
        most: what was allowed.
        reached: what the smaller model has.
        before: what the original has.
        why: what keeps a cost that is measured from coming closer to the limit; empty where it is close.
    """

    kind: str
    most: float
    reached: float
    before: float
    why: str = ""

    @property
    def met(self) -> bool:
        """Whether the budget holds."""
        return within(self.reached, self.most)


@dataclass(frozen=True)
class Selection:
    """What goes.

    Attributes:
        removed: group name -> sorted indices into `group.classes`, for every group that loses something.
        goals: the budgets, with what the selection is expected to reach.
        counts: int[groups], how many units every group loses; of groups that lose named rows 0.
        damage: share of the importance of all units, by their scores, that goes with them.
    """

    removed: Mapping[str, Array]
    goals: tuple[BudgetResult, ...] = ()
    counts: Array = field(default_factory=lambda: np.empty(0, np.int64), compare=False)
    damage: float = 0.0

    @property
    def met(self) -> bool:
        """Whether all budgets hold."""
        return all(goal.met for goal in self.goals)


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be selected from, before it is known how much.

    Attributes:
        widths: lengths as functions of what groups lose, least important units first.
        goals: the budgets, with their costs as functions of widths; of none anything is reached.
        named_rows: group -> indices into its classes that go because their rows are named.
        problems: what is to be allocated without limits: each takes more of a group than the one before, and is for
            limits that the one before cannot hold.
    """

    widths: AxisLengths
    goals: Sequence[tuple[BudgetResult, CostFunction]]
    named_rows: Mapping[str, Array]
    problems: Sequence[Problem]

    def cost(self, kind: str) -> CostFunction:
        """What a budget limits."""
        return next(measure for goal, measure in self.goals if goal.kind == kind)


def _nothing(groups: Groups) -> str:
    """Why nothing is selected."""
    if not groups.groups:
        return "no removable group was found"
    if all(group.units == 1 for group in groups.groups):
        return "every group is one unit, which must stay: its positions depend on each other"
    return "the options leave no group"


def question(
    groups: Groups,
    scores: Array,
    options: Options,
    *,
    kinds: Mapping[str, BudgetKind] = KINDS,
    multiples: Mapping[str, int] | None = None,
    parts: Sequence[Collection[str]] = (),
) -> Question:
    """What `select` selects from; the arguments are those of `select`, and the `parts` of `AxisLengths`.

    Raises:
        UsageError: a glob matches no group, or rows that are named must stay.
        GoalMissed: there is nothing to prune.
    """
    _check_globs(groups, options)
    named_rows, held = rows.removed(groups, options.rows)
    open_groups = open_to_pruning(groups, options) - held
    if not named_rows and not any(g.units > 1 for g in groups.groups if g.name in open_groups):
        raise GoalMissed(
            f"nothing can be pruned: {_nothing(groups)}",
            hint="`onnxprune inspect` lists the groups, and the reason for every weight that is locked",
        )
    order = {g.name: units_in_order(g, scores) for g in groups.groups if g.name in open_groups}
    widths = AxisLengths(groups, order, parts)
    nothing = np.zeros(widths.count, np.int64)
    goals = [_goal(kinds[kind], amount, widths, nothing) for kind, amount in options.budgets.items()]
    caps = (replace(options, max_ratio=most) for most in options.caps)
    problems = [_problem(groups, scores, capped, widths, multiples or {}) for capped in caps]
    return Question(widths, goals, named_rows, problems)


def select(
    groups: Groups,
    scores: Array,
    options: Options,
    *,
    kinds: Mapping[str, BudgetKind] = KINDS,
    overshoot: Mapping[str, float] | None = None,
    multiples: Mapping[str, int] | None = None,
) -> Selection:
    """Select the units that go.

    Args:
        groups: the traced model.
        scores: float64[classes].
        options: what to prune.
        kinds: the kinds of budgets, by their names.
        overshoot: kind -> how much more than expected a model is known to have.
        multiples: group name -> what its width is rounded to, instead of what the options say.

    Returns:
        The units that go, and the budgets with the costs that are expected.

    Raises:
        UsageError: a glob matches no group, or rows that are named must stay.
        GoalMissed: there is nothing to prune.
    """
    asked, more = question(groups, scores, options, kinds=kinds, multiples=multiples), overshoot or {}
    limits = [Limit(measure, goal.most - more.get(goal.kind, 0.0)) for goal, measure in asked.goals]
    for problem in (replace(problem, limits=limits) for problem in asked.problems):
        counts = _counts(problem, options)
        if problem.holds(counts):
            break
    return selection_of(groups, asked, problem, counts, more)


def selection_of(
    groups: Groups, asked: Question, problem: Problem, counts: Array, more: Mapping[str, float]
) -> Selection:
    """Say which units go, and what that costs.

    Args:
        groups: the traced model.
        asked: what is selected from.
        problem: one of its problems.
        counts: int[groups], how many units every group loses.
        more: kind -> how much more than expected a model is known to have.

    Returns:
        The units that go, and the budgets with the costs that are expected.
    """
    reached = (replace(g, reached=m.total(counts) + more.get(g.kind, 0.0)) for g, m in asked.goals)
    removed = dict(asked.named_rows)
    for group, count in zip(groups.groups, counts, strict=True):
        if count:
            removed[group.name] = np.sort(asked.widths.order[group.name][:count].reshape(-1))
    whole = sum(float(damage[-1]) for damage in problem.damage)
    lost = sum(float(damage[count]) for damage, count in zip(problem.damage, counts, strict=True))
    return Selection(removed, tuple(reached), counts, lost / whole if whole else 0.0)


def _goal(kind: BudgetKind, amount: Amount, widths: AxisLengths, nothing: Array) -> tuple[BudgetResult, CostFunction]:
    measure = kind.cost(widths)
    before = measure.total(nothing) if kind.original is None else kind.original()
    return BudgetResult(kind.name, amount.limit(before), before, before), measure


def _check_globs(groups: Groups, options: Options) -> None:
    for option, globs in (("keep", options.keep), ("only", options.only), ("ratios", options.ratios)):
        for glob in globs:
            if not any(touches(g, glob) for g in groups.groups):
                some = ", ".join(repr(g.name) for g in groups.groups[:3])
                raise UsageError(
                    f"{option}: {glob!r} matches no group",
                    hint=f"groups are named like {some}; see `onnxprune inspect`",
                )


def open_to_pruning(groups: Groups, options: Options) -> frozenset[str]:
    """The groups that the options leave to be pruned."""
    only = frozenset().union(*(named(groups.groups, glob) for glob in options.only))
    return frozenset(g.name for g in groups.groups if _is_open(g, only, options))


def max_counts(groups: Groups, options: Options) -> Array:
    """Say how many units the groups may lose; rows that are named, and what a machine likes, apart.

    Args:
        groups: the traced model.
        options: what may be pruned.

    Returns:
        int64[groups], the most units of each.
    """
    ratios, may = _ratios(groups, options), open_to_pruning(groups, options)
    allowed_counts = (
        _allowed_by_options(g, g.units if g.name in may else 0, ratios.get(g.name), options, options.multiple)
        for g in groups.groups
    )
    return np.array([allowed[-1] for allowed in allowed_counts], np.int64)


def _ratios(groups: Groups, options: Options) -> dict[str, float]:
    """Group name -> its own ratio."""
    return {name: value for glob, value in options.ratios.items() for name in named(groups.groups, glob)}


def _is_open(group: Group, only: frozenset[str], options: Options) -> bool:
    if options.exact_only and not group.exact:
        return False
    if options.only and group.name not in only:
        return False
    return not any(touches(group, glob) for glob in options.keep)


def _problem(
    groups: Groups, scores: Array, options: Options, widths: AxisLengths, multiples: Mapping[str, int]
) -> Problem:
    """Menus, comparable scores and damage of all groups; limits are to be added."""
    ratios = _ratios(groups, options)
    known = criteria.known(options.criterion)
    allowed_counts, values, damage = [], [], []
    for index, group in enumerate(groups.groups):
        units = widths.units(index)
        own = scores[group.classes][widths.order[group.name]].mean(axis=1) if units else np.empty(0)
        values.append(normalized(own, options.normalize or known.normalize) if units else own)
        damage.append(accumulated(own, known.accumulates))
        multiple = multiples.get(group.name, options.multiple)
        allowed_counts.append(_allowed_by_options(group, units, ratios.get(group.name), options, multiple))
    return Problem(np.array([widths.units(i) for i in range(len(damage))]), allowed_counts, values, damage, ())


def _allowed_by_options(group: Group, units: int, ratio: float | None, options: Options, multiple: int) -> Array:
    """The numbers of units that a group may lose, ascending; where its ratio is named, one number."""
    share = ratio if ratio is not None else 1.0 if options.is_plain else options.max_ratio
    counts = allowed_counts(group, min(int(share * units + 1e-9), units - 1) + 1, multiple)
    return counts if ratio is None else counts[-1:]


def allowed_counts(group: Group, limit: int, multiple: int) -> Array:
    """The numbers of units below `limit` that leave the width of a group as it is, or a multiple; ascending."""
    counts = np.arange(max(1, limit))
    if group.kind == "head":
        return counts
    per_unit = max(1, group.members[0].positions // group.units)
    return np.asarray(counts[((group.members[0].size - counts * per_unit) % multiple == 0) | (counts == 0)])


def _counts(problem: Problem, options: Options) -> Array:
    """How many units every group loses."""
    if options.is_plain:
        return STRATEGIES["uniform"](problem)(options.share)
    limits = list(problem.limits)
    if options.share:
        # Named ratios are apart: the others lose their share of the others.
        free = np.array(
            [n if len(allowed) > 1 else 0 for n, allowed in zip(problem.units, problem.allowed_counts, strict=True)]
        )
        limits.append(Limit(Units(free), float(free.sum() - int(options.share * free.sum() + 1e-9))))
    return allocate(replace(problem, limits=limits), options.strategy)
