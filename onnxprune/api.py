"""The library: prune a model, or each step of it alone."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from onnxprune import calibration, cost, datafree, goals, interface, matching, proof, recover, stepwise
from onnxprune import plan as plans
from onnxprune.bench import Place
from onnxprune.cost import Cost
from onnxprune.cut import Cut
from onnxprune.errors import ModelError
from onnxprune.grouping import Groups
from onnxprune.grouping import trace as trace_model
from onnxprune.halving import RolledBack, checked, rolled_back_from
from onnxprune.interface import Change, RowMap
from onnxprune.labels import Array
from onnxprune.latency.timer import Timed
from onnxprune.model import Model, load, to_graph, to_proto
from onnxprune.options import Options
from onnxprune.plan import Plan
from onnxprune.proof import Verdict
from onnxprune.recover import Repair
from onnxprune.rewrite import rewrite, zeroed
from onnxprune.selection import Goal, gone
from onnxprune.tally import Agreement
from onnxprune.tapped import counted, routes_of
from onnxprune.timing import Timing

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]
# Runs until a budget holds for what a repair adds, too (a bias where there was none).
ATTEMPTS = 2


@dataclass(frozen=True)
class Outcome:
    """Everything that pruning a model gave.

    Attributes:
        model: the smaller model.
        plan: what was removed.
        groups: the traced original.
        verdict: the proof; None if it was not asked for.
        rolled_back: groups that were left whole because their proof failed.
        before: cost of the original.
        after: cost of the smaller model.
        repair: what calibration data mended; None if there was none.
        io_changes: axes of the model's inputs and outputs that shrank.
        rows: the new numbers of rows that were kept by name.
        goals: the budgets, and what was reached.
        timed: the time of a run, where it was measured.
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
    repair: Repair | None = None
    io_changes: tuple[Change, ...] = ()
    rows: tuple[RowMap, ...] = ()
    goals: tuple[Goal, ...] = ()
    timed: Timed | None = None
    judged: Agreement | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Executed:
    """What carrying out a plan gave.

    Attributes:
        model: the model.
        verdict: the proof, if it was asked for.
        io_changes: axes of the model's inputs and outputs that shrank.
        rows: the new numbers of rows that were kept by name.
        repair: what calibration data mended; None if there was none.
        judged: how far the outputs on held-out samples agree with the original's; None without real data.
    """

    model: Model
    verdict: Verdict | None
    io_changes: tuple[Change, ...] = ()
    rows: tuple[RowMap, ...] = ()
    repair: Repair | None = None
    judged: Agreement | None = None


@dataclass(frozen=True)
class PruneResult:
    """What `prune` returns.

    Attributes:
        model: the smaller model, of the kind that was given (a ModelProto for a path or bytes).
        plan: what was removed.
        report: costs before and after, the proof, and the groups that were rolled back.
    """

    model: Any
    plan: Plan
    report: Outcome


