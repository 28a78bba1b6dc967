"""Proof of blocks that were taken out: the smaller model equals the original run without them.

The reference is the original graph itself, run piece by piece: up to what enters a block, and on from what leaves it,
which is given the value that entered. Nothing is rewritten for that. After a repair, numpy computes what a stand-in
makes of that value, and the layers that were fitted have their new weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from onnxprune.errors import RunError
from onnxprune.model import Model
from onnxprune.model.blocks import GraphBlock
from onnxprune.model.graph import first_output
from onnxprune.proof.compare_outputs import differences
from onnxprune.proof.prove import LONGEST_PROOF, tolerance_of
from onnxprune.proof.runnable import runs_to_compare
from onnxprune.proof.validity import too_large, valid
from onnxprune.proof.verdict import Verdict, of_errors
from onnxprune.rewriting import IoRename
from onnxprune.runtime import Session, run_from
from onnxprune.tracing import Groups
from onnxprune.typing import Array, Feeds

# What stands for a block: from what enters to what leaves.
Stated = Callable[[Array], Array]


@dataclass(frozen=True)
class BypassClaim:
    """What is said of a model without some blocks.

    Attributes:
        blocks: what was taken out, in graph order.
        small: the smaller model.
        renames: what became of its inputs and outputs.
        fitted: the smaller model, flat, whose layers have other weights; None where nothing was fitted.
        stated: exit of a block -> what stands for it; a block that is not named hands on what enters.
    """

    blocks: Sequence[GraphBlock]
    small: Model
    renames: Sequence[IoRename] = ()
    fitted: Model | None = None
    stated: Mapping[str, Stated] = field(default_factory=dict)


def prove_bypassed(
    groups: Groups, claim: BypassClaim, *, sizes: Mapping[str, int] | None = None, samples: Sequence[Feeds] = ()
) -> Verdict:
    """Prove a model without some blocks against the original.

    Args:
        groups: the traced original.
        claim: what is to be proven.
        sizes: numbers for symbolic dims.
        samples: inputs of the user, which are run beside random ones.

    Returns:
        The verdict.
    """
    tolerance, checks = tolerance_of(groups), ["checker and strict shape inference"]
    failed = Verdict(False, math.nan, tolerance, checks=checks)
    if problem := too_large(groups):
        return replace(failed, problem=problem, runnable=False)
    if problem := valid(groups.model, claim.small) or _left(claim):
        return replace(failed, problem=problem)
    checks.append(f"nodes and weights of {len(claim.blocks)} blocks gone")
    runs, problem = runs_to_compare(groups, sizes or {}, samples)
    if problem:
        return replace(failed, problem=problem, runnable=False)
    try:
        errors = _compared(_reference(groups, claim), claim, runs)
    except RunError as error:
        return replace(failed, problem=f"the model without the blocks does not run: {error.message}")
    with_repair = " with the stated maps and weights" if claim.fitted is not None else ""
    return of_errors(errors, tolerance, checks, f"the original run without the blocks{with_repair}")


def _left(claim: BypassClaim) -> str:
    """What is left of a block; empty if nothing is."""
    graph = claim.small.proto.graph
    stored = claim.small.stored
    renamed = {change.now for change in claim.renames}
    made = {name for node in graph.node for name in node.output} - renamed
    exits = {block.exit for block in claim.blocks}
    for block in claim.blocks:
        if left := stored.intersection(block.weights):
            return f"weight {min(left)!r} of block {block.name!r} is still there"
        if nodes := made.intersection(block.nodes) - exits:
            return f"node {min(nodes)!r} of block {block.name!r} is still there"
    return ""


def _compared(reference: Model, claim: BypassClaim, runs: Sequence[Feeds]) -> dict[str, float]:
    """The largest difference of every output over all runs.

    Raises:
        RunError: a model does not run.
    """
    errors: dict[str, float] = {}
    inputs, outputs = ({c.name: c.now for c in claim.renames if c.kind == kind} for kind in ("input", "output"))
    with Session(claim.small, limit=LONGEST_PROOF) as session:
        names = [v.name for v in reference.proto.graph.output if outputs.get(v.name, v.name)]
        now = [outputs.get(name, name) for name in names]
        for feeds in runs:
            own = {inputs.get(name, name): value for name, value in feeds.items()}
            found = session.run({name: own[name] for name in session.inputs if name in own}, now)
            wanted = _without(reference, claim, feeds, names)
            for name, apart in differences(names, wanted, found).items():
                errors[name] = max(apart, errors.get(name, 0.0))
    return errors


def _without(reference: Model, claim: BypassClaim, feeds: Feeds, names: Sequence[str]) -> Sequence[Array]:
    """Outputs of the original where what enters every block, or what stands for it makes of that, also leaves it."""
    held = dict(feeds)
    for block in claim.blocks:
        (entered,) = next(run_from(reference, [held], [block.entry]))
        held[block.exit] = claim.stated.get(block.exit, _same)(entered)
    return next(run_from(reference, [held], names))


def _same(value: Array) -> Array:
    return value


def _reference(groups: Groups, claim: BypassClaim) -> Model:
    """The original, flat; with the fitted layers in the place of their own, where there are any."""
    original = groups.tracing.model
    if claim.fitted is None:
        return original
    inside = {name for block in claim.blocks for name in block.nodes}
    fitted = {first_output(node): node for node in claim.fitted.proto.graph.node}
    proto = onnx.ModelProto()
    proto.CopyFrom(claim.fitted.proto)
    del proto.graph.node[:], proto.graph.output[:]
    proto.graph.output.extend(original.proto.graph.output)
    for node in original.proto.graph.node:
        name = first_output(node)
        proto.graph.node.add().CopyFrom(node if name in inside else fitted.get(name, node))
    return replace(claim.fitted, proto=proto)
