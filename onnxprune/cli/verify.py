"""`onnxprune verify`: prove that a pruned model equals the masked original."""

from __future__ import annotations

from dataclasses import dataclass

import click

from onnxprune.cli import paths
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data, data
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import Account, Reporting, reporting
from onnxprune.cli.options.sizes import Sizes, shapes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE
from onnxprune.errors import GoalMissed


@dataclass(frozen=True)
class VerifyArgs:
    """What `verify` is asked for."""

    original: str
    pruned: str
    plan: str
    sizes: Sizes
    data: Data
    force: bool
    told: Reporting


@click.command(cls=Titled)
@check_requirements
@click.argument("original", type=FILE)
@click.argument("pruned", type=FILE)
@click.option("--plan", type=FILE, required=True, help="The plan that says what was removed.")
@shapes
@data
@shared.force
@reporting
@shared.conversation
@request(VerifyArgs)
def verify(console: Console, args: VerifyArgs) -> None:
    """Prove that PRUNED is what the plan makes of ORIGINAL.

    PRUNED must be valid, run, and give the same outputs as ORIGINAL with everything masked that the plan
    removes. The exit code is 1 where it does not. The inputs are random, or, where ORIGINAL does not run on
    these, those of --data.
    """
    paths.check_one_pipe(args.original, args.pruned, args.plan)
    args.told.check(inputs=[args.original, args.pruned, args.plan], force=args.force)
    console.progress("loading")
    from onnxprune.pipelines.verify import prove
    from onnxprune.report import data, text
    from onnxprune.rewriting import Plan

    steps = Plan.from_json(paths.read_text(args.plan))
    original, pruned = args.sizes.load(args.original), paths.load(args.pruned)
    console.progress("proving")
    verdict = prove(original, pruned, steps, data=args.data.source, samples=args.data.samples)
    document = data.header("verdict") | {"mended": list(original.mended)} | data.verdict(verdict)
    lines = [*text.mends(original), f"{paths.shown(args.pruned)}: {text.proof(verdict)}"] if verdict.ok else []
    files = {"original": args.original, "pruned": args.pruned, "plan": args.plan}
    title = f"{paths.shown(args.pruned)} against {paths.shown(args.original)}"
    args.told.tell(console, Account(title, document, lines, files, models=(original, pruned)))
    if not args.told.as_json and verdict.ok:
        console.detail(f"checked: {', '.join(verdict.checks)}")
    if not verdict.ok:
        raise GoalMissed(
            f"{paths.shown(args.pruned)} is not what the plan makes of {paths.shown(args.original)}: {verdict.problem}"
        )
