"""`onnxprune ops`: list the operators that have a rule."""

from __future__ import annotations

from fnmatch import fnmatchcase

import click

from onnxprune.cli.options import common as shared
from onnxprune.cli.options.group import Titled
from onnxprune.cli.options.reporting import as_json
from onnxprune.cli.output import Console
from onnxprune.errors import UsageError


@click.command(cls=Titled)
@click.argument("glob", default="*")
@as_json
@shared.conversation
def ops(console: Console, glob: str, as_json: bool) -> None:
    """List the operators that channels are followed through; GLOB picks some (`*Norm*`).

    Every other operator is a barrier: what enters or leaves it stays whole. Where that is so by the operator's
    nature, the reason is listed too.
    """
    from onnxprune.report import data, text
    from onnxprune.tracing import UNTRACEABLE
    from onnxprune.tracing.rules import all_rules

    rules = [r for r in all_rules() if any(fnmatchcase(x, glob.lower()) for x in (r.op.lower(), r.family))]
    whole = {op: why for op, why in sorted(UNTRACEABLE.items()) if fnmatchcase(op.lower(), glob.lower())}
    if not rules and not whole:
        raise UsageError(f"no operator or family matches {glob!r}", hint="`onnxprune ops` lists all")
    if as_json:
        console.put_json(data.header("ops") | {"operators": [data.operator(r) for r in rules], "whole": whole})
        return
    if rules:
        console.put(text.operator_lines(rules))
    if whole:
        console.put([*([""] if rules else []), *text.barriers_of(whole)])
