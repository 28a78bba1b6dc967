"""Recipes: all options of a command as a TOML file, with comments about a model."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from onnxprune.cli.config import check, options_of
from onnxprune.cli.types import Words
from onnxprune.errors import UsageError

WIDTH = 98
# What stands for a value in the help of an option, and one that the option takes; names come from the model.
_EXAMPLES = {"AMOUNT": "50%", "N": "1", "RATIO": "50%", "SHAPE": "1x3x224x224"}
# What is tried where that is not taken: an option of another type, or without such a word.
_OTHERS = (1, 0.5, "50%", "NAME=1")


def text(command: click.Command, about: Sequence[str], names: Mapping[str, str]) -> str:
    """The recipe: it says nothing until a line is taken out of its comment.

    Args:
        command: the command whose options it holds; each with its help, and its default or an example.
        about: lines on the model.
        names: what stands for a value in the help of an option (`GLOB`, or all of `NAME=N`) -> one for this model.
    """
    blocks = [_commented(about), [f"[{command.name}]"]]
    for key, option in options_of(command).items():
        lines = textwrap.wrap(option.help or "", WIDTH)
        if isinstance(option.type, click.Choice):
            lines += textwrap.wrap(f"One of {', '.join(option.type.choices)}.", WIDTH)
        default = _default(option)
        value = _example(key, option, _EXAMPLES | dict(names)) if default is None else default
        blocks.append(_commented([*lines, f"{key} = {_toml(value)}" + ("  # an example" if default is None else "")]))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _commented(lines: Sequence[str]) -> list[str]:
    """Comments; names that a model gives must not end them."""
    return [f"# {''.join(c if c.isprintable() else ' ' for c in line)}".rstrip() for line in lines]


def _default(option: click.Option) -> str | int | float | None:
    """The default of an option; None where it has none."""
    value = option.get_default(click.Context(click.Command("")))
    if not isinstance(value, str | int | float):  # click has a value of its own for none
        return False if option.is_flag else None
    return value


def _example(key: str, option: click.Option, words: Mapping[str, str]) -> Any:
    """A value that the option takes, as its help names it."""
    value = next((e for e in _examples(option, words) if _is_taken(key, e, option)), None)
    return [value] if option.multiple else value


def _examples(option: click.Option, words: Mapping[str, str]) -> Iterator[Any]:
    if isinstance(option.type, click.Choice):
        yield from option.type.choices
    if isinstance(option.type, Words):
        yield ",".join(option.type.known[:2])
    metavar = option.metavar or option.type.name.upper()
    yield words.get(metavar) or "=".join(words.get(part, part) for part in metavar.split("="))
    yield from _OTHERS


def _is_taken(key: str, value: Any, option: click.Option) -> bool:
    try:
        check(key, value, option, key)
    except UsageError:
        return False
    return True


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    quoted = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in str(value))
    return f'"{quoted}"'
