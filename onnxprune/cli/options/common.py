"""Options that several commands share, each defined once."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.options.group import Command, group
from onnxprune.cli.output import Console
from onnxprune.cli.types import Pair
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.model import Model


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

accept_damage = click.option(
    "--accept-damage",
    is_flag=True,
    help="Exit with 0 even where the outputs on samples of --data are far from the original's after all repair.",
)

verify = click.option("--verify/--no-verify", default=True, help="Prove the result, by default; --no-verify skips it.")


def _sizes(sizes: tuple[tuple[str, int], ...]) -> dict[str, int]:
    return dict(sizes)


# Numbers for symbolic axes by their names; the command gets `sizes`.
sizes = group(
    "sizes",
    _sizes,
    click.option(
        "--sizes",
        metavar="NAME=N",
        type=Pair(click.IntRange(min=1)),
        multiple=True,
        help="Number to assume for a symbolic axis (batch=4) while shapes are worked out; may be repeated.",
    ),
)


def check_sizes(model: Model, given: dict[str, int]) -> None:
    """Refuse sizes for axes that the model does not have."""
    from onnxprune.model.shapes.symbols import symbolic_dims

    known = list(symbolic_dims(model.proto.graph))
    for name in given:
        if name not in known:
            raise UsageError(
                f"--sizes: no symbolic axis of {model.name} is called {name!r}",
                hint=f"known: {', '.join(known)}" if known else "all axes of its inputs have a size",
            )
