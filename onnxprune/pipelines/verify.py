"""Prove that a model is what a plan makes of another, whatever the plan holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from onnxprune import calibration
from onnxprune.model import Model, refuse_negative_sizes, sums_apart
from onnxprune.model.blocks import find_blocks
from onnxprune.model.data_flow import DataFlow
from onnxprune.proof import (
    BypassClaim,
    Claim,
    FactorClaim,
    Trials,
    Verdict,
    equals,
    prove_bypassed,
    prove_factors,
    prove_zeros,
    proven_groups,
)
from onnxprune.rewriting import Plan, blocks_of, bypassed, shortened, stored_dense, with_fewer_io


def prove(original: Model, pruned: Model, plan: Plan, *, data: Any = None, samples: int = 256) -> Verdict:
    """Prove that `pruned` is what `plan` makes of `original`.

    Of a plan that holds several things, the first ones are carried out, and the last one is proven.

    Args:
        original: the model that the plan was made for.
        pruned: what came of it.
        plan: the plan.
        data: inputs to run on where the original does not run on random ones.
        samples: how many of them to read.
    """
    sizes = plan.options.get("sizes")
    runs = (
        []
        if data is None
        else calibration.read(data, original, samples=samples, sizes=sizes, batch=calibration.BATCH)[:1]
    )
    original, plan = _with_last_alone(original, plan)
    groups = plan.trace(sums_apart(original) if plan.bypasses else original)
    refuse_negative_sizes(pruned)
    if plan.reorders or plan.rotations:
        return equals(groups, pruned, Trials(sizes=sizes or {}, samples=runs))
    if plan.zeros:
        dense = stored_dense(pruned)
        return prove_zeros(groups, Claim(plan.zeros, dense, dense, pruned, {}), sizes=sizes, samples=runs)
    if plan.factors:
        return prove_factors(groups, FactorClaim(plan.factors, pruned, pruned), sizes=sizes, samples=runs)
    if plan.bypasses:
        blocks = blocks_of(plan.bypasses, find_blocks(DataFlow(groups.tracing.model, groups.static)))
        _, renames = with_fewer_io(shortened(bypassed(groups, blocks), blocks), blocks)
        return prove_bypassed(groups, BypassClaim(blocks, pruned, renames), sizes=sizes, samples=runs)
    return proven_groups(groups, plan.removed, pruned, given=sizes, samples=runs)[1]


def _with_last_alone(original: Model, plan: Plan) -> tuple[Model, Plan]:
    """The model after all but the last of what a plan holds, in the order of `apply`, and a plan of the last."""
    removing = plan.steps if any(step.remove for step in plan.steps) else ()
    held = {
        "reorders": plan.reorders,
        "zeros": plan.zeros,
        "bypasses": plan.bypasses,
        "rotations": plan.rotations,
        "factors": plan.factors,
        "steps": removing,
    }
    *first, last = [name for name, steps in held.items() if steps] or ["steps"]
    if not first:
        return original, plan
    from onnxprune.pipelines.apply import execute  # which loads all other verbs, too
    from onnxprune.recovery import NO_RECOVERY, RecoveryOptions

    empty: dict[str, Any] = dict.fromkeys(held, ())
    before, alone = replace(plan, **empty | {n: held[n] for n in first}), replace(plan, **empty | {last: held[last]})
    return execute(original, before, verify=False, recovery=RecoveryOptions(NO_RECOVERY)).model, alone
