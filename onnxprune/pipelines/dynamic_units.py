"""Units that are chosen while the model trains: what is masked may return, until it is cut.

The first scores say how many units of every group go, so that all budgets hold as they would in one step; training says
which. Masks grow with the cube of the steps that are left (Zhu and Gupta, "To prune, or not to prune", 2017, section 3)
and are loose: elements through which a masked unit is read are zero for the model alone, and keep learning (He et al.,
"Soft Filter Pruning", 2018, where what went is trained on, too). Then the units are cut, and the trained weights are
where the repair begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune import criteria
from onnxprune.allocation import Options
from onnxprune.autodiff import write_back
from onnxprune.cost.axis_lengths import units_in_order
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.layers.unit_reads import unit_reads
from onnxprune.model import Model
from onnxprune.pipelines import iterative
from onnxprune.pipelines.iterative import CarriedWeights, UnitsToGo, cubic, first_scores, units_to_go
from onnxprune.pipelines.train import learn_after
from onnxprune.proof import Verdict
from onnxprune.recovery import Masks, RecoveryOptions, Thinning, Training, TrainingOptions
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime.bench import Place
from onnxprune.tracing import Groups
from onnxprune.tracing.groups import retrace
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

Runs = Sequence[Mapping[str, Array]]
# The proof of a model, from the traced original, and what of a trace is removed.
Proving = Callable[[Groups, Callable[[Groups], Array], Model], tuple[Groups, Verdict]]
# Share of the steps in which units are chosen; the others train what is left of the model.
OPEN = 0.5
# Share of those by which as many are masked as will go, and how often they are chosen unless the options say.
FULL, TIMES = 0.7, 15
# What is kept of what gradients said before, when units are chosen.
MEMORY = 0.5

# From sums of weight times gradient over the elements that read a unit (the slope of the loss along a factor on the
# unit), and of their squares, to what is added up between two choices.
ACCUMULATED: Mapping[str, Callable[[Array, Array], Array]] = {
    "taylor": lambda slope, squares: np.square(slope),
    "fisher": lambda slope, squares: squares,
}
# What chooses where the criterion would need the data to be run through the model again.
WITHOUT_RUNS = "taylor"


class UnitThinning(Thinning):
    """Masks on units, chosen again and again."""

    def __init__(self, going: UnitsToGo, scores: Array, options: Options, training: TrainingOptions) -> None:
        """Prepare a course.

        Args:
            going: how many units of every group go in the end.
            scores: the first scores, float64[classes].
            options: with the criterion.
            training: with the steps, and how often units are chosen.

        Raises:
            UsageError: no weight reads a unit that goes.
        """
        self.going, self.groups, self.scores, self.options = going, going.groups, scores, options
        self.until = training.steps
        self.every = training.every or max(1, training.steps // TIMES)
        self.reads = unit_reads(self.groups, self.groups.model.initializers)
        if not any((~read.kept(self.gone())).any() for read in self.reads):
            raise UsageError("no weight reads the units that go, so they cannot be masked while training")
        self.how = accumulated(options.criterion)
        self.is_settled = False
        self._masked = np.zeros(len(scores), bool)
        self._seen, self._weight = np.zeros_like(scores), 0.0

    def target(self, weights: Mapping[str, Array]) -> Masks:
        """Masks on as many units as go in the end."""
        return self._masks(self.gone())

    def chosen(self, step: int, weights: Mapping[str, Array]) -> Masks | None:
        """New masks every so many steps."""
        if step % self.every or self.is_settled:
            return None
        self._score(weights)
        share = cubic(step / (FULL * self.until))
        self.is_settled = share >= 1
        return self._masks(self.gone(share))

    def gone(self, share: float = 1.0) -> Array:
        """bool[classes]: what is masked when a share of what goes is."""
        return self.going.first(self.scores, lambda _: share)

    def observe(self, weights: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
        """Add up what the gradients say of units."""
        if not self.how or self.is_settled:
            return
        slope, squares = np.zeros_like(self.scores), np.zeros_like(self.scores)
        for read in self.reads:
            if read.name in gradients:
                product = weights[read.name] * gradients[read.name]
                slope += read.sums(product, len(slope))
                squares += read.sums(np.square(product), len(slope))
        useful = ~self._masked | (slope < 0)  # what is masked is worth something if its return makes the loss less
        self._seen += ACCUMULATED[self.how](slope, squares) * useful
        self._weight += 1

    def _score(self, weights: Mapping[str, Array]) -> None:
        """Score the units by what is known by now."""
        if self.how:
            if self._weight:
                self.scores = self._seen / self._weight
                self._seen, self._weight = self._seen * MEMORY, self._weight * MEMORY
            return
        found = retrace(replace(self.groups, model=write_back(self.groups.model, weights)), self.groups.static.sizes)
        if np.array_equal(found.classes.of, self.groups.classes.of):
            self.scores = criteria.score(
                found, self.options.criterion, self.options.seed, aggregate=self.options.aggregate, compared=False
            )

    def _masks(self, gone: Array) -> Masks:
        masks, self._masked = dict[str, Array](), gone
        for read in self.reads:
            kept = read.kept(gone)
            masks[read.name] = masks[read.name] & kept if read.name in masks else kept
        return masks


def accumulated(criterion: object) -> str:
    """What of `ACCUMULATED` chooses units while training; empty where the criterion looks at the weights alone."""
    if isinstance(criterion, str) and criterion in ACCUMULATED:
        return criterion
    return WITHOUT_RUNS if criteria.known(criterion).needs_data else ""  # type: ignore[arg-type]


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


def _phases(training: TrainingOptions, options: Options) -> tuple[TrainingOptions, TrainingOptions]:
    """The steps in which units are chosen, and those that train what is left.

    Raises:
        UsageError: there are too few steps for both, or the units are to be chosen in rounds, too.
    """
    if options.steps > 1:
        raise UsageError(
            f"units are chosen while training ({training.while_training}), or in {options.steps} rounds",
            hint="leave out --while-training or --steps",
        )
    first = round(training.steps * OPEN)
    if first < 2 or training.steps - first < 1:
        raise UsageError("units cannot be chosen while training in so few steps", hint="give --train at least 4")
    return replace(training, steps=first), replace(training, steps=training.steps - first, while_training="")


def train_masked(
    groups: Groups,
    options: Options,
    runs: Runs,
    training: TrainingOptions,
    place: Place | None = None,
    *,
    progress: Callable[[str], None] = logger.info,
) -> ScoredUnits:
    """Train the original while its units are masked, more and more of them.

    Args:
        groups: the traced original.
        options: what to prune.
        runs: inputs.
        training: how to train.
        place: where times are measured, if the options ask for any.
        progress: is told about long work.

    Raises:
        UsageError: no unit that goes can be masked, or there are too few steps.
        ModelError: no weight can be trained, or an operator has no gradient.
    """
    first, left = _phases(training, options)
    scores = first_scores(groups, options, runs, progress)
    going = units_to_go(groups, scores, options, place, progress)
    thinning = UnitThinning(going, scores, options, first)
    nothing = Removal(groups, np.zeros(groups.classes.count, bool))
    model, done = learn_after(nothing, groups.model, runs, first, masks=thinning, progress=progress)
    return ScoredUnits(reordered(going, scores, thinning.scores), CarriedWeights(nothing, model), done, left)


def scored_units(
    groups: Groups,
    options: Options,
    runs: Runs,
    recovery: RecoveryOptions,
    place: Place | None = None,
    *,
    progress: Callable[[str], None] = logger.info,
) -> ScoredUnits:
    """Score all classes: before any training, in steps, or while the model trains; see `iterative.scored`."""
    if recovery.train is not None and recovery.train.while_training:
        return train_masked(groups, options, runs, recovery.train, place, progress=progress)
    scores, carried = iterative.scored(groups, options, runs, recovery, place, progress=progress)
    return ScoredUnits(scores, carried, left=recovery.train)


def reordered(going: UnitsToGo, scores: Array, order: Array) -> Array:
    """The scores, dealt out within each group in another order: how many units go by them stays as it is."""
    found = scores.copy()
    for group in going.groups.groups:
        first, then = (units_in_order(group, s) for s in (scores, order))
        found[group.classes[then]] = scores[group.classes[first]]
    return found


def check_trained(found: ScoredUnits, cut: Removal, removed: Mapping[str, Array], proving: Proving | None) -> None:
    """Cut the trained original, and prove the result equal to it with the same units masked.

    Args:
        found: what was trained; nothing is done where that was after the choice.
        cut: what goes.
        removed: the same: group -> indices into its classes.
        proving: the proof; None if it is not asked for.

    Raises:
        GoalMissed: it is not equal.
    """
    if found.training is None or found.carried is None or proving is None:
        return
    trained = retrace(replace(cut.groups, model=found.carried.model), cut.groups.static.sizes)
    small = found.carried.onto(cut, rewrite(cut.groups, cut.removed_classes))
    verdict = proving(trained, lambda groups: removed_classes(groups, removed), small)[1]
    if verdict.runnable and not verdict.ok:
        raise GoalMissed(
            f"no result, because the cut of the trained model is not proven: {verdict.problem}",
            hint="--no-verify (verify=False in Python) gives it all the same",
        )
