"""Carry out a plan on a loaded model, and prove what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxprune import calibration
from onnxprune.calibration import is_random
from onnxprune.layers import bn_matching
from onnxprune.model import Model
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.drop import bare_model, drop_blocks
from onnxprune.pipelines.drop_options import DropOptions
from onnxprune.pipelines.dropped import Dropped
from onnxprune.pipelines.low_rank import factors_carried_out
from onnxprune.pipelines.prune import judged_outputs, recovered
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.sparsify import carried_out
from onnxprune.pipelines.unit_order import proven_order
from onnxprune.pipelines.unit_rotation import proven_rotation, trace_turned
from onnxprune.progress import Progress
from onnxprune.proof import Verdict, proven_groups
from onnxprune.recovery import NO_RECOVERY, RecoveryOptions, RecoveryReport
from onnxprune.rewriting import IoRename, Plan, Removal, carried_over, zeroed
from onnxprune.rewriting import io_changes as interface
from onnxprune.rewriting import plan as plans
from onnxprune.rewriting.io_changes import Change, RowMap
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Agreement, blas_threads
from onnxprune.tracing import Groups


@dataclass(frozen=True)
class Executed:
    """What carrying out a plan gave.

    Attributes:
        model: the model.
        groups: the traced original.
        verdict: the proof, if it was asked for.
        io_changes: axes of the model's inputs and outputs that shrank.
        rows: the new numbers of rows that were kept by name.
        io_renames: inputs and outputs that went with blocks, or have another name.
        recovery: what was fitted to calibration data; None if there was none.
        judged: how far the outputs on held-out samples agree with the original's; None without real data.
        dropped: the blocks that went; None if none did.
        zeroed: whether all sizes are those of the original, and zeros stand for what would go.
    """

    model: Model
    groups: Groups
    verdict: Verdict | None
    io_changes: tuple[Change, ...] = ()
    rows: tuple[RowMap, ...] = ()
    io_renames: tuple[IoRename, ...] = ()
    recovery: RecoveryReport | None = None
    judged: Agreement | None = None
    dropped: Dropped | None = None
    zeroed: bool = False


@blas_threads()
def execute(
    model: Model,
    plan: Plan,
    *,
    zero: bool = False,
    verify: bool = True,
    data: Any = None,
    samples: int = 256,
    recovery: RecoveryOptions | None = None,
    progress: Progress | None = None,
) -> Executed:
    """Carry out a plan.

    Args:
        model: the model that the plan was made for, or another export of the same weights.
        plan: the plan.
        zero: keep the sizes and set what goes to zero.
        verify: prove the smaller model before it is recovered; one with zeros in it is not proven.
        data: calibration inputs, to re-fit what is behind the cut.
        samples: how many of them to use.
        recovery: how to re-fit; by least squares where None.
        progress: is told about every stage.

    Raises:
        UsageError: the plan does not fit the model.
    """
    inputs, fits = RunInputs(data, samples), recovery is None or recovery.method != NO_RECOVERY
    sizes = plan.options.get("sizes")
    if plan.reorders:
        model = proven_order(plan.trace(model), plan.reorders, sizes=sizes, verify=verify)
    if plan.zeros:
        done = carried_out(model, plan, inputs, recover=fits, verify=verify)
        if not any(step.remove for step in plan.steps) or (done.verdict is not None and not done.verdict.ok):
            return Executed(done.model, done.groups, done.verdict, judged=done.judged)
        model = done.model
    if plan.bypasses:
        dropped = drop_blocks(
            model, *_as_asked(plan, data, samples, recovery), plan=plan, verify=verify, progress=progress
        )
        failed = [v for v in (dropped.verdict, dropped.repaired_verdict) if v is not None and not v.ok]
        if failed or not (plan.rotations or any(step.remove for step in plan.steps)):
            return _blocks_removed(dropped, failed[0] if failed else dropped.verdict)
        model, plan = dropped.model, _on_repaired(model, dropped, plan)
    if plan.rotations:
        model = proven_rotation(plan.trace(model), plan.rotations, sizes=sizes, verify=verify)
    if plan.factors:
        split = factors_carried_out(model, plan, inputs, recover=fits, verify=verify)
        if not any(step.remove for step in plan.steps) or (split.verdict is not None and not split.verdict.ok):
            return Executed(split.model, split.groups, split.verdict, judged=split.judged)
        model = split.model
    groups = plan.trace(model)
    removed = plan.removed(groups)
    if zero:
        return Executed(zeroed(groups, removed), groups, None, zeroed=True)
    clock = Clock(progress)
    return _units_removed(Removal(groups, removed), plan, inputs, recovery or RecoveryOptions(), clock, verify=verify)


def _blocks_removed(dropped: Dropped, verdict: Verdict | None) -> Executed:
    """What taking blocks out gave, where no unit goes after them."""
    renames, judged = dropped.io_renames, dropped.judged
    return Executed(dropped.model, dropped.groups, verdict, io_renames=renames, judged=judged, dropped=dropped)


def _units_removed(
    removal: Removal, plan: Plan, inputs: RunInputs, recovery: RecoveryOptions, clock: Clock, *, verify: bool
) -> Executed:
    """Take out the units of a plan, prove the result, and repair it where there is data."""
    groups, data, sizes = removal.groups, inputs.data, plan.options.get("sizes")
    small = rewrite(groups, removal.removed_classes)
    runs = [] if data is None else calibration.read(data, groups.model, samples=inputs.samples, sizes=sizes)
    with clock("proving"):
        verdict = proven_groups(groups, plan.removed, small, given=sizes, samples=runs[:1])[1] if verify else None
    matched = bn_matching.matched(groups, runs, random=is_random(data))
    small, report = recovered(removal, small, matched=matched, runs=runs, recovery=recovery, clock=clock, verify=verify)
    judged = judged_outputs(removal, small, report, runs, random=is_random(data))
    changed, kept = interface.changes(removal), interface.row_maps(removal)
    return Executed(small, groups, verdict, io_changes=changed, rows=kept, recovery=report, judged=judged)


def _on_repaired(model: Model, dropped: Dropped, plan: Plan) -> Plan:
    """The plan for a model whose blocks went and whose repair added biases: units are those before the repair."""
    if dropped.repair is None:
        return plan
    models = bare_model(model, plan), dropped.model
    bare, repaired = (trace_turned(plan.trace(each), plan.rotations) for each in models)
    gone = carried_over(bare, plan.removed(bare), repaired)
    chosen = {group.name: np.flatnonzero(gone[group.classes]) for group in repaired.groups}
    made = plans.make(repaired, chosen, np.zeros(repaired.classes.count), plan.options, plan.options.get("sizes"))
    return replace(plan, steps=made.steps, source={}, origin=None)


def _as_asked(plan: Plan, data: Any, samples: int, recovery: RecoveryOptions | None) -> tuple[DropOptions, RunInputs]:
    """How blocks are taken out: as the plan was made, with these inputs."""
    fits = data is not None and (recovery is None or recovery.method != NO_RECOVERY)
    allow = bool(plan.options.get("allow_io_changes", False))
    inputs = RunInputs(data, samples, plan.options.get("sizes") or {})
    add_nodes = not any(step.remove for step in plan.steps)
    return DropOptions(recover=fits, add_nodes=add_nodes, allow_io_changes=allow), inputs
