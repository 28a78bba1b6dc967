"""`onnxprune apply`: carry out a plan on a model and prove the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.apply_args import ApplyArgs
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import RECOVERY, data, recovery
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import Account, reporting
from onnxprune.cli.options.sizes import shapes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE
from onnxprune.errors import GoalMissed
from onnxprune.progress import Progress

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.pipelines.apply import Executed
    from onnxprune.rewriting import Plan


@click.command(cls=Titled)
@check_requirements
@click.argument("model", type=FILE)
@click.argument("plan", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Where the model goes; - is standard output.")
@click.option("--zero", is_flag=True, help="Keep all sizes and set what would go to zero (to fine-tune elsewhere).")
@shapes
@shared.verify
@data
@recovery("least-squares", RECOVERY)
@shared.accept_damage
@shared.force
@reporting
@shared.conversation
@request(ApplyArgs)
def apply(console: Console, args: ApplyArgs) -> None:
    """Carry out PLAN on MODEL: the model that it was made for, or another export of the same weights.

    MODEL is a file, - for standard input, or the folder of graphs that the plan was made for. A plan that does not
    fit is refused, with the first mismatch.
    """
    if Path(args.model).is_dir():
        from onnxprune.cli.folder import apply_to_folder

        args = apply_to_folder(console, args)
    args.check()
    console.progress("loading")
    from onnxprune.rewriting import Plan

    steps = Plan.from_json(paths.read_text(args.plan))
    others = (*steps.reorders, *steps.zeros, *steps.bypasses, *steps.rotations, *steps.factors)
    if not others and not any(step.remove for step in steps.steps):
        raise GoalMissed("nothing to prune: the plan removes nothing", hint="add positions to 'remove' of a group")
    source = args.load(steps)
    console.progress("rewriting")
    done = _executed(source, steps, args, console.progress)
    args.write_executed(console, steps, done)
    with missed_budgets.damage_last(console, done.judged, accepted=args.accept_damage):
        _report(console, source, done, steps, args)


def _executed(source: Model, plan: Plan, args: ApplyArgs, progress: Progress) -> Executed:
    """Carry the plan out.

    Raises:
        GoalMissed: the proof failed.
    """
    from onnxprune import api
    from onnxprune.pipelines.prune import check_proven
    from onnxprune.recovery import RecoveryOptions as Recovery

    done = api.execute(
        source,
        plan,
        zero=args.zero,
        verify=args.verify,
        data=args.data.source,
        samples=args.data.samples,
        recovery=Recovery(args.recover),
        progress=progress,
    )
    check_proven(done.groups, done.verdict)
    return done


def _report(console: Console, source: Model, done: Executed, plan: Plan, args: ApplyArgs) -> None:
    from onnxprune.cost import counts
    from onnxprune.report import data as plain
    from onnxprune.report import text

    costs = counts.of(source), counts.of(done.model)
    files = {"model": args.model, "output": args.output}
    document = (
        plain.header("report")
        | files
        | {"before": plain.cost(costs[0]), "after": plain.cost(costs[1])}
        | {"mended": list(source.mended), "groups": plain.steps_json(plan)}
        | {"rotated": [step.group for step in plan.rotations]}
        | {"io_changes": plain.io_changes_json(done.io_changes), "rows": plain.rows_json(done.rows)}
        | {"proof": None if done.verdict is None else plain.verdict(done.verdict)}
        | {"repair": None if done.recovery is None else plain.recovery_json(done.recovery)}
        | {"damage": plain.ruin(done.judged)}
    )
    title = paths.arrow(args.model, args.output)
    lines = [title, "", *text.costs(*costs), "", *text.mends(source), *_lines(done, plan)]
    read = {"plan": args.plan} | files
    args.told.tell(console, Account(title, document, lines, read, models=(source, done.model)))


def _lines(done: Executed, plan: Plan) -> list[str]:
    """What every kind of step did."""
    from onnxprune.report import text
    from onnxprune.report.drop import bypass_lines, io_lines, proof_line
    from onnxprune.report.low_rank import factor_lines
    from onnxprune.report.sparsify import reorder_lines, zeros_lines

    lines = [*(text.removal(plan) if plan.steps else ()), *reorder_lines(plan), *zeros_lines(plan)]
    lines += [*bypass_lines(plan), *factor_lines(plan)]
    lines += [*text.io_changes(done.io_changes), *text.rows(done.rows), *io_lines(done.io_renames)]
    if done.verdict is not None:
        told = proof_line(done.verdict) if plan.bypasses else text.proof(done.verdict)
        lines.append(text.entry("proof", told))
    if done.recovery is not None:
        lines.append(text.entry("repair", text.recovery_lines(done.recovery)))
    return lines
