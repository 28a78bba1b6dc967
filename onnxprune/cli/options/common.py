"""Options that several commands share, each defined once."""

from __future__ import annotations

import functools
from typing import Any

import click

from onnxprune.cli.options.group import DATA, Command, titled
from onnxprune.cli.output import Console


def conversation(function: Command) -> Command:
    """Add `-q` and `-v`; the command gets the console as its first argument."""

    @click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
    @click.option("-v", "--verbose", count=True, help="Say more: -v stages and times, -vv debug log and tracebacks.")
    @click.pass_obj
    @functools.wraps(function)
    def wrapped(console: Console, /, *, quiet: bool, verbose: int, **given: Any) -> None:
        console.quiet, console.verbosity = quiet, verbose
        console.attach_log()
        function(console, **given)

    return wrapped


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of text.")

force = click.option("--force", is_flag=True, help="Overwrite existing files (never the input).")

accept_damage = titled(
    DATA,
    click.option(
        "--accept-damage",
        is_flag=True,
        help="Exit with 0 even where the outputs on samples of --data are far from the original's after all repair.",
    ),
)

verify = click.option("--verify/--no-verify", default=True, help="Prove the result, by default; --no-verify skips it.")
