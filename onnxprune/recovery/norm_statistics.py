"""Statistics of BatchNormalization, estimated again after training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnxprune.calibration import Feeds
from onnxprune.layers import bn_matching
from onnxprune.model import Model
from onnxprune.recovery.objectives import Objective
from onnxprune.recovery.student import Student
from onnxprune.recovery.training_options import TrainingOptions

# Bytes of inputs that statistics are estimated on; more would hardly change them.
LARGEST_ESTIMATED = 256 << 20


def with_better_statistics(
    model: Model,
    objective: Objective,
    options: TrainingOptions,
    held: float,
    *,
    progress: Callable[[str], None],
) -> tuple[Model, float]:
    """Give a model the statistics of what it was trained on, if that is better on held-out samples.

    Args:
        model: the model; it is not changed.
        objective: what it learned from.
        options: what it runs on.
        held: its loss on held-out samples.
        progress: is told what came of it.

    Returns:
        The better model, and its loss on held-out samples.
    """
    fresh = bn_matching.with_statistics_of(model, _runs(model, objective))
    if fresh is model:
        return model, held
    student = Student(
        fresh, objective.loss, objective.batch(0, options), replace(options, freeze=(), learn_scales=False)
    )
    try:
        found = objective.held_loss(student.loss)
    finally:
        student.close()
    progress(f"statistics of norms: held out {found:.3g} with those of the data, {held:.3g} without")
    return (fresh, found) if found < held else (model, held)


def _runs(model: Model, objective: Objective) -> list[Feeds]:
    """Inputs that were trained on, no more of them than are quickly held."""
    entries, left, runs = {value.name for value in model.proto.graph.input}, LARGEST_ESTIMATED, list[Feeds]()
    for feeds, _ in objective.fitting.in_order():
        runs.append({name: array for name, array in feeds.items() if name in entries})
        left -= sum(array.nbytes for array in runs[-1].values())
        if left < 0:
            break
    return runs
