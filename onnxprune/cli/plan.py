"""`onnxprune plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.option_requirements import heeded
from onnxprune.cli.options import common as shared
from onnxprune.cli.output import Console

if TYPE_CHECKING:
    from onnxprune.allocation import Options
    from onnxprune.calibration import Source


@click.command()
@heeded
@click.argument("model")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default=paths.PIPE,
    show_default=True,
    help="Where the plan goes; - is standard output.",
)
@shared.selection
@shared.sizes
@shared.place
@shared.data
@shared.force
@shared.conversation
def plan(
    console: Console,
    model: str,
    output: str,
    options: Options,
    sizes: dict[str, int],
    place: shared.Where,
    data: Source | None,
    samples: int,
    force: bool,
) -> None:
    """Write what would be removed from MODEL as JSON, to look at or edit.

    `onnxprune apply` carries it out, on this model or on another export of the same weights.
    """
    paths.check_target(output, inputs=[model], force=force, binary=False)
    console.progress("planning")
    from onnxprune import api
    from onnxprune.allocation.timed import needs_tables
    from onnxprune.report import text

    source = paths.load(model)
    shared.check_sizes(source, sizes)
    where = place.settled() if needs_tables(options) else None
    groups, made, reached = api.plan_for(
        source,
        options,
        sizes=sizes,
        data=data,
        samples=samples,
        place=where,
    )
    if output == paths.PIPE:
        console.put(made.to_json().rstrip("\n"))
    else:
        paths.write_text(made.to_json(), output)
    summary = [*text.removal(made), *text.budgets(reached), *text.locked(groups)]
    if output == paths.PIPE:
        console.detail(summary)
    elif not console.quiet:
        console.put([paths.arrow(model, output), "", *summary])
    missed_budgets.check(reached, groups, options)