def run(
    model: Model,
    options: Options,
    *,
    verify: bool = True,
    sizes: Mapping[str, int] | None = None,
    data: Any = None,
    samples: int = 256,
    recovery: recover.Options | None = None,
    place: Place | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Trace, score, select, rewrite, prove, and repair.

    Args:
        model: the model.
        options: what to prune.
        verify: prove the smaller model before it is repaired.
        sizes: numbers for symbolic dims.
        data: calibration inputs (see `calibration.read`): for criteria that need them, and the layers that lost inputs
            are re-fitted on them.
        samples: how many of them to use.
        recovery: how to re-fit what is behind a cut; by least squares where None.
        place: where the result is timed; it is not where None, unless the options ask for it.
        progress: is told about every stage.

    Raises:
        GoalMissed: there is nothing to prune, or every group failed its proof.
    """
    clock = _Clock(progress or logger.info)
    runs = [] if data is None else calibration.read(data, model, samples=samples, sizes=sizes)
    options = options.settled(data=bool(runs))
    with clock("tracing"):
        groups = _traced(model, options, sizes, runs)
    with clock("scoring"):
        seen, recovery = matching.seen(groups, data, runs), recovery or recover.Options()
        scores = stepwise.scored(seen, options, runs, recovery, place, progress=clock.progress)
    timing = Timing.of(groups, scores, options, place, clock.progress)
    reserve = dict[str, float]()
    for _ in range(ATTEMPTS):
        with clock("selecting"):
            chosen = timing.fit(reserve)
        left, small, verdict, rolled_back = _proven(
            groups, chosen.removed, clock, verify=verify, fixed_sizes=sizes is not None
        )
        cut = Cut(groups, gone(groups, left))
        small, repair = _repaired(cut, small, seen, runs, recovery, clock, verify=verify)
        reached = goals.reached(chosen.goals, small, cut, timing.meters)
        reserve = {g.kind: r.reached - g.reached for g, r in zip(chosen.goals, reached, strict=True)}
        if rolled_back or not chosen.met or all(goal.met for goal in reached):
            break
    timed = timing.timed(left, small, None if rolled_back else chosen.damage)
    with clock("counting"):
        before = cost.of_trace(groups.tracing, model)
        after = cost.of_trace(groups.tracing, small, cut.size)
    return Outcome(
        *(small, plans.make(groups, left, scores, options, sizes), groups, verdict, rolled_back, before, after, repair),
        *(interface.changes(cut), interface.row_maps(cut), reached, timed),
        *(_judged(cut, small, repair, runs, data), clock.seconds),
    )


def _traced(model: Model, options: Options, sizes: Mapping[str, int] | None, runs: Sequence[Any]) -> Groups:
    """The traced model; it knows which branches the calibration inputs take."""
    groups = trace_model(model, **options.policy, sizes=sizes)
    groups.tracing.fed = counted(routes_of(groups.tracing.model, runs))
    return groups


def _repaired(
    cut: Cut,
    small: Model,
    seen: Groups,
    runs: Sequence[Any],
    recovery: recover.Options,
    clock: _Clock,
    *,
    verify: bool,
) -> tuple[Model, Repair | None]:
    """The smaller model after its repair; what it did is known only where there are inputs to judge it by."""
    if recovery.method == "none" or not (runs or recovery.method in datafree.METHODS):
        return small, None
    with clock("repairing"):
        judged = recover.repair(cut, small, runs, recovery, seen=seen, progress=clock.progress) if runs else None
        small, repair = judged or (datafree.repair(cut, small, recovery.method, progress=clock.progress), None)
        if verify and (problem := proof.valid(cut.groups.model, small)):
            raise ModelError(f"the repaired model is not valid: {problem}")
    return small, repair


def _judged(cut: Cut, small: Model, repair: Repair | None, runs: Sequence[Any], data: Any) -> Agreement | None:
    """How far the outputs of the smaller model agree with the original's, after all repair; None without real data."""
    if calibration.is_random(data):
        return None
    if repair is not None:
        return repair.final
    return recover.judged(cut, small, runs) if runs else None


def _proven(
    groups: Groups, chosen: Mapping[str, Array], clock: _Clock, *, verify: bool, fixed_sizes: bool
) -> tuple[Mapping[str, Array], Model, Verdict | None, tuple[RolledBack, ...]]:
    """The smaller model, its proof, and what was chosen less the groups that failed it."""
    try:
        with clock("rewriting"):
            small = rewrite(groups, gone(groups, chosen))
    except ModelError as error:
        if not verify:
            raise
        failed = Verdict(False, math.nan, proof.tolerance_of(groups), error.message)
        return rolled_back_from(groups, chosen, failed)
    if not verify:
        return chosen, small, None, ()
    with clock("proving"):
        proving, verdict = checked(groups, lambda g: gone(g, chosen), small, fixed_sizes=fixed_sizes)
        if not verdict.ok and verdict.runnable:
            return rolled_back_from(proving, chosen, verdict)
    return chosen, small, verdict, ()


def plan_for(
    model: Model,
    options: Options,
    *,
    sizes: Mapping[str, int] | None = None,
    data: Any = None,
    samples: int = 256,
    place: Place | None = None,
) -> tuple[Groups, Plan, tuple[Goal, ...]]:
    """The traced model, the plan that `run` would carry out, without a proof, and what it reaches of the budgets."""
    runs = [] if data is None else calibration.read(data, model, samples=samples, sizes=sizes)
    options = options.settled(data=bool(runs))
    groups = _traced(model, options, sizes, runs)
    scores = stepwise.scored(matching.seen(groups, data, runs), options, runs, recover.Options(), place)
    chosen = Timing.of(groups, scores, options, place, logger.info).fit()
    return groups, plans.make(groups, chosen.removed, scores, options, sizes), chosen.goals


def execute(
    model: Model,
    plan: Plan,
    *,
    zero: bool = False,
    verify: bool = False,
    data: Any = None,
    samples: int = 256,
    recovery: recover.Options | None = None,
) -> Executed:
    """Carry out a plan.

    Args:
        model: the model that the plan was made for, or another export of the same weights.
        plan: the plan.
        zero: keep the sizes and set what goes to zero.
        verify: prove the smaller model; one with zeros in it is not.
        data: calibration inputs, to re-fit what is behind the cut.
        samples: how many of them to use.
        recovery: how to re-fit; by least squares where None.

    Raises:
        UsageError: the plan does not fit the model.
    """
    groups = plan.trace(model)
    away = plan.removed(groups)
    if zero:
        return Executed(zeroed(groups, away), None)
    small = rewrite(groups, away)
    verdict = checked(groups, plan.removed, small)[1] if verify else None
    cut = Cut(groups, away)
    runs = [] if data is None else calibration.read(data, model, samples=samples, sizes=plan.options.get("sizes"))
    seen, clock = matching.seen(groups, data, runs), _Clock(logger.info)
    small, repair = _repaired(cut, small, seen, runs, recovery or recover.Options(), clock, verify=verify)
    judged = _judged(cut, small, repair, runs, data)
    return Executed(small, verdict, interface.changes(cut), interface.row_maps(cut), repair, judged)


def prove(original: Model, pruned: Model, plan: Plan) -> Verdict:
    """Prove that `pruned` is what `plan` makes of `original`."""
    return checked(plan.trace(original), plan.removed, pruned)[1]


# --- any source in, the same kind out --------------------------------------------------------------------


def trace(source: Any, **options: Any) -> Groups:
    """Groups, units and barriers of a model (path, bytes, ModelProto or graphsurgeon Graph).

    Keyword arguments are those of `grouping.trace`: heads, head_dims, allow_io_changes, rows, sizes.
    """
    return trace_model(load(source), **options)


def make_plan(
    source: Any,
    ratio: float | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    data: Any = None,
    samples: int = 256,
    place: Place | None = None,
    **options: Any,
) -> Plan:
    """The plan that `prune` would carry out; the arguments are those of `prune`."""
    given: dict[str, Any] = {"sizes": sizes, "data": data, "samples": samples, "place": place}
    return plan_for(load(source), Options(ratio=ratio, **options), **given)[1]


def apply(
    source: Any,
    plan: Plan,
    *,
    zero: bool = False,
    data: Any = None,
    samples: int = 256,
    recovery: str = "least-squares",
) -> Any:
    """Carry out `plan` on a model, and repair it where there is data; see `execute` for `zero`, `prune` for the rest.

    Returns:
        The kind that was given (a ModelProto for a path or bytes).
    """
    how = recover.Options(recovery)
    return _same_kind(execute(load(source), plan, zero=zero, data=data, samples=samples, recovery=how).model, source)


def prune(
    source: Any,
    ratio: float | None = None,
    criterion: Any = "auto",
    *,
    verify: bool = True,
    sizes: Mapping[str, int] | None = None,
    data: Any = None,
    samples: int = 256,
    recovery: str = "least-squares",
    place: Place | None = None,
    **options: Any,
) -> PruneResult:
    """Prune a model and prove the result.

    Args:
        source: path, bytes, ModelProto or graphsurgeon Graph.
        ratio: fraction of every group's units to remove; half if neither it nor a budget (`macs="50%"`) is given.
        criterion: name of a criterion, or a function from `Groups` and a generator to scores; "auto" is "obs" where
            there is data, else "l2".
        verify: prove the result equal to the masked original; groups that fail are left whole.
        sizes: numbers for symbolic dims.
        data: unlabelled calibration inputs (see `calibration.read`): for criteria that need them, and the layers behind
            what was cut are re-fitted to what the original computes on them.
        samples: how many calibration samples to use.
        recovery: "none", "bias", "affine", "merge", "least-squares", "one-pass" or "batchnorm"; of these, "bias" and
            "merge" do something without data, too.
        place: where the result is timed; it is not where None, unless there is a budget on latency or
            `round_to="auto"`.
        options: the other fields of `Options`.

    Returns:
        The smaller model, the plan and the report. A budget that was missed is in `report.goals`, no error.

    Raises:
        UsageError: an option is out of range, or a glob matches nothing.
        ModelError: the model is invalid.
        GoalMissed: there is nothing to prune.
    """
    chosen = Options(ratio=ratio, criterion=criterion, **options)
    how = recover.Options(recovery)
    given: dict[str, Any] = {"sizes": sizes, "data": data, "samples": samples, "place": place}
    outcome = run(load(source), chosen, verify=verify, recovery=how, **given)
    return PruneResult(_same_kind(outcome.model, source), outcome.plan, outcome)


def verify(original: Any, pruned: Any, plan: Plan) -> Verdict:
    """Prove that `pruned` is valid, runs, and equals the masked `original` under `plan`."""
    return prove(load(original), load(pruned), plan)


def _same_kind(model: Model, source: Any) -> Any:
    if isinstance(source, Model):
        return model
    if type(source).__module__.startswith("onnx_graphsurgeon"):
        return to_graph(model)
    return to_proto(model)


class _Clock:
    """Times stages and tells about them."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self.progress(stage)
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
