"""`onnxprune diff`: compare two models layer by layer."""

from __future__ import annotations

import click

from onnxprune.cli import paths
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.group import Titled
from onnxprune.cli.options.sizes import Sizes, shapes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE


@click.command(cls=Titled)
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.option("--all", "every", is_flag=True, help="Show layers that are the same too.")
@shapes
@shared.as_json
@shared.conversation
def diff(console: Console, first: str, second: str, every: bool, sizes: Sizes, as_json: bool) -> None:
    """Compare the layers and costs of two models.

    Layers are matched by the names of their nodes. Costs are for one sample.
    """
    paths.check_one_pipe(first, second)
    console.progress("counting")
    from onnxprune.cost import counts
    from onnxprune.report import data, text

    before, after = counts.of(sizes.load(first)), counts.of(sizes.load(second))
    layers = data.pair(before.layers, after.layers)
    if as_json:
        console.put_json(
            data.header("diff") | {"first": first, "second": second} | data.difference_json(before, after, layers)
        )
    else:
        console.put(
            [
                f"{paths.shown(first)} -> {paths.shown(second)}",
                "",
                *text.difference_lines(before, after, layers, every=every),
            ]
        )
