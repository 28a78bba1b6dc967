"""Gradients of the parts of a batch, computed here or by workers, and what every part counts for in their mean.

Losses are means: over rows that count, or relative to the size of what is wanted. The gradient of a batch is the mean
of those of its parts, weighted by that. Which worker computes what makes no difference: parts are added up in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from onnxprune.autodiff import GradientSession, StepResult, TrainingGraph
from onnxprune.calibration import Feeds
from onnxprune.recovery.objectives import Objective
from onnxprune.recovery.student import Student
from onnxprune.recovery.training_options import TrainingOptions
from onnxprune.runtime import Setting
from onnxprune.runtime.workers import Work, crew
from onnxprune.system import cores

# From batches to their losses and gradients, in the same order.
Gradients = Callable[[Iterable[Feeds]], Iterator[StepResult]]


def parts_of(batch: Feeds, count: int) -> list[Feeds]:
    """Cut a batch into parts that are as equal as can be; it stays whole where an array has no axis for samples."""
    sizes = {np.shape(array)[:1] for array in batch.values()}
    if count == 1 or len(sizes) != 1 or () in sizes:
        return [batch]
    ((rows,),) = sizes
    ends = np.linspace(0, rows, min(count, rows) + 1).round().astype(int)
    return [{n: a[start:end] for n, a in batch.items()} for start, end in pairwise(ends)]


def shares_of(parts: list[Feeds], size: Callable[[Feeds], float]) -> list[float]:
    """What every part counts for in the mean of the batch; they add up to 1."""
    sizes = [size(part) for part in parts] if len(parts) > 1 else [1.0]
    total = sum(sizes)
    return [found / total for found in sizes] if total > 0 else [1 / len(parts)] * len(parts)


@contextmanager
def gradients_by(student: Student, objective: Objective, options: TrainingOptions, parts: int) -> Iterator[Gradients]:
    """Make ready what computes gradients at the student's present weights.

    Args:
        student: whose gradients they are.
        objective: what batches come from.
        options: with the workers.
        parts: how many parts a batch is cut into.

    Yields:
        The function, which gives results in the order of the batches.
    """
    if options.workers == 1:
        yield lambda batches: map(student.gradients, batches)
        return
    kinds = {student.shapes(part): part for batch in objective.kinds() for part in parts_of(batch, parts)}
    graphs = {shapes: student.graph(part) for shapes, part in kinds.items()}
    with crew(Work(_prepared, (graphs, _setting(options))), options.workers) as done:

        def by_workers(batches: Iterable[Feeds]) -> Iterator[StepResult]:
            weights = student.seen()
            jobs = [(student.shapes(batch), dict(batch), weights) for batch in batches]
            found = dict(done(jobs))
            for index in range(len(jobs)):
                loss, sent = found[index]
                # What a cluster sends may be read only.
                gradients = {name: array if array.flags.writeable else array.copy() for name, array in sent.items()}
                yield StepResult(loss, student.own(gradients), {})

        yield by_workers


def _setting(options: TrainingOptions) -> Setting:
    """What a worker runs on: local ones share the cores."""
    local = isinstance(options.workers, int) and not options.threads
    return Setting(options.provider, max(1, cores() // options.workers) if local else options.threads)


def _prepared(shared: tuple[Mapping[Any, TrainingGraph], Setting]) -> Callable[[Any], tuple[float, dict[str, Any]]]:
    """On a worker: what computes the gradients of a part."""
    graphs, setting = shared
    sessions: dict[Any, GradientSession] = {}

    def perform(job: tuple[Any, Feeds, Mapping[str, Any]]) -> tuple[float, dict[str, Any]]:
        shapes, feeds, weights = job
        if shapes not in sessions:
            sessions[shapes] = GradientSession(graphs[shapes], setting)
        found = sessions[shapes].evaluate(feeds, weights)
        return found.loss, dict(found.gradients)

    return perform
