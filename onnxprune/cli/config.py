"""Options of the commands from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import click

from onnxprune.cli import paths
from onnxprune.errors import UsageError


def read(path: str, commands: Mapping[str, click.Command]) -> dict[str, dict[str, Any]]:
    """The options in a file, for click's `default_map`.

    Args:
        path: a file with one table per command, or a `pyproject.toml` with these under `[tool.onnxprune]`.
        commands: the commands by name.

    Raises:
        UsageError: the file cannot be read, or says something unknown.
    """
    try:
        content = tomllib.loads(paths.read_text(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    place = "$"
    if isinstance(content.get("tool"), dict):
        content, place = content["tool"].get("onnxprune", {}), "$.tool.onnxprune"
    found: dict[str, dict[str, Any]] = {}
    for name, table in content.items():
        if name not in commands or not isinstance(table, dict):
            raise UsageError(
                f"unknown command {name!r} @ {place}.{name} in {path}",
                hint=f"tables are named {', '.join(commands)}",
            )
        found[name] = _options(table, commands[name], f"{place}.{name}", path)
    return found


def options_of(command: click.Command) -> dict[str, click.Option]:
    """The options of a command that a file may hold, by their names on the command line without the dashes."""
    return {
        name.removeprefix("--"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in ("verbose", "quiet")
        for name in parameter.opts
        if name.startswith("--")
    }


def _options(table: Mapping[str, Any], command: click.Command, place: str, path: str) -> dict[str, Any]:
    known, values = options_of(command), dict[str, Any]()
    for key, value in table.items():
        where = f"{place}.{key} in {path}"
        if key not in known:
            close = get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise UsageError(f"unknown option {key!r} @ {where}", hint=hint)
        option = known[key]
        assert option.name is not None
        if not isinstance(value, list):
            check(key, value, option, where)
            values[option.name] = [value] if option.multiple else value
        elif option.multiple:
            for index, item in enumerate(value):
                check(key, item, option, f"{place}.{key}[{index}] in {path}")
            values[option.name] = value
        else:
            raise UsageError(f"option {key!r} takes one value, not a list @ {where}")
    return values


def check(key: str, value: Any, option: click.Option, where: str) -> None:
    """Refuse a value of the wrong type, or one that the option does not take.

    Args:
        key: the option's name.
        value: one value, as TOML has it.
        option: the option.
        where: the path of the value, and the file.

    Raises:
        UsageError: it is refused.
    """
    wanted, types = _types(option)
    if type(value) not in types:
        raise UsageError(f"option {key!r} must be {wanted}, not {_KINDS.get(type(value), 'a date')} @ {where}")
    try:
        option.type.convert(value, option, None)
    except click.BadParameter as error:
        text = error.message.rstrip(".")
        raise UsageError(f"option {key!r}: {text[:1].lower()}{text[1:]} @ {where}") from error


def _types(option: click.Option) -> tuple[str, tuple[type, ...]]:
    """What an option is to be, in words and as types of Python."""
    if option.is_flag:
        return "true or false", (bool,)
    if isinstance(option.type, click.types.IntParamType):
        return "a whole number", (int,)
    if isinstance(option.type, click.types.FloatParamType):
        return "a number", (int, float)
    if isinstance(option.type, click.Choice):
        return "a text", (str,)
    return "a text or a number", (str, int, float)


_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", dict: "a table", list: "a list"}
