"""`onnxprune verify`."""

from __future__ import annotations

import click

from onnxprune.cli import paths
from onnxprune.cli.options import common as shared
from onnxprune.cli.output import Console
from onnxprune.errors import GoalMissed


@click.command()
@click.argument("original")
@click.argument("pruned")
@click.option("--plan", metavar="FILE", required=True, help="The plan that says what was removed.")
@shared.as_json
@shared.conversation
def verify(console: Console, original: str, pruned: str, plan: str, as_json: bool) -> None:
    """Prove that PRUNED is what the plan makes of ORIGINAL.

    PRUNED must be valid, run, and give the same outputs as ORIGINAL with everything masked that the plan
    removes. The exit code is 1 where it does not.
    """
    paths.check_one_pipe(original, pruned, plan)
    console.progress("loading")
    from onnxprune import api
    from onnxprune.report import data, text
    from onnxprune.rewriting import Plan

    steps = Plan.from_json(paths.read_text(plan))
    models = paths.load(original), paths.load(pruned)
    console.progress("proving")
    verdict = api.prove(*models, steps)
    if as_json:
        console.put_json(data.header("verdict") | data.verdict(verdict))
    elif verdict.ok and not console.quiet:
        console.put(f"{paths.shown(pruned)}: {text.proof(verdict)}")
        console.detail(f"checked: {', '.join(verdict.checks)}")
    if not verdict.ok:
        raise GoalMissed(
            f"{paths.shown(pruned)} is not what the plan makes of {paths.shown(original)}: {verdict.problem}"
        )
