"""Blocks and units removed together under one set of budgets.

Which blocks go is a question of prices (`block_prices.py`). The model without them is proven and repaired, and its
units are pruned by their own scores under what is left of the budgets. Prices take damages of blocks and of units to
add up, which they do not quite: so units alone are removed from the original, too, and the samples that no fit saw say
which of the two models it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune import criteria
from onnxprune.allocation import BudgetResult, Options
from onnxprune.calibration import is_random
from onnxprune.cost.latency import Timer
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model
from onnxprune.model.shapes.symbols import check_sizes
from onnxprune.pipelines import prune
from onnxprune.pipelines.block_prices import LATENCY, BlockPrices
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.drop import bare_model, drop_blocks, dropping
from onnxprune.pipelines.drop_options import DropOptions
from onnxprune.pipelines.dropped import Dropped
from onnxprune.pipelines.prune import Outcome
from onnxprune.pipelines.prune_training import resumable
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.unit_rotation import trace_turned
from onnxprune.progress import Progress, prefixed
from onnxprune.proof import Verdict
from onnxprune.recovery import RecoveryOptions, held_out
from onnxprune.rewriting import Bypass, Plan, Removal, agreement, carried_over
from onnxprune.rewriting import plan as plans
from onnxprune.runtime.bench import Place
from onnxprune.tracing import trace

_TWICE = "the models with and without blocks would both be trained"
_PRICED = "the price of units is known before they go"


def check_droppable(options: Options, recovery: RecoveryOptions | None, data: Any) -> None:
    """Refuse what has no price.

    Raises:
        UsageError: there are no inputs, no budgets, or no scores that say what the outputs lose.
    """
    if data is None or is_random(data):
        raise UsageError("--drop needs inputs as the model gets them", hint="give --data a file of real inputs")
    if not options.budgets or options.ratio is not None or options.ratios:
        raise UsageError("--drop prices blocks by what budgets save", hint="give --macs, --params, --size or --latency")
    if options.strategy not in ("greedy", "sensitivity") or not criteria.known(options.criterion).accumulates:
        raise UsageError(
            "--drop compares what the outputs lose without blocks and without units",
            hint="leave out --criterion (it is obs) and --allocation (it is greedy)",
        )
    train = None if recovery is None else recovery.train
    for given, name, why in (
        (train is not None and train.while_training, "training in which the units are chosen", _PRICED),
        (
            train is not None and options.steps > 1,
            "training in --steps",
            "blocks and units alone would be trained each",
        ),
        (options.only, "--only", "it names units, and blocks go by their price"),
        (options.rows, "--rows", "it names units, and blocks go by their price"),
    ):
        if given:
            raise UsageError(
                f"--drop does not go with {name}: {why}", hint=f"drop in one run, and use {name} in the next"
            )


@dataclass(frozen=True, eq=False)
class PruneRequest:
    """What `prune` is asked for; see `prune.run`.

    Attributes:
        model: the original.
        options: the budgets, and which units may go.
        inputs: calibration inputs.
        recovery: how to repair.
        place: where the result is timed; nowhere where None, unless a budget is on time.
        verify: prove the result.
    """

    model: Model
    options: Options
    inputs: RunInputs
    recovery: RecoveryOptions | None = None
    place: Place | None = None
    verify: bool = True

    def pruned(self, model: Model, options: Options, progress: Progress) -> Outcome:
        """Units alone removed from a model; what is trained is the better model in the end."""
        inputs, recovery = self.inputs, self.recovery
        given: dict[str, Any] = {"data": inputs.data, "samples": inputs.samples, "sizes": inputs.sizes}
        given["recovery"] = None if recovery is None else replace(recovery, train=None, tune=None)
        given |= {"place": self.place, "verify": self.verify}
        return prune.run(model, replace(options, drop=False), progress=progress, **given)


def run_with_drop(
    model: Model,
    options: Options,
    *,
    data: Any = None,
    samples: int = 256,
    sizes: Mapping[str, int] | None = None,
    **given: Any,
) -> Outcome:
    """Remove blocks and units; the arguments are those of `prune.run`."""
    check_sizes(model.proto.graph, sizes or {})
    progress = given.pop("progress", None)
    return prune_with_drop(PruneRequest(model, options, RunInputs(data, samples, sizes or {}), **given), progress)


def prune_with_drop(asked: PruneRequest, progress: Progress | None = None) -> Outcome:
    """Remove blocks and units under the same budgets, whichever does least damage for what it saves.

    Args:
        asked: what is asked for.
        progress: is told about every stage.

    Returns:
        The better, on samples that no fit saw, of the model without blocks and units, and that without units alone.

    Raises:
        UsageError: there are no inputs, no budgets, or no scores that say what the outputs lose.
        GoalMissed: no unit may go.
    """
    clock, options = Clock(progress), asked.options.settled(data=asked.inputs.data is not None)
    check_droppable(options, asked.recovery, asked.inputs.data)
    alone = asked.pruned(asked.model, options, _told("units alone", clock.progress))
    plan = replace(alone.plan, options=options.as_json() | {"sizes": dict(asked.inputs.sizes)})
    alone = replace(alone, plan=plan)
    work = dropping(asked.model, DropOptions(add_nodes=False), asked.inputs, clock, verify=asked.verify)
    prices = BlockPrices.of(work, options, asked.place, clock)
    with clock("choosing"):
        blocks = prices.cheapest()
    best, seconds = alone, [alone.seconds]
    if blocks:
        named = DropOptions(blocks=tuple(block.name for block in blocks), add_nodes=False)
        dropped = drop_blocks(asked.model, named, asked.inputs, verify=asked.verify, progress=clock.progress)
        both = _with_units_removed(replace(asked, options=options), alone, dropped, clock)
        if both is not None:
            best, seconds = _better(both, alone), [*seconds, dropped.seconds, both.seconds]
    best = _trained(asked, best, clock)
    return replace(best, seconds=_added(*seconds, clock.seconds))


def _trained(asked: PruneRequest, best: Outcome, clock: Clock) -> Outcome:
    """The better model trained towards the original, if it is to be."""
    if asked.recovery is None:
        return best
    dropped, runs = best.dropped, asked.inputs.read(asked.model)
    if dropped is None:
        groups = best.plan.origin or best.groups
        removal = Removal(groups, best.plan.removed(groups))
    else:
        removal = Bypass.of(dropped.groups, [scored.block for scored in dropped.dropped])
    recovery = resumable(asked.recovery, best.model, asked.options, runs, asked.inputs.sizes)
    return prune.with_training(best, removal, runs, recovery, clock)


def _told(what: str, progress: Progress) -> Progress:
    return lambda stage: progress(prefixed(what, stage))


def _added(*seconds: Mapping[str, float]) -> dict[str, float]:
    return {stage: sum(one.get(stage, 0.0) for one in seconds) for one in seconds for stage in one}


def _better(both: Outcome, alone: Outcome) -> Outcome:
    """That which meets its budgets; of two that do, the one whose outputs are nearer to the original's."""

    def rank(outcome: Outcome) -> tuple[bool, float]:
        missed = not all(goal.met for goal in outcome.goals)
        return missed, outcome.judged.distance if outcome.judged is not None else np.inf

    return min(both, alone, key=rank)


