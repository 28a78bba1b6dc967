"""The JSON Schema of recipes, made from the options of the commands: editors complete and check TOML by it.

`python -m onnxprune.cli.recipe_schema` prints it; docs/schemas/recipe.json is a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from onnxprune.cli.config import STEP, VERB, options_of
from onnxprune.cli.types import Words

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema(commands: Mapping[str, click.Command], steps: Sequence[str]) -> dict[str, Any]:
    """Describe the files that `--config` and `onnxprune run` take.

    Args:
        commands: those that may have a table, by name.
        steps: names of those that may be a step.

    Returns:
        The schema, as plain values.
    """
    tables = {name: _table(command) for name, command in commands.items()}
    items = [_step(name, tables[name]) for name in steps]
    return {
        "$schema": DIALECT,
        "title": "Recipe of onnxprune",
        "type": "object",
        "properties": {**tables, STEP: {"type": "array", "items": {"oneOf": items}}},
        "additionalProperties": False,
    }


def _table(command: click.Command) -> dict[str, Any]:
    options = {name: _option(option) for name, option in options_of(command).items()}
    return {"type": "object", "properties": options, "additionalProperties": False}


def _step(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """A step: its command, and the options of the command."""
    return {**table, "properties": {VERB: {"const": name}, **table["properties"]}, "required": [VERB]}


def _option(option: click.Option) -> dict[str, Any]:
    one = _value(option)
    said = {"description": option.help} if option.help else {}
    if option.multiple or isinstance(option.type, Words):
        return {**said, "anyOf": [one, {"type": "array", "items": one}]}
    return {**said, **one}


def _value(option: click.Option) -> dict[str, Any]:
    """What one value of an option may be."""
    kind = option.type
    if option.is_flag:
        return {"type": "boolean"}
    if isinstance(kind, click.Choice):
        return {"enum": list(kind.choices)}
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        return {"type": "integer" if isinstance(kind, click.types.IntParamType) else "number", **_bounds(kind)}
    return {"type": ["string", "number"]}


def _bounds(kind: Any) -> dict[str, Any]:
    found = {}
    for name, key in (("min", "inimum"), ("max", "aximum")):
        bound = getattr(kind, name, None)
        if bound is not None:
            found["exclusiveM" + key if getattr(kind, f"{name}_open") else "m" + key] = bound
    return found


if __name__ == "__main__":
    import json

    from onnxprune.cli.app import COMMANDS, STEPS, app

    root = click.Context(app)
    known = {name: command for name in COMMANDS if (command := app.get_command(root, name))}
    click.echo(json.dumps(recipe_schema(known, STEPS), indent=1))
