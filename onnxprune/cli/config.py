"""Options of the commands from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import click

from onnxprune.cli import files
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
        content = tomllib.loads(files.read_text(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    place = "$"
    if isinstance(content.get("tool"), dict):
        content, place = content["tool"].get("onnxprune", {}), "$.tool.onnxprune"
    found: dict[str, dict[str, Any]] = {}
    for name, table in content.items():
        if name not in commands or not isinstance(table, dict):
            raise UsageError(
                f"unknown command {name!r} @ {place} in {path}",
                hint=f"tables are named {', '.join(commands)}",
            )
        found[name] = _options(table, commands[name], f"{place}.{name} in {path}")
    return found


def _options(table: Mapping[str, Any], command: click.Command, place: str) -> dict[str, Any]:
    known = {
        opt.removeprefix("--"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in ("verbose", "quiet")
        for opt in parameter.opts
        if opt.startswith("--")
    }
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"unknown option {key!r} @ {place}", hint=f"known: {', '.join(known)}")
        parameter = known[key]
        if isinstance(value, dict):
            raise UsageError(f"option {key!r} must be a single value or a list @ {place}")
        if isinstance(value, list) != parameter.multiple:
            value = _one_or_many(key, value, parameter, place)
        assert parameter.name is not None
        values[parameter.name] = value
    return values


def _one_or_many(key: str, value: Any, parameter: click.Option, place: str) -> list[Any]:
    if not parameter.multiple:
        raise UsageError(f"option {key!r} takes one value, not a list @ {place}")
    return [value]
