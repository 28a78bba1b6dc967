"""Types of command-line options that click does not have: ratios, sizes, budgets."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# The largest size of an axis, and count of anything, that is taken for meant.
LARGEST = 2**31 - 1
# Hours, minutes and seconds, and how many seconds each has.
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?")
_UNITS = (3600, 60, 1)
# Letters of a value that a message shows.
LONGEST_SHOWN = 60


class PathName(click.types.StringParamType):
    """A path that the shell completes; any text is taken, and looked at by who opens the file."""

    def __init__(self, name: str, kind: str) -> None:
        """Prepare.

        Args:
            name: what the help calls it.
            kind: what the shell completes: "file" or "dir".
        """
        self.name, self.kind = name, kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Leave it to the shell."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type=self.kind)]


FILE = PathName("file", "file")
FOLDER = PathName("folder", "dir")


class Known(click.types.StringParamType):
    """A word that the shell completes from a list that is made when it is needed; others are taken, too."""

    name = "name"

    def __init__(self, known: Callable[[], Sequence[str]]) -> None:
        self.known = known

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The words that begin so."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in self.known() if word.startswith(incomplete)]


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


class Seconds(click.FloatRange):
    """A time between two bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a time; what is no number lies between no bounds."""
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"'{value}' is not a time", param, ctx)
        return found


class Duration(click.ParamType):
    """A time that somebody is willing to wait, in seconds: `90`, `90s`, `20m`, `1h30m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a duration above zero."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = f"{value}"
        found = _DURATION.fullmatch(str(value).strip().lower())
        seconds = sum(float(part) * unit for part, unit in zip(found.groups("0"), _UNITS, strict=True)) if found else 0
        if not 0 < seconds <= LARGEST:
            self.fail(f"'{_short(value)}' is not a time: write 90s, 20m or 1h30m", param, ctx)
        return seconds


class Pair(click.ParamType):
    """`NAME=VALUE`, the value of another type; where it may be alone, the name is empty then."""

    name = "pair"

    def __init__(self, value: click.ParamType, *, alone: bool = False) -> None:
        self.value, self.alone = value, alone

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Read a pair; the name may hold `=` too."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).rpartition("=")
        if not name and not (self.alone and not equals):
            self.fail(f"'{value}' is not of the form {param.metavar if param else 'NAME=VALUE'}", param, ctx)
        return name, self.value.convert(text, param, ctx)


class Interval(click.ParamType):
    """The ends of a range, of one input or of all: `x=0:1` or `0:1`."""

    name = "interval"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[float, float]]:
        """Read a range; the name may hold `=` and `:` too."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).rpartition("=")
        low, colon, high = text.partition(":")
        try:
            ends = float(low), float(high)
        except ValueError:
            ends = math.nan, math.nan
        if not colon or (equals and not name) or not ends[0] <= ends[1] or math.inf in map(abs, ends):
            self.fail(f"'{value}' is not a range: write 0:1, or INPUT=0:1", param, ctx)
        return name, ends


class Shape(click.ParamType):
    """The sizes of an input: `1x3x224x224`, `?x3` where the first is left open; a scalar's is empty."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | None, ...]:
        """Read a shape."""
        if isinstance(value, tuple):
            return value
        sizes = str(value).strip().lower().split("x") if str(value).strip() else []
        found = tuple(None if size == "?" else _whole(size) for size in sizes)
        if 0 in found:
            self.fail(f"'{_short(value)}' is not a shape: write 1x3x224x224", param, ctx)
        return found


class Multiple(click.ParamType):
    """A positive number, or `auto`."""

    name = "multiple"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read a multiple."""
        text = str(value).strip().lower()
        if text == "auto":
            return text
        found = int(text) if text.isdecimal() and len(text) <= LONGEST_SHOWN else 0
        if not found:
            self.fail(f"'{_short(value)}' is not a positive number, nor auto", param, ctx)
        return found


class Counts(click.ParamType):
    """Positive numbers: `1,8`."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Read a list."""
        if isinstance(value, tuple):
            return value
        found = tuple(_whole(part.strip()) for part in str(value).split(","))
        if 0 in found:
            self.fail(f"'{_short(value)}' is not a list of positive numbers: write 1,8", param, ctx)
        return found


class Words(click.ParamType):
    """Words of a list: `flip,shift`."""

    name = "words"

    def __init__(self, known: Sequence[str]) -> None:
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Read the words."""
        words = tuple(value) if isinstance(value, tuple | list) else tuple(w.strip() for w in str(value).split(","))
        for word in words:
            if word not in self.known:
                self.fail(f"'{_short(word)}' is none of {', '.join(self.known)}", param, ctx)
        return words

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The words that may follow those that are there."""
        from click.shell_completion import CompletionItem

        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(f"{before}{comma}{word}") for word in self.known if word.startswith(last)]


def _whole(text: str) -> int:
    """The positive number that a text is; 0 where it is none, or larger than `LARGEST`."""
    is_number = text.isdecimal() and len(text) <= len(str(LARGEST))
    return number if is_number and (number := int(text)) <= LARGEST else 0


def _short(value: Any) -> str:
    """A value in a message."""
    text = str(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
