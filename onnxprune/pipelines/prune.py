"""Trace, score, select, rewrite, prove and recover: a loaded model pruned."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from onnxprune import calibration
from onnxprune.allocation import BudgetFitter, BudgetResult, Options, Selection, fit_budgets
from onnxprune.calibration import is_random
from onnxprune.cost import Cost, counts
from onnxprune.errors import GoalMissed, ModelError, UsageError
from onnxprune.layers import bn_matching
from onnxprune.model import Model
from onnxprune.model.shapes.symbols import check_sizes
from onnxprune.pipelines import iterative
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.exchanges import Exchanged, check_exchanges, with_exchanges
from onnxprune.pipelines.iterative import ScoredUnits
from onnxprune.pipelines.prune_training import resumable, trained_after
from onnxprune.pipelines.unit_rotation import trace_rotated
from onnxprune.progress import Progress
from onnxprune.proof import RolledBack, Verdict, prove, proven_groups, rolled_back_from, valid
from onnxprune.recovery import (
    RecoveryOptions,
    RecoveryReport,
    judge,
    recover,
    recover_without_data,
)
from onnxprune.rewriting import Plan, Removal, removed_classes
from onnxprune.rewriting import io_changes as interface
from onnxprune.rewriting.io_changes import Change, RowMap
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Agreement, blas_threads
from onnxprune.runtime.bench import Place
from onnxprune.shown import Shown
from onnxprune.tracing import CONTRADICTION, Groups
from onnxprune.typing import Array

if TYPE_CHECKING:
    from onnxprune.cost.latency import Timed
    from onnxprune.pipelines.dropped import Dropped
    from onnxprune.recovery import Training

logger = logging.getLogger(__name__)


# The proof of a model, from the traced original, and what of a trace is removed.
Proving = Callable[[Groups, Callable[[Groups], Array], Model], tuple[Groups, Verdict]]


@dataclass(frozen=True, repr=False)
class Outcome(Shown):
    """Everything that pruning a model gave.

    Attributes:
        model: the smaller model.
        plan: what was removed.
        groups: the traced original.
        verdict: the proof; None if it was not asked for.
        rolled_back: groups that were left whole because their proof failed.
        before: cost of the original.
        after: cost of the smaller model.
        recovery: what was fitted to calibration data; None if there was none.
        training: what gradient steps did after that; None if there were none.
        chosen: what gradient steps did in which the units were chosen; None if they were chosen before.
        tuned: what the user's own training is called; empty if there was none.
        io_changes: axes of the model's inputs and outputs that shrank.
        rows: the new numbers of rows that were kept by name.
        goals: the budgets, and what was reached.
        timed: the time of a run, where it was measured.
        exchanged: what exchanges between groups gave; None if none were asked for.
        dropped: the blocks that went before the units; None if none did.
        instead: what `judged` would be if units alone had gone; None if no block went.
        judged: how far the outputs of `model` on held-out samples agree with the original's; None without data.
        seconds: wall time by stage.
    """

    model: Model
    plan: Plan
    groups: Groups
    verdict: Verdict | None
    rolled_back: tuple[RolledBack, ...]
    before: Cost
    after: Cost
    recovery: RecoveryReport | None = None
    training: Training | None = None
    chosen: Training | None = None
    tuned: str = ""
    io_changes: tuple[Change, ...] = ()
    rows: tuple[RowMap, ...] = ()
    goals: tuple[BudgetResult, ...] = ()
    timed: Timed | None = None
    exchanged: Exchanged | None = None
    dropped: Dropped | None = None
    instead: Agreement | None = None
    judged: Agreement | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@blas_threads()
def run(
    model: Model,
    options: Options,
    *,
    verify: bool = True,
    sizes: Mapping[str, int] | None = None,
    data: Any = None,
    samples: int = 256,
    recovery: RecoveryOptions | None = None,
    place: Place | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Trace, score, select, rewrite, prove, and recover.

    Args:
        model: the model.
        options: what to prune.
        verify: prove the smaller model before recovery; the verdict says where it is not proven.
        sizes: numbers for symbolic dims.
        data: calibration inputs (see `calibration.read`): for criteria that need them, and the layers that lost inputs
            are re-fitted on them.
        samples: how many of them to use.
        recovery: how to re-fit what is behind a cut; by least squares where None.
        place: where the result is timed; it is not where None, unless the options ask for it.
        progress: is told about every stage.

    Raises:
        GoalMissed: there is nothing to prune, or every group failed its proof.
        ValueError: the options say that blocks go, too.
    """
    clock = Clock(progress)
    _check_asked(options, recovery, data)
    check_sizes(model.proto.graph, sizes or {})
    runs = [] if data is None else calibration.read(data, model, samples=samples, sizes=sizes)
    options = options.settled(data=bool(runs))
    recovery = resumable(recovery or RecoveryOptions(), model, options, runs, sizes)
    with clock("tracing"):
        rotation = trace_rotated(model, options, runs, sizes=sizes, verify=verify, random=is_random(data))
        groups = rotation.groups
    with clock("scoring"):
        matched = bn_matching.matched(groups, runs, random=is_random(data))
        scored = _scored(matched, options, runs, recovery, place=place, progress=clock.progress)
    proving = partial(proven_groups, given=sizes or {}, samples=runs[:1]) if verify else None
    fitter = BudgetFitter.of(groups, scored.scores, rotation.budgeted(options), place, clock.progress)
    recovering = partial(recovered, matched=matched, runs=runs, recovery=recovery, verify=verify)
    finishing = partial(_finishing, groups, recovering, scored.carried)
    finish, attempt = finishing(clock, proving), finishing(Clock(lambda stage: None), None)
    found = fit_budgets.fit_finished(clock.around("selecting", fitter.fit), finish, fitter.kinds)
    selection, candidate, tried = with_exchanges(found, fitter, finish, attempt, runs=runs, clock=clock)
    _check_trained(scored, candidate, proving)
    outcome = replace(
        _outcome(candidate, rotation.original, rotation.plan(candidate.removed, scored.scores, options), clock),
        goals=selection.goals,
        timed=fitter.timed(candidate.removed, candidate.model, None if candidate.rolled_back else selection.damage),
        judged=judged_outputs(candidate.removal, candidate.model, candidate.recovery, runs, random=is_random(data)),
        chosen=scored.training,
        exchanged=tried,
        seconds=clock.seconds,
    )
    return with_training(outcome, candidate.removal, runs, replace(recovery, train=scored.left), clock)