def _with_units_removed(asked: PruneRequest, alone: Outcome, dropped: Dropped, clock: Clock) -> Outcome | None:
    """The model without blocks, pruned under what is left of the budgets; None where no unit of it may go."""
    timer = Timer(asked.model, asked.place or Place(), clock.progress) if alone.timed else None
    left = timer.compared(dropped.model).value if timer else 1.0
    options = remaining_budgets(asked.options, alone.goals, left)
    try:
        found = asked.pruned(dropped.model, options, _told("units", clock.progress))
    except GoalMissed:
        return None
    return _joined(asked, alone, dropped, found, timer)


def _joined(asked: PruneRequest, alone: Outcome, dropped: Dropped, found: Outcome, timer: Timer | None) -> Outcome:
    """The model without blocks and units, as what came of the original."""
    blocks = [scored.block for scored in dropped.dropped]
    held = held_out(asked.inputs.read(asked.model))[1]
    timed = None
    if timer is not None and found.timed is not None:
        timed = replace(found.timed, before=timer.before, ratio=timer.compared(found.model), predicted=None)
    goals = tuple(_of_original(goal, alone.goals, timed.after if timed else 0.0) for goal in found.goals)
    return replace(
        found,
        plan=joined_plan(found.plan, dropped, bare_model(asked.model, dropped.plan), asked.options),
        groups=dropped.groups,
        before=alone.before,
        verdict=joined_verdict([dropped.verdict, dropped.repaired_verdict, found.verdict]),
        goals=goals,
        timed=timed,
        judged=agreement(Bypass.of(dropped.groups, blocks), found.model, held),
        dropped=dropped,
        instead=alone.judged,
    )


def _of_original(goal: BudgetResult, goals: Sequence[BudgetResult], seconds: float) -> BudgetResult:
    """A budget of the model without blocks, as one of the original."""
    own = next(one for one in goals if one.kind == goal.kind)
    return replace(own, reached=seconds if goal.kind == LATENCY else goal.reached, why=goal.why)


def joined_plan(plan: Plan, dropped: Dropped, bare: Model, options: Options) -> Plan:
    """One plan of blocks, and of the units that go of the model without them, before its repair.

    Args:
        plan: of the units that go of the repaired model, as it was just made.
        dropped: the model without blocks.
        bare: the same, without any repair.
        options: what was asked for.
    """
    assert plan.origin is not None
    sizes = plan.options.get("sizes")
    groups = trace_turned(trace(bare, **options.policy, sizes=sizes), plan.rotations)
    gone = carried_over(plan.origin, plan.removed(plan.origin), groups)
    chosen = {group.name: np.flatnonzero(gone[group.classes]) for group in groups.groups}
    scores = np.zeros(groups.classes.count)
    known = {step.group: step.scores for step in plan.steps}
    for group in groups.groups:
        if len(known.get(group.name, ())) == len(group.classes):
            scores[group.classes] = known[group.name]
    made = plans.make(groups, chosen, scores, options.as_json(), sizes)
    source = dropped.plan.source or plans.source_of(dropped.groups.model)
    return replace(made, bypasses=dropped.plan.bypasses, rotations=plan.rotations, source=source)


def joined_verdict(verdicts: Sequence[Verdict | None]) -> Verdict | None:
    """One verdict of several steps: the first that failed, or all checks with the largest error."""
    known = [verdict for verdict in verdicts if verdict is not None]
    if not known:
        return None
    failed = next((verdict for verdict in known if not verdict.ok), None)
    if failed is not None:
        return failed
    checks = list(dict.fromkeys(check for verdict in known for check in verdict.checks))
    return replace(max(known, key=lambda verdict: verdict.error), checks=checks)


def remaining_budgets(options: Options, goals: Sequence[BudgetResult], left: float) -> Options:
    """The options for the model without blocks: budgets that count from the original.

    Args:
        options: what was asked for.
        goals: the budgets of the original.
        left: the share of the original's time that a run of the model without blocks takes.
    """
    budgets: dict[str, Any] = {goal.kind: goal.most for goal in goals}
    for goal in goals:
        if goal.kind == LATENCY:
            budgets[LATENCY] = f"{min(100.0, 100 * goal.most / goal.before / left):.4f}%"
    return replace(options, drop=False, **budgets)
