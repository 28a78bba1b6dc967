"""Groups of options that parse themselves: a command gets one object for each, and all of them in one request.

Options have titles, too, under which the help text lists them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import click

from onnxprune.cli.types import FILE
from onnxprune.keywords import synonym

# Titles of the help text, in their order.
OPTIONS = "Options"
AMOUNT = "How much is removed"
UNITS = "Which units are removed"
INPUTS = "Sizes of the inputs"
DATA = "Data, and repair with it"
TRAINING = "Training"
SEARCH = "Search for the smallest model that is good enough"
MACHINE = "Machine and workers"
TITLES = (OPTIONS, AMOUNT, UNITS, INPUTS, DATA, TRAINING, SEARCH, MACHINE)

Command = Callable[..., Any]
# A decorator that declares one option, or several.
Option = Callable[[Command], Command]


def declared(*options: Option) -> Option:
    """Declare options in the order of the help text; the command gets each by its name."""
    return lambda function: functools.reduce(lambda command, option: option(command), reversed(options), function)


def titled(title: str, *options: Option) -> Option:
    """Declare options that the help text lists under a title."""

    def add(function: Command) -> Command:
        before = len(_parameters(function))
        command = declared(*options)(function)
        for parameter in _parameters(command)[before:]:
            parameter.title = title  # type: ignore[attr-defined]
        return command

    return add


class Titled(click.Command):
    """A command whose help text lists options under their titles, and that takes `--config` and `--help-all`.

    Attributes:
        usual: the options that most people need, in their order. Where there are any, `--help` shows these alone, and
            `--help-all` shows all.
    """

    def __init__(self, *given: Any, usual: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*given, **more)
        self.usual = tuple(usual)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, and those of every command."""
        return [*self.params, *_OF_EVERY_COMMAND, *super().get_params(ctx)[len(self.params) :]]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; options of other names are those that mean the same."""
        own = {name for parameter in self.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts)}
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*(_spelled(word, own) for word in args[:end]), *args[end:]])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the lists."""
        lists: dict[str, list[tuple[str, str]]] = {title: [] for title in TITLES}
        options = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option)]
        if self.usual and not ctx.meta.get(_ALL):
            known = {name: option for option in options for name in option.opts}
            options = [known[name] for name in (*self.usual, "--help", "--help-all")]
            for option in options:
                lists[OPTIONS].append(option.get_help_record(ctx) or ("", ""))
        else:
            for option in options:
                record = option.get_help_record(ctx)
                if record is not None:
                    lists[getattr(option, "title", OPTIONS)].append(record)
        for title, records in lists.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _spelled(word: str, own: Collection[str]) -> str:
    """An argument with the name that the command has for the option."""
    name, equals, value = word.partition("=")
    if not name.startswith("--") or name in own:
        return word
    known = {option.removeprefix("--").replace("-", "_"): option for option in own if option.startswith("--")}
    meant = synonym(name.removeprefix("--").replace("-", "_"), known)
    return word if meant is None else f"{known[meant]}{equals}{value}"


# Keys in `click.Context.meta`: whether a command only reads its options, and whether the help shows all of them.
CHECK_ONLY, _ALL = "onnxprune.check-only", "onnxprune.help-all"


def _show_all(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        context.meta[_ALL] = True
        click.echo(context.get_help(), color=context.color)
        context.exit()


def _read_config(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    if path is not None and not context.resilient_parsing:
        from onnxprune.cli.config import set_defaults

        set_defaults(context, path)


_OF_EVERY_COMMAND = (
    click.Option(
        ["--config"],
        type=FILE,
        is_eager=True,
        expose_value=False,
        callback=_read_config,
        help="TOML file with options of the commands.",
    ),
    click.Option(
        ["--help-all"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_all,
        help="Show all options, and exit.",
    ),
)


def group(name: str, parse: Callable[..., object], *options: Option) -> Option:
    """Declare options whose values become one object.

    Args:
        name: the argument of the command that is given the object.
        parse: makes the object, and is given the values by their names; it refuses what contradicts itself.
        options: the options in the order of the help text.
    """

    def add(function: Command) -> Command:
        names: list[str] = []

        @functools.wraps(function)
        def wrapped(*args: Any, **given: Any) -> Any:
            own = {key: given.pop(key) for key in names}
            return function(*args, **given, **{name: parse(**own)})

        before = len(_parameters(function))
        command = declared(*options)(wrapped)
        names += [parameter.name or "" for parameter in _parameters(command)[before:]]
        return command

    return add


def request(kind: Callable[..., object]) -> Option:
    """Hand the command all of its arguments as one object.

    Args:
        kind: a frozen dataclass with a field for every argument, group and single option.
    """

    def add(function: Command) -> Command:
        @functools.wraps(function)
        def wrapped(*args: Any, **given: Any) -> Any:
            made = kind(**given)
            return None if click.get_current_context().meta.get(CHECK_ONLY) else function(*args, made)

        return wrapped

    return add


def _parameters(command: Command) -> list[click.Parameter]:
    """The parameters that click's decorators have declared so far."""
    return getattr(command, "__click_params__", [])
