"""`onnxprune plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxprune.cli import files, goals
from onnxprune.cli import options as shared
from onnxprune.cli.needs import heeded
from onnxprune.cli.output import Console

if TYPE_CHECKING:
    from onnxprune.allocation.options import Options
    from onnxprune.calibration import Source


@click.command()
@heeded
@click.argument("model")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default=files.PIPE,
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
    files.check_target(output, inputs=[model], force=force, binary=False)
    console.progress("planning")
    from onnxprune import api
    from onnxprune.allocation.timed import needs_tables
    from onnxprune.report import text

    source = files.load(model)
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
    if output == files.PIPE:
        console.put(made.to_json().rstrip("\n"))
    else:
        files.write_text(made.to_json(), output)
    summary = [*text.removal(made), *text.budgets(reached), *text.locked(groups)]
    if output == files.PIPE:
        console.detail(summary)
    elif not console.quiet:
        console.put([files.arrow(model, output), "", *summary])
    goals.check(reached, groups, options)
