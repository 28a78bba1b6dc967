"""`onnxprune diff`: compare two models layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import click

from onnxprune.cli import paths
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.reporting import Account, Reporting, reporting
from onnxprune.cli.options.sizes import Sizes, shapes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE


@dataclass(frozen=True)
class DiffArgs:
    """What `diff` is asked for."""

    first: str
    second: str
    every: bool
    sizes: Sizes
    force: bool
    told: Reporting


@click.command(cls=Titled)
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.option("--all", "every", is_flag=True, help="Show layers that are the same too.")
@shapes
@shared.force
@reporting
@shared.conversation
@request(DiffArgs)
def diff(console: Console, args: DiffArgs) -> None:
    """Compare the layers and costs of two models.

    Layers are matched by the names of their nodes and weights, and, where these are other ones, by what they are and
    the order in which they stand. Costs are for one sample.
    """
    first, second = args.first, args.second
    paths.check_one_pipe(first, second)
    args.told.check(inputs=[first, second], force=args.force)
    console.progress("counting")
    from onnxprune.cost import counts
    from onnxprune.report import data
    from onnxprune.report import difference as report

    models, files = (args.sizes.load(first), args.sizes.load(second)), {"first": first, "second": second}
    before, after = (counts.of(model) for model in models)
    layers = report.pair(before.layers, after.layers)
    title = f"{paths.shown(first)} -> {paths.shown(second)}"
    document = data.header("diff") | files | report.difference_json(before, after, layers)
    document |= {"operators": report.operators_changed(*models)}
    lines = [title, "", *report.difference_lines(before, after, layers, every=args.every)]
    args.told.tell(console, Account(title, document, lines, files))
