"""`onnxprune plan`: write what `prune` would remove as a file that can be edited."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import data
from onnxprune.cli.options.execution import place
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.selection import selection
from onnxprune.cli.options.sizes import sizes
from onnxprune.cli.output import Console
from onnxprune.cli.plan_args import PlanArgs
from onnxprune.cli.types import FILE

# What `--help` shows.
USUAL = ("--output", "--ratio", "--macs", "--latency", "--criterion", "--keep", "--only", "--data")


@click.command(cls=Titled, usual=USUAL)
@check_requirements
@click.argument("model", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    default=paths.PIPE,
    show_default=True,
    help="Where the plan goes; - is standard output.",
)
@selection
@sizes
@place
@data
@shared.force
@shared.conversation
@request(PlanArgs)
def plan(console: Console, args: PlanArgs) -> None:
    """Write what would be removed from MODEL as JSON, to look at or edit.

    MODEL is a file, - for standard input, or a folder of graphs with their configuration, which all go into one
    plan. `onnxprune apply` carries it out, on this model or on another export of the same weights.
    """
    paths.check_target(args.output, inputs=[args.model], force=args.force, binary=False)
    console.progress("planning")
    from onnxprune import api
    from onnxprune.allocation.timed import needs_tables
    from onnxprune.report import text

    if Path(args.model).is_dir():
        from onnxprune.cli.folder import plan_of_folder

        args = plan_of_folder(args)
    source = args.load()
    where = args.place.settled(args.sizes.numbers) if needs_tables(args.options) else None
    groups, made, reached = api.plan_for(
        source,
        args.options,
        sizes=args.sizes.numbers,
        data=args.data.source,
        samples=args.data.samples,
        place=where,
        progress=console.progress,
    )
    if args.output == paths.PIPE:
        console.put(made.to_json().rstrip("\n"))
    else:
        paths.write_file(made.to_json(), args.output)
    summary = [*text.removal(made), *text.budgets(reached), *text.locked(groups)]
    if args.output == paths.PIPE:
        console.detail(summary)
    elif not console.quiet:
        console.put([paths.arrow(args.model, args.output), "", *summary])
    missed_budgets.check(reached, groups, args.options)
