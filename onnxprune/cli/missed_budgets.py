"""The error for missed budgets: what was reached, and which options block the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from onnxprune.errors import GoalMissed

if TYPE_CHECKING:
    from onnxprune.allocation import BudgetResult, Options
    from onnxprune.cli.output import Console
    from onnxprune.runtime import Agreement
    from onnxprune.tracing import Groups

# A field of the options -> how to ask for less of it; of the others, without.
_ASKED = {"ratios": "without --ratio-for", "max_ratio": "with --max-ratio 0.999", "round_to": "with --round-to 1"}


def check(goals: Sequence[BudgetResult], groups: Groups, options: Options) -> None:
    """Say which budgets were missed, and why.

    Raises:
        GoalMissed: one was.
    """
    missed = [goal for goal in goals if not goal.met]
    if missed:
        from onnxprune.report import text

        worst = max(missed, key=lambda goal: goal.reached / max(goal.most, 1e-12))
        raise GoalMissed("; ".join(text.missed(goal) for goal in missed), hint=_why(worst, groups, options))


@contextmanager
def damage_last(console: Console, judged: Agreement | None, *, accepted: bool) -> Iterator[None]:
    """Say, after all else that is to be said, that the outputs have nothing to do with the original's.

    Raises:
        Exit: with the code of a goal that was missed, unless that is accepted.
    """
    ruin = judged.ruin if judged is not None else ""
    if not ruin:
        yield
        return
    missed = False
    try:
        yield
    except GoalMissed as error:
        console.error(error.message, error.hint)
        missed = True
    advice = "" if accepted else ": remove less, give more --data, or --accept-damage"
    console.warn(f"on held-out samples the outputs are far from the original's, {ruin}{advice}", loud=not accepted)
    if missed or not accepted:
        raise click.exceptions.Exit(GoalMissed.exit_code)


def _why(goal: BudgetResult, groups: Groups, options: Options) -> str:
    """What holds a budget up: what no option frees, then what options hold, with what would be reached without."""
    from onnxprune.allocation import KINDS, blocking_options
    from onnxprune.report import numbers

    is_timed = KINDS[goal.kind].is_timed
    free, total = groups.prunable
    said = [f"{numbers.percent(total - free, total)} of the weights are locked (see `onnxprune inspect`)"]
    other = goal.before - groups.model.nbytes
    if goal.kind == "size" and other > 0.01 * goal.before:
        said.append(f"{numbers.percent(other, goal.before)} of the file is not weights")
    for names, saved in blocking_options(groups, options, goal.kind).items():
        wording = " and ".join(_ASKED.get(name, f"without --{name.replace('_', '-')}") for name in names)
        left = max(goal.reached - saved * goal.before, 0.0)
        figure = "less time" if is_timed else numbers.percent(left, goal.before)
        said.append(f"{figure} can be reached {wording}")
    if is_timed:
        said.append("`onnxprune inspect --time` shows what groups have to do with the time")
    return "; ".join(said)
