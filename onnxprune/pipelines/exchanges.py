"""Exchanges of units between groups at equal cost, each judged by the whole repaired model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from onnxprune.allocation import BudgetFitter, Options, Selection
from onnxprune.allocation.fit_budgets import Result, reached
from onnxprune.calibration import is_random
from onnxprune.errors import UsageError
from onnxprune.pipelines.clock import Clock
from onnxprune.progress import Progress, WorkPart
from onnxprune.recovery import RecoveryOptions
from onnxprune.rewriting import agreement
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


def untold(stage: str) -> None:
    """Tell nobody about a stage."""


def with_exchanges(
    found: tuple[Selection, Result],
    fitter: BudgetFitter,
    finish: Finish[Result],
    attempt: Finish[Result],
    *,
    runs: Runs,
    clock: Clock,
) -> tuple[Selection, Result]:
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
        The best selection, and what came of it.
    """
    selection, finished = found
    if not fitter.options.exchanges or finished.rolled_back or not selection.met:
        return found

    def distance(finished: Result) -> float:
        return agreement(finished.removal, finished.model, runs).distance

    with clock("exchanging"):
        better = _exchanged(found, fitter, attempt, distance, clock.progress)
    return found if better is selection else (better, finish(better))


def _exchanged(
    found: tuple[Selection, Result],
    fitter: BudgetFitter,
    attempt: Finish[Result],
    distance: Callable[[Result], float],
    progress: Progress,
) -> Selection:
    """The selection after one exchange after the other, each that brings the outputs nearer to the original's kept."""
    (selection, finished), count = found, fitter.options.exchanges
    best, tried = distance(finished), set[tuple[int, int]]()
    open_exchanges = fitter.exchanges(selection)
    for number in range(1, count + 1):
        pair, other = next(((p, s) for p, s in open_exchanges if p not in tried), (None, selection))
        if pair is None:
            break
        progress(WorkPart.of("exchange", number, count))
        tried.add(pair)
        finished = attempt(other)
        goals = reached(selection.goals, finished.model, finished.removal, fitter.kinds)
        if not all(goal.met for goal in goals) or not (apart := distance(finished)) < best:
            continue
        selection, best = replace(other, goals=goals), apart
        open_exchanges = fitter.exchanges(selection)
    return selection