def with_training(
    outcome: Outcome, removal: Removal, runs: Sequence[Any], recovery: RecoveryOptions, clock: Clock
) -> Outcome:
    """The outcome with a model that was trained, if it is to be, and judged again."""
    changed = trained_after(removal, outcome.model, runs, recovery, clock)
    if changed and outcome.judged is not None:
        changed["judged"] = judge(removal, changed["model"], runs)
    return replace(outcome, **changed)


def _scored(
    groups: Groups,
    options: Options,
    runs: Sequence[Any],
    recovery: RecoveryOptions,
    *,
    place: Place | None,
    progress: Progress,
) -> ScoredUnits:
    """Scores of all classes: before any training, in steps, or while the model trains."""
    if recovery.train is not None and recovery.train.while_training:
        # Gradients are another fifth of all that is imported: only who trains waits for them.
        from onnxprune.pipelines.dynamic_units import train_masked

        return train_masked(groups, options, runs, recovery.train, place, progress=progress)
    scores, carried = iterative.scored(groups, options, runs, recovery, place, progress=progress)
    return ScoredUnits(scores, carried, left=recovery.numbered(options.steps).train)


def _check_trained(scored: ScoredUnits, candidate: _Candidate, proving: Proving | None) -> None:
    """Prove the cut of a model that was trained while its units were chosen.

    Raises:
        GoalMissed: it is not equal to the trained model with the same units masked.
    """
    if scored.training is not None:
        from onnxprune.pipelines.dynamic_units import check_trained

        check_trained(scored, candidate.removal, candidate.removed, proving)


def _check_asked(options: Options, recovery: RecoveryOptions | None, data: Any) -> None:
    """Refuse blocks, and training without real inputs.

    Raises:
        UsageError: there is no data to train on, or it is random numbers.
        ValueError: the options say that blocks go, too.
    """
    if options.drop:
        raise ValueError("`prune.run` removes units alone: `run_asked.run_asked` removes blocks, too")
    if recovery is not None and recovery.train is not None and (data is None or is_random(data)):
        raise UsageError("training needs inputs as the model gets them", hint="give --data a file of real inputs")
    check_exchanges(options, recovery, data)


@dataclass(frozen=True)
class _Candidate:
    """A selection carried out, proven and recovered.

    Attributes:
        removed: group -> what goes, less the groups that failed their proof.
        removal: what goes of the traced original.
        model: the smaller model.
        verdict: its proof before recovery; None if it was not asked for.
        rolled_back: groups that failed their proof.
        recovery: what was fitted to calibration data.
    """

    removed: Mapping[str, Array]
    removal: Removal
    model: Model
    verdict: Verdict | None
    rolled_back: tuple[RolledBack, ...]
    recovery: RecoveryReport | None


def _finishing(
    groups: Groups,
    recovering: Callable[..., tuple[Model, RecoveryReport | None]],
    carried: iterative.CarriedWeights | None,
    clock: Clock,
    proving: Proving | None,
) -> Callable[[Selection], _Candidate]:
    """The way from a selection to a model, timed by a clock."""
    carrying = iterative.carrying(carried, partial(recovering, clock=clock))
    return partial(_carry_out, groups, recovering=carrying, clock=clock, proving=proving)


def _carry_out(
    groups: Groups, selection: Selection, *, recovering: iterative.Recovering, clock: Clock, proving: Proving | None
) -> _Candidate:
    """Carry out a selection, prove it and recover it."""
    left, small, verdict, rolled_back = _proven(groups, selection.removed, clock, proving)
    removal = Removal(groups, removed_classes(groups, left))
    small, recovery = recovering(removal, small)
    return _Candidate(
        removed=left, removal=removal, model=small, verdict=verdict, rolled_back=rolled_back, recovery=recovery
    )


