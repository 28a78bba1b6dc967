"""Groups of options that parse themselves: a command gets one object for each, and all of them in one request.

Options have titles, too, under which the help text lists them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

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
    """A command whose help text lists options under their titles."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the lists."""
        lists: dict[str, list[tuple[str, str]]] = {title: [] for title in TITLES}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                lists[getattr(parameter, "title", OPTIONS)].append(record)
        for title, records in lists.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


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
            return function(*args, kind(**given))

        return wrapped

    return add


def _parameters(command: Command) -> list[click.Parameter]:
    """The parameters that click's decorators have declared so far."""
    return getattr(command, "__click_params__", [])
