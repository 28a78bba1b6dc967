"""`onnxprune inspect`."""

from __future__ import annotations

import click

from onnxprune.cli import paths
from onnxprune.cli.option_requirements import heeded
from onnxprune.cli.options import common as shared
from onnxprune.cli.output import Console


@click.command()
@heeded
@click.argument("model")
@click.option("--members", is_flag=True, help="List the weights of every group and barrier.")
@click.option("--time", is_flag=True, help="Measure what groups take of a run, and what their widths should be.")
@shared.place
@shared.policy
@shared.sizes
@shared.as_json
@shared.conversation
def inspect(
    console: Console,
    model: str,
    members: bool,
    time: bool,
    place: shared.Where,
    heads: bool,
    head_dims: bool,
    allow_io_changes: bool,
    sizes: dict[str, int],
    as_json: bool,
) -> None:
    """Show the groups of MODEL that can shrink, and what is locked and why.

    A group is what must shrink together, a unit the smallest part of it that can go. A barrier is a reason
    that locks axes of weights; other axes of the same weights may still shrink.
    """
    console.progress("loading")
    from onnxprune import api
    from onnxprune.allocation import timed
    from onnxprune.cost import counts
    from onnxprune.report import data, text

    source = paths.load(model)
    shared.check_sizes(source, sizes)
    console.progress("tracing")
    groups = api.trace(source, heads=heads, head_dims=head_dims, allow_io_changes=allow_io_changes, sizes=sizes)
    total = counts.of(source, sizes)
    times = timed.group_times(groups, place.settled(), console.progress) if time else None
    if as_json:
        console.put_json(data.header("inspect") | {"model": model} | data.inspection(groups, total, times))
    else:
        console.put(text.inspection(paths.shown(model), groups, total, times, members=members))
