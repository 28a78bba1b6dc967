"""`onnxprune inspect`: show the groups of a model, and what is locked and why."""

from __future__ import annotations

from dataclasses import dataclass

import click

from onnxprune.cli import paths
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.execution import Where, place
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import Account, Reporting, reporting
from onnxprune.cli.options.selection import Policy, policy
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE, Ratios


@dataclass(frozen=True)
class InspectArgs:
    """What `inspect` is asked for."""

    model: str
    members: bool
    time: bool
    what_if: tuple[float, ...]
    place: Where
    policy: Policy
    sizes: Sizes
    force: bool
    told: Reporting


@click.command(cls=Titled)
@check_requirements
@click.argument("model", type=FILE)
@click.option("--members", is_flag=True, help="List the weights of every group and barrier.")
@click.option("--time", is_flag=True, help="Measure what groups take of a run, and what their widths should be.")
@click.option(
    "--what-if",
    metavar="RATIO,RATIO",
    type=Ratios(),
    default=(),
    help="Say what these ratios would leave, without removing anything: 30%,50%,70%. With --time, of a run, too.",
)
@place
@policy
@sizes
@shared.force
@reporting
@shared.conversation
@request(InspectArgs)
def inspect(console: Console, args: InspectArgs) -> None:
    """Show the groups of MODEL that can shrink, and what is locked and why.

    A group is what must shrink together, a unit the smallest part of it that can go. A barrier is a reason
    that locks axes of weights; other axes of the same weights may still shrink.
    """
    args.told.check(inputs=[args.model], force=args.force)
    console.progress("loading")
    from onnxprune.allocation import timed
    from onnxprune.cost import counts
    from onnxprune.report import data, text

    source = args.sizes.load(args.model)
    console.progress("tracing")
    groups = args.policy.trace(source, args.sizes.numbers)
    total = counts.of(source, args.sizes.numbers)
    place = args.place.settled(args.sizes.numbers) if args.time else None
    times = timed.group_times(groups, place, console.progress) if place is not None else None
    document = data.header("inspect") | {"model": args.model} | data.inspection_json(groups, total, times)
    lines = text.inspection(paths.shown(args.model), groups, total, times, members=args.members)
    if args.what_if:
        from onnxprune.allocation.forecast import forecast
        from onnxprune.report.forecast import forecast_data, forecast_lines

        expected = forecast(groups, args.what_if, place, console.progress)
        document["forecast"] = forecast_data(expected)
        lines += ["", *forecast_lines(expected)]
    args.told.tell(console, Account(f"groups of {paths.shown(args.model)}", document, lines, {"model": args.model}))
