"""Units that are chosen while the model trains, by masks or by penalties, and cut then.

The first scores say how many units of every group go, so that all budgets hold as they would in one step; training says
which. Then the units are cut, and the trained weights are where recovery begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from onnxprune.allocation import Options
from onnxprune.cost import units_in_order
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model
from onnxprune.pipelines.iterative import CarriedWeights, ScoredUnits, UnitsToGo, first_scores, units_to_go
from onnxprune.pipelines.train import learn_after
from onnxprune.pipelines.unit_masks import SoftMasks, UnitCourse
from onnxprune.pipelines.unit_penalties import GroupLasso, GrowingPenalty, Slimming
from onnxprune.proof import Verdict
from onnxprune.recovery import TrainingOptions
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime.bench import Place
from onnxprune.tracing import Groups, retrace
from onnxprune.typing import Array, Runs

logger = logging.getLogger(__name__)

# The proof of a model, from the traced original, and what of a trace is removed.
Proving = Callable[[Groups, Callable[[Groups], Array], Model], tuple[Groups, Verdict]]
# Share of the steps in which units are chosen; the others train what is left of the model.
OPEN = 0.5

# Ways to choose units while training.
WAYS: Mapping[str, Callable[[UnitsToGo, Array, Options, TrainingOptions], UnitCourse]] = {
    "soft": SoftMasks,
    "group-lasso": GroupLasso,
    "slimming": Slimming,
    "growing": GrowingPenalty,
}


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
    if training.while_training not in WAYS:
        raise UsageError(
            f"--while-training: {training.while_training} is for single weights (`sparsify`)",
            hint=f"units: {', '.join(WAYS)}",
        )
    left = training.numbered(2, steps=training.steps - first, while_training="")
    return training.numbered(1, steps=first), left


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
    course = WAYS[training.while_training](going, scores, options, first)
    nothing = Removal(groups, np.zeros(groups.classes.count, bool))
    model, done = learn_after(nothing, groups.model, runs, first, masks=course, progress=progress)
    return ScoredUnits(reordered(going, scores, course.scores), CarriedWeights(nothing, model), done, left)


def reordered(going: UnitsToGo, scores: Array, order: Array) -> Array:
    """The scores, dealt out within each group in another order: how many units go by them stays as it is."""
    found = scores.copy()
    for group in going.groups.groups:
        first, then = (units_in_order(group, s) for s in (scores, order))
        found[group.classes[then]] = scores[group.classes[first]]
    return found


def check_trained(found: ScoredUnits, removal: Removal, removed: Mapping[str, Array], proving: Proving | None) -> None:
    """Cut the trained original, and prove the result equal to it with the same units masked.

    Args:
        found: what was trained; nothing is done where that was after the choice.
        removal: what goes.
        removed: the same: group -> indices into its classes.
        proving: the proof; None if it is not asked for.

    Raises:
        GoalMissed: it is not equal.
    """
    if found.training is None or found.carried is None or proving is None:
        return
    trained = retrace(replace(removal.groups, model=found.carried.model), removal.groups.static.sizes)
    small = found.carried.onto(removal, rewrite(removal.groups, removal.removed_classes))
    verdict = proving(trained, lambda groups: removed_classes(groups, removed), small)[1]
    if verdict.runnable and not verdict.ok:
        raise GoalMissed(
            f"no result, because the cut of the trained model is not proven: {verdict.problem}",
            hint="--no-verify (verify=False in Python) gives it all the same",
        )
