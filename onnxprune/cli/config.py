"""Options of the commands from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import click

from onnxprune.cli import paths
from onnxprune.cli.types import Words
from onnxprune.errors import UsageError
from onnxprune.keywords import synonym

# The tables of the steps of `onnxprune run`, and what names the command of one.
STEP, VERB = "step", "run"
# Where a context keeps which file its options come from; the key in `click.Context.meta`.
CONFIG = "onnxprune.config"


def set_defaults(context: click.Context, path: str) -> None:
    """Let the options of a file hold for a command and those below it.

    Args:
        context: of the root command, or of one of its commands.
        path: as for `read`.

    Raises:
        UsageError: as for `read`.
    """
    root = context.find_root()
    assert isinstance(root.command, click.Group)
    names = root.command.list_commands(root)
    commands = {name: found for name in names if (found := root.command.get_command(root, name))}
    tables: dict[str, Any] = read(path, commands)
    context.default_map = tables if context is root else tables.get(context.command.name or "", {})
    context.meta[CONFIG] = path


def read(path: str, commands: Mapping[str, click.Command]) -> dict[str, dict[str, Any]]:
    """The options in a file, for click's `default_map`.

    Args:
        path: a file with one table per command, or a `pyproject.toml` with these under `[tool.onnxprune]`. The steps of
            `onnxprune run` may stand in it, too, and are left out.
        commands: the commands by name.

    Raises:
        UsageError: the file cannot be read, or says something unknown.
    """
    content, place = _content(path)
    found: dict[str, dict[str, Any]] = {}
    for name, table in content.items():
        if name == STEP:
            continue
        if name not in commands or not isinstance(table, dict):
            raise UsageError(
                f"unknown command {name!r} @ {place}.{name} in {path}",
                hint=f"tables are named {', '.join(commands)}",
            )
        found[name] = _options(table, commands[name], f"{place}.{name}", path)
    return found


def read_steps(path: str, commands: Mapping[str, click.Command]) -> list[tuple[str, dict[str, Any]]]:
    """The `[[step]]` tables in a file: (command, its options as click's `default_map` has them), in their order.

    Args:
        path: a file, as for `read`.
        commands: the commands that may be steps, by name.

    Raises:
        UsageError: the file cannot be read, has no step, or says something unknown.
    """
    content, place = _content(path)
    tables = content.get(STEP, [])
    if not isinstance(tables, list) or not tables:
        raise UsageError(f"{path} has no steps", hint=f'write [[{STEP}]] and {VERB} = "prune" into it')
    found = []
    for number, table in enumerate(tables):
        where = f"{place}.{STEP}[{number}]"
        name = table.get(VERB) if isinstance(table, dict) else None
        if not isinstance(name, str) or name not in commands:
            said = f"unknown command {name!r}" if name is not None else "no command"
            raise UsageError(f"{said} @ {where}.{VERB} in {path}", hint=f"known: {', '.join(commands)}")
        given = {key: value for key, value in table.items() if key != VERB}
        found.append((name, _options(given, commands[name], where, path)))
    return found


def _content(path: str) -> tuple[dict[str, Any], str]:
    """The tables of a file, and where they lie in it."""
    try:
        content = tomllib.loads(paths.read_text(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    if not isinstance(content.get("tool"), dict):
        return content, "$"
    own = content["tool"].get("onnxprune", {})
    if not isinstance(own, dict):
        raise UsageError(f"$.tool.onnxprune in {path} is no table", hint="write [tool.onnxprune.prune]")
    return own, "$.tool.onnxprune"


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
        if key not in known and (meant := _same(key, known)) not in table:
            key = meant
        if key not in known:
            close = get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise UsageError(f"unknown option {key!r} @ {where}", hint=hint)
        option = known[key]
        assert option.name is not None
        if not isinstance(value, list):
            check(key, value, option, where)
            values[option.name] = [value] if option.multiple else value
        elif option.multiple or isinstance(option.type, Words):
            for index, item in enumerate(value):
                check(key, item, option, f"{place}.{key}[{index}] in {path}")
            values[option.name] = value if option.multiple else tuple(value)
        else:
            raise UsageError(f"option {key!r} takes one value, not a list @ {where}")
    return values


def _same(key: str, known: Mapping[str, click.Option]) -> str:
    """The name that means the same among those that are known; the name itself without one."""
    names = {name.replace("-", "_"): name for name in known}
    meant = synonym(key.replace("-", "_"), names)
    return key if meant is None else names[meant]


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
