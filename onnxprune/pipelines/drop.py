"""Take whole blocks out of a loaded model, prove the result, and repair it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import onnx

from onnxprune.allocation import BudgetResult
from onnxprune.calibration import is_random
from onnxprune.cost import Cost, counts
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model, file_size, sums_apart, sums_together
from onnxprune.model.blocks import GraphBlock, find_blocks
from onnxprune.model.data_flow import DataFlow
from onnxprune.pipelines.block_choice import BlockChoice, BlockCosts
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.drop_options import DropOptions, named_blocks
from onnxprune.pipelines.dropped import Dropped, ScoredBlock
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.progress import Progress
from onnxprune.proof import BypassClaim, Verdict, prove_bypassed
from onnxprune.recovery import RecoveryReport, StandIn, held_out, recover, spans_of, split_runs, with_stand_ins
from onnxprune.rewriting import (
    Bypass,
    BypassStep,
    IoRename,
    Plan,
    agreement,
    blocks_of,
    bypassed,
    original_outputs,
    shortened,
    with_fewer_io,
)
from onnxprune.rewriting.plan import source_of
from onnxprune.rewriting.rewrite import nested
from onnxprune.runtime import Agreement, blas_threads
from onnxprune.tracing import Groups
from onnxprune.tracing import trace as trace_model
from onnxprune.typing import Runs


def list_blocks(model: Model, options: DropOptions, sizes: Mapping[str, int] | None = None) -> tuple[ScoredBlock, ...]:
    """List what could be dropped.

    Args:
        model: the model.
        options: which blocks stay, and what may change.
        sizes: numbers for symbolic dims.

    Returns:
        All blocks, in graph order, with what they cost and why some must stay.
    """
    model = sums_apart(model)
    groups = trace_model(model, sizes=sizes)
    blocks = find_blocks(DataFlow(groups.tracing.model, groups.static))
    costs = BlockCosts.of(groups, counts.of_trace(groups.tracing, model))
    return tuple(_scored(costs, block, options) for block in blocks)


def _scored(costs: BlockCosts, block: GraphBlock, options: DropOptions) -> ScoredBlock:
    return ScoredBlock(block, costs.params(block), costs.macs(block), why=options.why_kept(block))


@blas_threads()
def drop_blocks(
    model: Model,
    options: DropOptions,
    inputs: RunInputs | None = None,
    *,
    plan: Plan | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> Dropped:
    """Choose blocks, take them out, prove the result, and repair it.

    Args:
        model: the model.
        options: which blocks, or how many.
        inputs: calibration inputs, which choose and repair.
        plan: the blocks to take out, in place of a choice.
        verify: prove the result.
        progress: is told about every stage.

    Returns:
        The smaller model and what was done.

    Raises:
        UsageError: a glob or the plan names no block, or one that must stay.
        GoalMissed: there is no block, or the budgets cannot be met.
    """
    inputs, clock = inputs or RunInputs(), Clock(progress)
    work = dropping(model, options, inputs, clock, verify=verify)
    chosen, scores, criterion = work.chosen(plan)
    while True:
        made = work.made(chosen)
        goals = work.goals(made.model, made.after)
        if all(goal.met for goal in goals) or not (more := work.next(chosen, scores)):
            break
        chosen = more
    return Dropped(
        model=made.model,
        plan=work.plan(chosen, made.stand_ins),
        groups=work.groups,
        blocks=tuple(replace(work.scored(b), score=scores.get(b.name), dropped=b in chosen) for b in work.blocks),
        before=work.costs.total,
        after=made.after,
        sizes=(file_size(model), file_size(made.model)),
        verdict=made.verdict,
        repaired_verdict=made.repaired_verdict,
        stand_ins=made.stand_ins,
        repair=made.repair,
        bare=made.bare,
        judged=None if is_random(inputs.data) else made.judged,
        io_renames=made.io_renames,
        goals=goals,
        criterion=criterion,
        seconds=clock.seconds,
    )


def bare_model(model: Model, plan: Plan) -> Model:
    """Take the blocks of a plan out, and no more.

    Args:
        model: the model.
        plan: the blocks.

    Returns:
        The model before any repair: the other steps of a plan are about it.
    """
    allow = bool(plan.options.get("allow_io_changes", False))
    inputs = RunInputs(sizes=plan.options.get("sizes") or {})
    return drop_blocks(model, DropOptions(allow_io_changes=allow), inputs, plan=plan, verify=False).model


def dropping(model: Model, options: DropOptions, inputs: RunInputs, clock: Clock, *, verify: bool) -> Dropping:
    """What is worked on: the traced model with its blocks."""
    runs = inputs.read(model)
    with clock("tracing"):
        groups = trace_model(sums_apart(model), sizes=inputs.sizes)
        return Dropping(
            groups=groups,
            model=model,
            blocks=find_blocks(DataFlow(groups.tracing.model, groups.static)),
            options=options,
            inputs=inputs,
            runs=runs,
            verify=verify,
            costs=BlockCosts.of(groups, counts.of_trace(groups.tracing, groups.model)),
            clock=clock,
        )


@dataclass(frozen=True)
class _Made:
    """Blocks taken out, proven and repaired; see `Dropped`."""

    model: Model
    after: Cost
    verdict: Verdict | None
    repaired_verdict: Verdict | None
    stand_ins: tuple[StandIn, ...]
    repair: RecoveryReport | None
    bare: Agreement | None
    judged: Agreement | None
    io_renames: tuple[IoRename, ...]


@dataclass(frozen=True)
class Dropping:
    """What is worked on.

    Attributes:
        groups: the traced original, sums and norms that are one operator apart.
        model: the original.
        blocks: its blocks.
        options: which go.
        inputs: what the models are run on.
        runs: the calibration inputs.
        verify: prove what is made.
        costs: what blocks cost.
        clock: times the stages.
    """

    groups: Groups
    model: Model
    blocks: Sequence[GraphBlock]
    options: DropOptions
    inputs: RunInputs
    runs: Runs
    verify: bool
    costs: BlockCosts
    clock: Clock

    def scored(self, block: GraphBlock) -> ScoredBlock:
        """A block with what it costs."""
        return _scored(self.costs, block, self.options)

    # --- the choice --------------------------------------------------------------------------------------

    def chosen(self, plan: Plan | None) -> tuple[list[GraphBlock], Mapping[str, float], str]:
        """The blocks that go, what all are worth, and by which criterion."""
        if plan is not None:
            return blocks_of(plan.bypasses, self.blocks), {}, ""
        if self.options.blocks:
            return self._with_twins(self._some(named_blocks(self.options, self.blocks))), {}, ""
        eligible = self.options.eligible(self.blocks)
        if not eligible:
            raise GoalMissed("nothing to drop: no block may go", hint=self._why_none())
        criterion = self.options.criterion
        if criterion == "auto":
            criterion = "divergence" if self.runs else "parameters"
        with self.clock("choosing"):
            choice = BlockChoice(
                groups=self.groups,
                eligible=eligible,
                criterion=criterion,
                runs=self.scoring_runs(),
                options=self.options,
                divergence=self.divergence,
            )
            found, scores = choice.run(self.costs, self.limits(), progress=self.clock.progress)
        return self._with_twins(found), scores, criterion

    def _with_twins(self, chosen: Sequence[GraphBlock]) -> list[GraphBlock]:
        """Blocks with those that go together with them, in graph order."""
        names = {name for block in chosen for name in (block.name, *block.twins)}
        found = [block for block in self.blocks if block.name in names]
        for block, why in ((block, self.options.why_kept(block)) for block in found):
            if why:
                raise UsageError(f"block {block.name!r}, which goes with another one, must stay: {why}")
        return found

    def _some(self, blocks: list[GraphBlock]) -> list[GraphBlock]:
        if not blocks:
            raise GoalMissed("nothing to drop: every block that is named must stay", hint=self._why_none())
        return blocks

    def _why_none(self) -> str:
        if not self.blocks:
            return "no part of the graph has one input and one output of the same shape"
        kept = [f"{b.name}: {self.options.why_kept(b)}" for b in self.blocks if self.options.why_kept(b)]
        return "; ".join(kept[:3]) or f"there are others than {self.options.units}: see --list and --units"

    def scoring_runs(self) -> Runs:
        """The inputs that say what blocks are worth."""
        return held_out(self.runs)[0] if self.runs else []

    def next(self, chosen: Sequence[GraphBlock], scores: Mapping[str, float]) -> list[GraphBlock]:
        """The blocks that go, and one more; none if there is no other."""
        others = [b for b in self.options.eligible(self.blocks) if not any(b.overlaps(c) for c in chosen)]
        if not others or not self.options.budgets:
            return []
        least = min(others, key=lambda block: scores.get(block.name, math.inf))
        return self._with_twins([*chosen, least])

    def limits(self) -> dict[str, float]:
        """Kind of budget -> the most that is allowed."""
        old = _costs(self.costs.total, self.model)
        return {kind: amount.limit(old[kind]) for kind, amount in self.options.budgets.items()}  # type: ignore[union-attr]

    def goals(self, model: Model, after: Cost) -> tuple[BudgetResult, ...]:
        """The budgets, and what a model reaches."""
        now, old = _costs(after, model), _costs(self.costs.total, self.model)
        return tuple(BudgetResult(k, most, reached=now[k], before=old[k]) for k, most in self.limits().items())

    # --- carried out -------------------------------------------------------------------------------------

    def made(self, chosen: Sequence[GraphBlock]) -> _Made:
        """Take blocks out, prove the result, and repair it."""
        bypass, flat = Bypass.of(self.groups, chosen), bypassed(self.groups, chosen)
        with self.clock("rewriting"):
            small, renames = self.finished(flat, chosen)
        claim = BypassClaim(chosen, small, renames)
        verdict = self._proven(claim)
        if verdict is not None and not verdict.ok:
            return self._result(small, verdict=verdict, io_renames=renames)
        if not self.runs:
            return self._result(small, verdict=verdict, io_renames=renames)
        held = held_out(self.runs)[1]
        with self.clock("judging"):
            bare = agreement(bypass, self.whole(flat), held)
        if not self.options.recover:
            return self._result(small, verdict=verdict, io_renames=renames, bare=bare, judged=bare)
        with self.clock("repairing"):
            fitted, stands = self.stood_in(bypass, flat, self._allowed(chosen))
            behind = Bypass.of(self.groups, chosen, fitted)
            fitted, repaired = recover(behind, fitted, self.runs, progress=self.clock.progress)
        with self.clock("judging"):
            judged = agreement(bypass, self.whole(fitted), held)
        if bare.is_known and not judged.distance < bare.distance:  # NaN is none
            return self._result(small, verdict=verdict, io_renames=renames, bare=bare, judged=bare)
        final, renames = self.finished(fitted, chosen)
        stated = {stand.exit: stand.applied for stand in stands}
        proven = self._proven(BypassClaim(chosen, final, renames, fitted, stated))
        return self._result(
            final,
            verdict=verdict,
            repaired_verdict=proven,
            stand_ins=tuple(stands),
            repair=repaired,
            bare=bare,
            judged=judged,
            io_renames=renames,
        )

    def _result(self, model: Model, **rest: Any) -> _Made:
        empty: dict[str, Any] = dict.fromkeys(("verdict", "repaired_verdict", "repair", "bare", "judged"))
        with self.clock("counting"):
            after = counts.of(model, self.inputs.sizes)
        return _Made(**{**empty, "stand_ins": (), "io_renames": (), **rest, "model": model, "after": after})

    def _proven(self, claim: BypassClaim) -> Verdict | None:
        if not self.verify:
            return None
        with self.clock("proving"):
            return prove_bypassed(self.groups, claim, sizes=self.inputs.sizes, samples=self.runs[:1])

    def finished(self, flat: Model, chosen: Sequence[GraphBlock]) -> tuple[Model, tuple[IoRename, ...]]:
        """The model as it is handed out, and what became of its inputs and outputs."""
        small, renames = with_fewer_io(shortened(_copied(flat), chosen), chosen)
        return sums_together(small, self.model, self.groups.model), renames

    def whole(self, flat: Model) -> Model:
        """A flat model that can be run."""
        return nested(_copied(flat))

    def stood_in(self, bypass: Bypass, flat: Model, allowed: Callable[[str, int], bool]) -> tuple[Model, list[StandIn]]:
        """A flat model with stand-ins for its blocks, fitted to `scoring_runs` and chosen on some of them."""

        def distance(other: Model) -> float:
            return self._distance(bypass, other)

        runs, spans = self.scoring_runs(), spans_of(bypass.blocks)
        return with_stand_ins(self.groups, flat, spans, runs, distance=distance, allowed=allowed)

    def _allowed(self, chosen: Sequence[GraphBlock]) -> Callable[[str, int], bool]:
        """Whether a form fits into what the budgets leave, and is far smaller than what was dropped."""
        limits, gone = self.limits(), sum(map(self.costs.params, chosen))
        slack = limits.get("params", math.inf) - (self.costs.total.params - gone)
        slack = min(
            slack if self.options.add_nodes else 0, (limits.get("size", math.inf) - file_size(self.model)) / 4 + gone
        )
        return lambda form, params: params <= min(slack, gone / 2)

    def divergence(self, chosen: Sequence[GraphBlock]) -> float:
        """How far the outputs are from the original's without some blocks, stand-ins in their places."""
        return self._distance(Bypass.of(self.groups, chosen), self.without(chosen))

    @cached_property
    def judges(self) -> Runs:
        """The inputs that say which form of a stand-in it is: some of those that say what blocks are worth."""
        return split_runs(self.scoring_runs(), 0.2)[1]

    @cached_property
    def _wanted(self) -> list[dict[str, Any]]:
        """What the original gives for `judges`."""
        return list(original_outputs(self.groups, self.judges))

    def _distance(self, bypass: Bypass, flat: Model) -> float:
        """How far the outputs of a flat model without blocks are from the original's."""
        return agreement(bypass, self.whole(flat), self.judges, self._wanted).distance

    def without(self, chosen: Sequence[GraphBlock]) -> Model:
        """The flat model without some blocks, stand-ins in their places."""
        chosen = sorted(chosen, key=self.blocks.index)
        flat = bypassed(self.groups, chosen)
        if self.options.recover:
            flat, _ = self.stood_in(Bypass.of(self.groups, chosen), flat, self._allowed(chosen))
        return flat

    def plan(self, chosen: Sequence[GraphBlock], stands: Sequence[StandIn]) -> Plan:
        """What was dropped."""
        forms = {name: stand.form for stand in stands for name in stand.blocks}
        steps = tuple(
            BypassStep(b.name, b.kind, b.entry, b.exit, weights=b.weights, form=forms.get(b.name, "none"))
            for b in chosen
        )
        options = self.options.as_json() | {"sizes": dict(self.inputs.sizes)}
        source = {} if self.groups.model is self.model else source_of(self.model)
        return Plan((), source, options, bypasses=steps, origin=self.groups)


def _costs(cost: Cost, model: Model) -> dict[str, int]:
    """Kind of budget -> what a model of that cost has."""
    return {"params": cost.params, "macs": cost.macs, "size": file_size(model)}


def _copied(model: Model) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    return replace(model, proto=proto)