def _outcome(candidate: _Candidate, original: Groups, plan: Plan, clock: Clock) -> Outcome:
    """The result of a candidate, with what it costs."""
    with clock("counting"):
        before = counts.of_trace(original.tracing, original.model)
        after = counts.of_trace(candidate.removal.groups.tracing, candidate.model, candidate.removal.size)
    return Outcome(
        model=candidate.model,
        plan=plan,
        groups=candidate.removal.groups,
        verdict=candidate.verdict,
        rolled_back=candidate.rolled_back,
        before=before,
        after=after,
        recovery=candidate.recovery,
        io_changes=interface.changes(candidate.removal),
        rows=interface.row_maps(candidate.removal),
    )


def recovered(
    removal: Removal,
    small: Model,
    matched: Groups,
    runs: Sequence[Any],
    recovery: RecoveryOptions,
    clock: Clock,
    *,
    verify: bool,
) -> tuple[Model, RecoveryReport | None]:
    """The smaller model after its recovery; what that did is known only where there are inputs to judge it by."""
    if not recovery.can_act(data=bool(runs)):
        return small, None
    with clock("repairing"):
        report = None
        if runs:
            small, report = recover(removal, small, runs, recovery, matched=matched, progress=clock.progress)
        else:
            small = recover_without_data(removal, small, recovery.method, progress=clock.progress)
        if verify and (problem := valid(removal.groups.model, small)):
            raise ModelError(f"the repaired model is not valid: {problem}")
    return small, report


def judged_outputs(
    removal: Removal, small: Model, recovery: RecoveryReport | None, runs: Sequence[Any], *, random: bool
) -> Agreement | None:
    """Compare the outputs of the smaller model with the original's, after all recovery; None without real data."""
    if random:
        return None
    if recovery is not None:
        return recovery.final
    return judge(removal, small, runs) if runs else None


def _proven(
    groups: Groups,
    chosen: Mapping[str, Array],
    clock: Clock,
    proving: Proving | None,
) -> tuple[Mapping[str, Array], Model, Verdict | None, tuple[RolledBack, ...]]:
    """The smaller model, its proof, and what was chosen less the groups that failed it."""
    try:
        with clock("rewriting"):
            small = rewrite(groups, removed_classes(groups, chosen))
    except ModelError as error:
        if proving is None:
            raise
        failed = Verdict(False, math.nan, prove.tolerance_of(groups), error.message)
        return rolled_back_from(groups, chosen, failed)
    if proving is None:
        return chosen, small, None, ()
    with clock("proving"):
        traced, verdict = proving(groups, lambda g: removed_classes(g, chosen), small)
        if not verdict.ok and verdict.runnable:
            return rolled_back_from(traced, chosen, verdict)
    return chosen, small, verdict, ()


def check_proven(groups: Groups, verdict: Verdict | None) -> None:
    """Refuse what a proof was asked for and did not give.

    Args:
        groups: the traced original.
        verdict: the proof; None if it was not asked for.

    Raises:
        GoalMissed: the proof failed, or nothing could be compared.
        ModelError: the model contradicts itself, so that nothing could run it.
    """
    if verdict is None or verdict.ok:
        return
    contradictions = (b for b in groups.barriers if b.reason.startswith(CONTRADICTION))
    if not verdict.runnable and (found := next(contradictions, None)):
        raise ModelError(f"nothing can run the model: {found.op} {found.node!r} {found.reason}")
    raise GoalMissed(
        f"no result, because it is not proven: {verdict.problem}",
        hint="--no-verify (verify=False in Python) gives it all the same",
    )


@blas_threads()
def plan_for(
    model: Model,
    options: Options,
    *,
    sizes: Mapping[str, int] | None = None,
    data: Any = None,
    samples: int = 256,
    place: Place | None = None,
    progress: Progress | None = None,
) -> tuple[Groups, Plan, tuple[BudgetResult, ...]]:
    """The traced model, the plan that `run` would carry out, without a proof, and what it reaches of the budgets."""
    for given, name in ((options.drop, "--drop"), (options.exchanges, "--exchanges")):
        if given:
            raise UsageError(f"{name} is planned as it is carried out", hint=f"prune with {name} and --plan-out")
    runs = [] if data is None else calibration.read(data, model, samples=samples, sizes=sizes)
    options = options.settled(data=bool(runs))
    tell = progress or logger.info
    tell("tracing")
    rotation = trace_rotated(model, options, runs, sizes=sizes, random=is_random(data))
    groups = rotation.groups
    tell("scoring")
    matched = bn_matching.matched(groups, runs, random=is_random(data))
    scores = iterative.scored(matched, options, runs, RecoveryOptions(), place, progress=tell)[0]
    chosen = BudgetFitter.of(groups, scores, rotation.budgeted(options), place, tell).fit()
    return rotation.original, rotation.plan(chosen.removed, scores, options), chosen.goals
