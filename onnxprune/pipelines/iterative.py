"""Iterative pruning: a part of the units goes, the rest is recovered and scored again, until all have gone.

Criteria look at the model as it is; after half of a removal, and its recovery, other units may matter least.
The result are scores of the original's units, in the order in which they went: the cut, its proof and the recovery
at the end are of the original, as in one step, so that no recovery is built on another. Only what is trained between
two steps is carried over, as the weights that the next recovery begins with.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from onnxprune import __version__, calibration, criteria
from onnxprune.allocation import BudgetFitter, Options, named_rows
from onnxprune.cost import units_in_order
from onnxprune.model import Model
from onnxprune.progress import WorkPart
from onnxprune.recovery import RecoveryOptions, RecoveryReport, recover
from onnxprune.rewriting import Removal, io_changes, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Journal, key_of
from onnxprune.runtime.bench import Place
from onnxprune.tracing import Groups, trace
from onnxprune.typing import Array

if TYPE_CHECKING:
    from onnxprune.recovery import Training, TrainingOptions

logger = logging.getLogger(__name__)

# The form of kept scores: another number where the same inputs give others.
SCORES = 1

# From the share of the steps that are done, and the share of units that go in the end, to the share of these that are
# gone by then. Cubic: Zhu and Gupta, "To prune, or not to prune", 2017, section 3.
PARTS: Mapping[str, Callable[[float, float], float]] = {
    "linear": lambda done, _: done,
    "cubic": lambda done, _: cubic(done),
    "geometric": lambda done, share: (1 - (1 - share) ** done) / share if 0 < share < 1 else done,
}


def cubic(done: float) -> float:
    """The share that is gone when a share of the steps is done, of a course that slows down with the third power."""
    return 1 - (1 - min(done, 1.0)) ** 3


# Recovers what a cut leaves of the original.
Recovering = Callable[[Removal, Model], tuple[Model, RecoveryReport | None]]


@dataclass(frozen=True, eq=False)
class CarriedWeights:
    """A model that was trained after a part of the removal.

    Attributes:
        removal: what was gone by then.
        model: the model.
    """

    removal: Removal
    model: Model

    def onto(self, removal: Removal, small: Model) -> Model:
        """Give a model with less left the weights of this one.

        Args:
            removal: a later part of the same removal.
            small: what it leaves of the original.

        Returns:
            The same graph; weights that only one of the two has stay as they are.
        """
        from onnxprune.autodiff import write_back  # only who trains waits for it

        before, after = self.removal.masks(), removal.masks()
        original, values = self.removal.groups.model, dict[str, Array]()
        for name in small.initializers.keys() & self.model.initializers.keys() & original.initializers.keys():
            whole, trained = original.array(name).copy(), self.model.array(name)
            was, now = (masks.get(name, np.ones(whole.shape, bool)) for masks in (before, after))
            shape = tuple(small.initializers[name].dims)
            if whole.dtype.kind == "f" and was.sum() == trained.size and now.sum() == np.prod(shape, dtype=int):
                whole[was] = trained.reshape(-1)
                values[name] = whole[now].reshape(shape)
        return write_back(small, values)


@dataclass(frozen=True, eq=False)
class ScoredUnits:
    """What says which units go.

    Attributes:
        scores: float64[classes]; where units were chosen while training, within each group the numbers of the first
            scores, in the order that training found.
        carried: the model that was trained on the way; None if none was.
        training: what steps did in which units were chosen; None if there were none.
        left: the steps that are to be made after the cut; None for none.
    """

    scores: Array
    carried: CarriedWeights | None
    training: Training | None = None
    left: TrainingOptions | None = None


def carrying(carried: CarriedWeights | None, recovering: Recovering) -> Recovering:
    """Let a recovery begin with the weights that were carried, if any were."""
    return recovering if carried is None else lambda removal, small: recovering(removal, carried.onto(removal, small))


def scored(
    groups: Groups,
    options: Options,
    runs: Sequence[Mapping[str, Array]],
    recovery: RecoveryOptions,
    place: Place | None = None,
    *,
    progress: Callable[[str], None] = logger.info,
) -> tuple[Array, CarriedWeights | None]:
    """Score all classes, in as many steps as the options say.

    Args:
        groups: the traced original.
        options: what to prune, and in how many steps.
        runs: calibration inputs; without any, nothing is recovered between two steps.
        recovery: how to recover between two steps, and how to train.
        place: where times are measured, if the options ask for any.
        progress: is told about long work.

    Returns:
        float64[classes], and the model that was trained last; None if none was.
    """
    scores = first_scores(groups, options, runs, progress)
    if options.steps == 1:
        return scores, None
    going = units_to_go(groups, scores, options, place, progress)
    part, carried = PARTS[options.step_schedule], None
    for step in range(1, options.steps):
        progress(WorkPart.of("step", step, options.steps))
        removal = Removal(groups, going.first(scores, partial(part, step / options.steps)))
        small = rewrite(groups, removal.removed_classes)
        small = small if carried is None else carried.onto(removal, small)
        if runs and recovery.can_act(data=True):
            small, _ = recover(removal, small, runs, recovery, progress=progress)
        if recovery.train is not None or recovery.tune is not None:
            from onnxprune.pipelines.train import train_after

            small = train_after(removal, small, runs, recovery.numbered(step), progress=progress)[0]
            carried = CarriedWeights(removal, small)
        inner = _traced_like(groups, small)
        fresh = first_scores(inner, options, [io_changes.feeds(removal, feeds) for feeds in runs], progress)
        scores = _taken_over(groups, removal.removed_classes, scores, inner, fresh)
    return scores, carried


def _traced_like(groups: Groups, small: Model) -> Groups:
    """A smaller model, traced as the original was."""
    return trace(
        small,
        heads=groups.heads,
        head_dims=groups.head_dims,
        allow_io_changes=groups.allow_io_changes,
        sizes=dict(groups.static.sizes),
    )


def first_scores(
    groups: Groups, options: Options, runs: Sequence[Mapping[str, Array]], progress: Callable[[str], None]
) -> Array:
    """Scores of all classes by the criterion of the options, float64[classes]; those that are kept where they are."""
    given = (options.criterion, options.seed, runs, options.aggregate)
    compared = options.strategy != "uniform"
    if options.cache is None or callable(options.criterion):  # no name says what a function of one's own does
        return criteria.score(groups, *given, compared=compared, progress=progress)
    journal, key = Journal(options.cache), _key_of_scores(groups, options, runs)
    found = journal.get(key)
    if isinstance(found, list) and len(found) == groups.classes.count:
        progress("scores are known")
        return np.array(found, np.float64)
    scores = criteria.score(groups, *given, compared=compared, progress=progress)
    journal.put(key, scores.tolist(), {"scores": options.criterion})
    return scores


def _key_of_scores(groups: Groups, options: Options, runs: Sequence[Mapping[str, Array]]) -> str:
    """What scores depend on: budgets, and what is kept, are no part of that."""
    asked = {name: getattr(options, name) for name in ("criterion", "seed", "aggregate")}
    return key_of(
        scores=SCORES,
        version=__version__,
        model=groups.model.digest,
        data=calibration.digest(runs),
        units=[hashlib.sha256(x.tobytes()).hexdigest() for x in (groups.classes.of, groups.group_of)],
        compared=options.strategy != "uniform",
        **asked,
    )


@dataclass(frozen=True, eq=False)
class UnitsToGo:
    """How many units of every group go in the end; which ones is open.

    Attributes:
        groups: the traced original.
        counts: group -> how many of its units go; groups whose rows are named have no order, and are not there.
    """

    groups: Groups
    counts: Mapping[str, int]

    def first(self, scores: Array, part: Callable[[float], float]) -> Array:
        """Choose the units that go first.

        Args:
            scores: float64[classes].
            part: from the share of a group's units that go in the end to the share of these that are gone.

        Returns:
            bool[classes].
        """
        first = {}
        for group in self.groups.groups:
            if (count := self.counts.get(group.name, 0)) > 0:
                order = units_in_order(group, scores)
                first[group.name] = order[: int(count * part(count / len(order)) + 1e-9)].reshape(-1)
        return removed_classes(self.groups, first)


def units_to_go(
    groups: Groups, scores: Array, options: Options, place: Place | None, progress: Callable[[str], None]
) -> UnitsToGo:
    """Settle by the first scores how many units of every group go, so that all budgets hold."""
    removed = BudgetFitter.of(groups, scores, options, place, progress).fit().removed
    named, _ = named_rows.removed(groups, options.rows)
    going = [g for g in groups.groups if g.name in removed and g.name not in named]
    return UnitsToGo(groups, {g.name: len(removed[g.name]) * g.units // len(g.classes) for g in going})


def _taken_over(groups: Groups, removed: Array, scores: Array, inner: Groups, fresh: Array) -> Array:
    """The scores, with fresh ones for what is left, behind all of the same group that went."""
    scores, found = scores.copy(), {g.name: g for g in inner.groups}
    for group in groups.groups:
        left, went = group.classes[~removed[group.classes]], group.classes[removed[group.classes]]
        now = found.get(group.name)
        if now is None or len(now.classes) != len(left):  # it is no such group any more: the former scores stay
            continue
        scores[left] = fresh[now.classes] if not len(went) else _placed_behind(scores[went], fresh[now.classes])
    return scores


def _placed_behind(gone: Array, fresh: Array) -> Array:
    """Fresh scores in their order, none below the largest of the units that went before."""
    return np.asarray(fresh - min(fresh.min(), 0) + gone.max())
