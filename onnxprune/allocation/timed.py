"""Budgets on latency: expected times from tables of the machine, corrected by measured runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.allocation import fit_budgets
from onnxprune.allocation.exchanges import exchanges
from onnxprune.allocation.kinds import KINDS, BudgetKind
from onnxprune.allocation.options import Options
from onnxprune.allocation.selection import Selection, allowed_counts, question, selection_of
from onnxprune.cost import AxisLengths, latency, units_in_order
from onnxprune.model import Model
from onnxprune.runtime.bench import Place
from onnxprune.tracing import Groups
from onnxprune.typing import Array


@dataclass(frozen=True)
class GroupTime:
    """What a group has to do with the time of a run.

    Attributes:
        seconds: what the contractions take that shrink with it.
        saved: how much less they take if half of its units go, rounded as below.
        multiple: what its width is best rounded to.
    """

    seconds: float
    saved: float
    multiple: int


def group_times(groups: Groups, place: Place, progress: Callable[[str], object]) -> dict[str, GroupTime]:
    """What every group has to do with the time of a run, by its name; measured.

    Raises:
        RunError: the model does not run.
    """
    order = {g.name: units_in_order(g, np.zeros(groups.classes.count)) for g in groups.groups}
    prediction = latency.Timer(groups.model, place, progress).expected(AxisLengths(groups, order))
    nothing, multiples = np.zeros(len(groups.groups), np.int64), latency.alignments(prediction)
    found = {}
    for index, group in enumerate(groups.groups):
        allowed = allowed_counts(group, group.units, multiples[group.name])
        half = allowed[np.abs(allowed - group.units / 2).argmin()]
        whole, left = prediction.changed(nothing, index, np.array([0, half]))[1].sum(axis=1) * prediction.scale
        found[group.name] = GroupTime(float(whole), float(whole - left), multiples[group.name])
    return found


def needs_tables(options: Options) -> bool:
    """Whether what is asked for depends on the machine."""
    return options.is_aligned or options.is_timed


@dataclass(frozen=True, eq=False)
class BudgetFitter:
    """How budgets are fitted on a machine; without a timer, what the machine says plays no part.

    Attributes:
        groups: the traced model.
        scores: float64[classes].
        options: what to prune.
        timer: times the model.
    """

    groups: Groups
    scores: Array
    options: Options
    timer: latency.Timer | None

    @classmethod
    def of(
        cls, groups: Groups, scores: Array, options: Options, place: Place | None, progress: Callable[[str], object]
    ) -> BudgetFitter:
        """With a timer where there is a place, or the options ask for one."""
        needed = place is not None or needs_tables(options)
        return cls(groups, scores, options, latency.Timer(groups.model, place or Place(), progress) if needed else None)

    def fit(self, reserve: Mapping[str, float] | None = None) -> Selection:
        """The units that go so that all budgets hold; see `fit_budgets.fit`."""
        return fit_budgets.fit(
            self.groups, self.scores, self.options, kinds=self.kinds, reserve=reserve, multiples=self.rounded_to
        )

    def exchanges(self, selection: Selection) -> Iterator[tuple[tuple[int, int], Selection]]:
        """Pairs of groups, and the selections after one gave to the other; see `exchanges.exchanges`."""
        asked = question(self.groups, self.scores, self.options, kinds=self.kinds, multiples=self.rounded_to)
        slack = [goal.most - goal.reached for goal in selection.goals]
        for one in exchanges(asked, selection.counts, slack):
            yield one.pair, selection_of(self.groups, asked, asked.problems[-1], one.counts, {})

    @property
    def rounded_to(self) -> Mapping[str, int]:
        """What the widths of groups are rounded to where the options leave it to the machine."""
        return self.multiples if self.options.is_aligned else {}

    @cached_property
    def kinds(self) -> Mapping[str, BudgetKind]:
        """The kinds of budgets, timed kinds with the functions of the machine."""
        timer = self.timer
        if timer is None:
            return KINDS
        return {name: _timed(kind, timer) if kind.is_timed else kind for name, kind in KINDS.items()}

    def timed(self, removed: Mapping[str, Array], small: Model, damage: float | None = None) -> latency.Timed | None:
        """The time of the smaller model that remains if `removed` goes, beside the damage; None without a timer."""
        if self.timer is None:
            return None
        before, predicted = self.timer.before, None
        if needs_tables(self.options):
            counts = [len(removed.get(g.name, ())) * g.units // len(g.classes) for g in self.groups.groups]
            predicted = self.timer.expected(self.widths).total(np.array(counts, np.int64)) / before
        return latency.Timed(before, self.timer.compared(small), predicted, self.timer.place, damage)

    @cached_property
    def widths(self) -> AxisLengths:
        """The model as a function of how many units every group loses."""
        return AxisLengths(self.groups, {g.name: units_in_order(g, self.scores) for g in self.groups.groups})

    @cached_property
    def multiples(self) -> Mapping[str, int]:
        """What the width of every group is best rounded to, by its name; nothing without a timer."""
        return latency.alignments(self.timer.expected(self.widths)) if self.timer else {}


def _timed(kind: BudgetKind, timer: latency.Timer) -> BudgetKind:
    """The kind with the functions of a machine."""
    return replace(
        kind,
        cost=timer.expected,
        measured=lambda model, removal: timer.seconds(model),
        correct=timer.correct,
        original=lambda: timer.before,
    )
