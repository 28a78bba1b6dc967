"""Values of options that are written in a way of their own."""

from __future__ import annotations

from typing import Any

import click


class Ratio(click.ParamType):
    """A fraction: `0.5` or `50%`."""

    name = "ratio"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a ratio."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        text = str(value).strip()
        try:
            return float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            self.fail(f"'{value}' is not a ratio: write 0.5 or 50%", param, ctx)


class Ratios(click.ParamType):
    """Several ratios: `0.1,0.5` or `10%,50%`."""

    name = "ratios"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Read the ratios."""
        if isinstance(value, tuple):
            return value
        parts = value if isinstance(value, list) else str(value).split(",")
        return tuple(Ratio().convert(part, param, ctx) for part in parts)


class Pair(click.ParamType):
    """`NAME=VALUE`, the value of another type."""

    name = "pair"

    def __init__(self, value: click.ParamType) -> None:
        self.value = value

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Read a pair; the name may hold `=` too."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).rpartition("=")
        if not equals or not name:
            self.fail(f"'{value}' is not of the form {param.metavar if param else 'NAME=VALUE'}", param, ctx)
        return name, self.value.convert(text, param, ctx)


class Shape(click.ParamType):
    """The sizes of an input: `1x3x224x224`, `?x3` where the first is left open; a scalar's is empty."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | None, ...]:
        """Read a shape."""
        if isinstance(value, tuple):
            return value
        sizes = str(value).strip().lower().split("x") if str(value).strip() else []
        if not all(s == "?" or (s.isdecimal() and 0 < int(s) < 1 << 31) for s in sizes):
            self.fail(f"'{value}' is not a shape: write 1x3x224x224", param, ctx)
        return tuple(None if s == "?" else int(s) for s in sizes)


class Multiple(click.ParamType):
    """A positive number, or `auto`."""

    name = "multiple"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read a multiple."""
        text = str(value).strip().lower()
        if text == "auto":
            return text
        if not text.isdecimal() or int(text) < 1:
            self.fail(f"'{value}' is not a positive number, nor auto", param, ctx)
        return int(text)


class Counts(click.ParamType):
    """Positive numbers: `1,8`."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Read a list."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"'{value}' is not a list of positive numbers: write 1,8", param, ctx)
        return tuple(map(int, parts))
