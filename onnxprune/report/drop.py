"""What dropping blocks gave, as text and as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxprune.report import data as plain
from onnxprune.report import numbers, text

if TYPE_CHECKING:
    from onnxprune.pipelines.dropped import Dropped, ScoredBlock
    from onnxprune.pipelines.expert_groups import ExpertGroup
    from onnxprune.proof import Verdict
    from onnxprune.rewriting import IoRename, Plan
    from onnxprune.runtime import Agreement

# Inputs and outputs that the account names.
MOST = 12


def drop_lines(done: Dropped) -> list[str]:
    """Write the account of one run.

    Args:
        done: what was done.

    Returns:
        Costs, blocks, what stands for them, proofs and agreement.
    """
    made = [*text.costs(done.before, done.after), ""]
    total = len([b for b in done.blocks if b.block.kind != "branch"])
    names = ", ".join(scored.block.name for scored in done.dropped)
    made.append(text.entry("dropped", f"{numbers.plural(len(done.dropped), 'block')} of {total}: {names}"))
    if done.criterion:
        made.append(
            text.entry(
                "chosen",
                f"by {done.criterion}, the lowest: {_scores(done)}" if _scores(done) else f"by {done.criterion}",
            )
        )
    made += [text.entry("repair", line) for line in _repair(done)]
    made += io_lines(done.io_renames) + text.budgets(done.goals)
    if done.verdict is not None:
        made.append(text.entry("proof", proof_line(done.verdict)))
    if done.repaired_verdict is not None:
        made.append(text.entry("", f"repaired: {proof_line(done.repaired_verdict)}"))
    return made


def proof_line(of: Verdict) -> str:
    """Write what was proven."""
    if not of.ok:
        return f"failed: {of.problem}"
    return f"{of.checks[-1]}, largest error {numbers.error(of.error)} (tolerance {numbers.error(of.tolerance)})"


def _scores(done: Dropped) -> str:
    known = [scored.score for scored in done.dropped if scored.score is not None and math.isfinite(scored.score)]
    return ", ".join(f"{score:,.0f}" if done.criterion == "parameters" else f"{score:.3g}" for score in known)


def _repair(done: Dropped) -> list[str]:
    """What stands for the blocks, what was re-fitted, and what that gave."""
    if done.bare is None or done.judged is None:
        return []
    forms = [f"{_FORMS.get(stand.form, stand.form)} for {', '.join(stand.blocks)}" for stand in done.stand_ins]
    lines = forms
    if done.repair is not None and done.repair.kept:
        better = sum(fit.kept for fit in done.repair.fits)
        lines = [*lines, f"{better} of {numbers.plural(len(done.repair.fits), 'layer')} behind re-fitted"]
    return [*lines, _agreement(done.bare, done.judged)]


_FORMS = {
    "fold": "the layer in front fitted to stand",
    "map": "a product with a matrix stands",
    "scale": "a factor and a shift per channel stand",
    "fold+map": "the layer in front and a product with a matrix stand",
    "fold+scale": "the layer in front and a factor and a shift per channel stand",
    "none": "nothing stands",
}


def _agreement(bare: Agreement, judged: Agreement) -> str:
    if not judged.is_known:
        return "no output tells what that is worth"
    parts = [f"squared output error {bare.error:.2g} -> {judged.error:.2g}"]
    if bare.top1 is not None and judged.top1 is not None:
        parts.append(f"same class {bare.top1:.0%} -> {judged.top1:.0%}")
    return f"{', '.join(parts)} on held-out samples"


def io_lines(of: Sequence[IoRename]) -> list[str]:
    """Write what became of inputs and outputs."""
    lines = [text.entry("changed", f"{c.kind} {c.name} -> {c.now or '(gone)'}") for c in of[:MOST]]
    if len(of) > MOST:
        lines.append(text.entry("", f"{numbers.plural(len(of) - MOST, 'more change')}: see --json"))
    return lines


def block_lines(blocks: Sequence[ScoredBlock]) -> list[str]:
    """Write what could be dropped.

    Args:
        blocks: all blocks of a model.

    Returns:
        A table; branches are indented below their block.
    """
    if not blocks:
        return ["no part of the graph has one input and one output of the same shape"]
    rows = [
        (
            f"{'  ' if b.block.kind == 'branch' else ''}{b.block.name}",
            b.block.kind,
            numbers.count(b.params),
            numbers.count(b.macs),
            str(len(b.block.nodes)),
            f"stays: {b.why}" if b.why else "",
        )
        for b in blocks
    ]
    return text.table(("block", "kind", "params", "MACs", "nodes", ""), rows, ("params", "MACs", "nodes"))


def expert_lines(experts: Sequence[ExpertGroup]) -> list[str]:
    """Write which experts could go, and how.

    Args:
        experts: those of a model.

    Returns:
        A line for each mixture.
    """
    return [
        text.entry(
            "experts", f"{one.count} of {one.node}: prune --only {one.group} --ratio {1 / one.count:.2g} drops one"
        )
        for one in experts
    ]


def bypass_lines(plan: Plan) -> list[str]:
    """Write which blocks a plan takes out; nothing where it takes none."""
    if not plan.bypasses:
        return []
    names = ", ".join(step.block for step in plan.bypasses)
    return [text.entry("dropped", f"{numbers.plural(len(plan.bypasses), 'block')}: {names}")]


def blocks_data(blocks: Sequence[ScoredBlock]) -> list[dict[str, Any]]:
    """Write the same as plain data."""
    return [
        {
            "name": b.block.name,
            "kind": b.block.kind,
            "entry": b.block.entry,
            "exit": b.block.exit,
            "nodes": len(b.block.nodes),
            "params": b.params,
            "macs": b.macs,
            "score": b.score if b.score is not None and math.isfinite(b.score) else None,
            "dropped": b.dropped,
            "stays": b.why,
            "outputs": list(b.block.outputs),
        }
        for b in blocks
    ]


def drop_data(done: Dropped) -> dict[str, Any]:
    """Write what was done as plain data."""
    return {
        "before": plain.cost(done.before),
        "after": plain.cost(done.after),
        "bytes": {"before": done.sizes[0], "after": done.sizes[1]},
        "criterion": done.criterion,
        "blocks": blocks_data(done.blocks),
        "stand_ins": [
            {"blocks": list(stand.blocks), "form": stand.form, "params": stand.params} for stand in done.stand_ins
        ],
        "budgets": [asdict(goal) | {"met": goal.met} for goal in done.goals],
        "io_changes": [asdict(change) for change in done.io_renames],
        "repair": None if done.repair is None else plain.recovery_json(done.repair),
        "damage": plain.ruin(done.judged),
        "proof": None if done.verdict is None else plain.verdict(done.verdict),
        "repaired_proof": None if done.repaired_verdict is None else plain.verdict(done.repaired_verdict),
        "seconds": {stage: round(value, 4) for stage, value in done.seconds.items()},
    }
