"""Exchanges of units between groups at equal cost, each judged by the whole repaired model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune.allocation import BudgetFitter, Options, Selection
from onnxprune.allocation.fit_budgets import Result, reached
from onnxprune.calibration import is_random
from onnxprune.errors import ModelError, UsageError
from onnxprune.pipelines.clock import Clock
from onnxprune.progress import Progress, WorkPart
from onnxprune.recovery import RecoveryOptions
from onnxprune.rewriting import agreement, original_outputs
from onnxprune.runtime import Agreement, SpillBuffer
from onnxprune.typing import Runs

Finish = Callable[[Selection], Result]


def check_exchanges(options: Options, recovery: RecoveryOptions | None, data: Any) -> None:
    """Refuse exchanges that nothing judges, or that keep no cost.

    Raises:
        UsageError: there are no real inputs or no budgets, or the units are chosen in a training.
    """
    if not options.exchanges:
        return
    if data is None or is_random(data):
        raise UsageError("--exchanges needs inputs as the model gets them", hint="give --data a file of real inputs")
    if not options.budgets:
        raise UsageError("--exchanges keeps what budgets allow", hint="give --macs, --params, --size or --latency")
    if recovery is not None and recovery.train is not None and recovery.train.while_training:
        raise UsageError(
            "--exchanges does not go with training in which the units are chosen", hint="leave out --while-training"
        )


@dataclass(frozen=True)
class Exchanged:
    """What exchanges between groups gave.

    Attributes:
        tried: exchanges that were carried out.
        kept: those that brought the outputs nearer to the original's.
        before: how far the outputs agree with the original's without any, on all samples.
        after: the same with those that were kept.
    """

    tried: int
    kept: int
    before: Agreement
    after: Agreement


def with_exchanges(
    found: tuple[Selection, Result],
    fitter: BudgetFitter,
    finish: Finish[Result],
    attempt: Finish[Result],
    *,
    runs: Runs,
    clock: Clock,
) -> tuple[Selection, Result, Exchanged | None]:
    """Make a selection better by as many exchanges as its options allow.

    Args:
        found: a selection, and what came of it.
        fitter: the budgets.
        finish: carries a selection out, proves and repairs it.
        attempt: the same, without a proof.
        runs: inputs that judge, all that there are: a few of them tell too little, and widths do not fit themselves to
            those that repair.
        clock: times it.

    Returns:
        The best selection, what came of it, and what was tried; None where nothing was.
    """
    selection, finished = found
    if not fitter.options.exchanges or finished.rolled_back or not selection.met:
        return selection, finished, None

    with clock("exchanging"), closing(SpillBuffer()) as store:
        originals = [
            {name: store.keep(value) if isinstance(value, np.ndarray) else value for name, value in outputs.items()}
            for outputs in original_outputs(fitter.groups, runs)
        ]

        def judged(finished: Result) -> Agreement:
            return agreement(finished.removal, finished.model, runs, originals)

        better, done = _exchanged(found, fitter, attempt, judged, clock.progress)
    return (better, finish(better), done) if done.kept else (selection, finished, done)


def _exchanged(
    found: tuple[Selection, Result],
    fitter: BudgetFitter,
    attempt: Finish[Result],
    judged: Callable[[Result], Agreement],
    progress: Progress,
) -> tuple[Selection, Exchanged]:
    """The selection after one exchange after the other, each that brings the outputs nearer to the original's kept."""
    (selection, finished), count = found, fitter.options.exchanges
    best = before = judged(finished)
    tried, kept = set[tuple[int, int]](), 0
    open_exchanges = fitter.exchanges(selection)
    for number in range(1, count + 1):
        pair, other = next(((p, s) for p, s in open_exchanges if p not in tried), (None, selection))
        if pair is None:
            break
        progress(WorkPart.of("exchange", number, count, f", {kept} kept"))
        tried.add(pair)
        try:
            finished = attempt(other)
        except ModelError:  # a node cannot take these sizes
            continue
        goals = reached(other.goals, finished.model, finished.removal, fitter.kinds)
        if not all(goal.met for goal in goals) or not (agreed := judged(finished)).distance < best.distance:
            continue
        selection, best, kept = replace(other, goals=goals), agreed, kept + 1
        open_exchanges = fitter.exchanges(selection)
    return selection, Exchanged(len(tried), kept, before, best)
