"""`onnxprune criteria`: list the criteria that can score units."""

from __future__ import annotations

from dataclasses import asdict

import click

from onnxprune.cli.options import common as shared
from onnxprune.cli.options.group import Titled
from onnxprune.cli.options.reporting import as_json
from onnxprune.cli.output import Console


@click.command(cls=Titled)
@as_json
@shared.conversation
def criteria(console: Console, as_json: bool) -> None:
    """List what `--criterion` can be, with the defaults of `--aggregate` and `--normalize`."""
    from onnxprune.criteria import listed
    from onnxprune.report import data, text

    if as_json:
        found = [{k: v for k, v in asdict(known).items() if k != "score"} for known in listed()]
        console.put_json(data.header("criteria") | {"criteria": found})
        return
    rows = [(k.name, "data" if k.needs_data else "", k.aggregate, k.normalize, k.summary) for k in listed()]
    console.put(text.table(("criterion", "needs", "aggregate", "normalize", "a unit's score"), rows))
