"""Budgets as people write them: `50%`, `2.1G`, `20MB`, `12ms`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from onnxprune.errors import UsageError


@dataclass(frozen=True, eq=False)
class Unit:
    """How amounts of a quantity are written.

    Attributes:
        name: of the quantity in the unit.
        factors: suffix, in lower case -> size of the suffixed unit.
        example: an amount.
        divisible: numbers below one without a suffix are amounts too; there is no half a byte.
    """

    name: str
    factors: Mapping[str, float]
    example: str
    divisible: bool = False


_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
COUNTS = Unit("count", _PREFIXES, "2.1G")
BYTES = Unit(
    "bytes",
    {f"{prefix}b": factor for prefix, factor in _PREFIXES.items()}
    | {f"{prefix}ib": 1024.0**power for power, prefix in enumerate("kmgt", 1)},
    "20MB",
)
SECONDS = Unit("seconds", {"s": 1.0, "ms": 1e-3, "us": 1e-6}, "12ms", divisible=True)
_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?)\s*([a-z%µ]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Amount:
    """How much of something a model may have.

    Attributes:
        value: a number of things, bytes or seconds, or a share of what the original has.
        relative: whether it is a share.
    """

    value: float
    relative: bool = False

    def limit(self, original: float) -> float:
        """The most that is allowed, given what the original has."""
        return self.value * original if self.relative else self.value

    def __str__(self) -> str:
        return f"{100 * self.value:g}%" if self.relative else f"{self.value:g}"


def bytes_of(option: str, text: str) -> int:
    """The number of bytes that a person wrote: "4GB", "512MiB".

    Raises:
        UsageError: it is no such amount.
    """
    found = _AMOUNT.fullmatch(text)
    factor = BYTES.factors.get(found[2].lower()) if found else None
    if found is None or factor is None or not 1 <= float(found[1]) * factor < math.inf:
        raise UsageError(f"{option}: {text!r} is no size", hint="write 4GB or 512MiB")
    return int(float(found[1]) * factor)


def read_amount(kind: str, unit: Unit, given: str | float | Amount) -> Amount:
    """Read the amount that a person gave.

    Args:
        kind: name of the budget, for the error.
        unit: how its amounts are written.
        given: a text such as "50%" or "20MB", or a number of things, bytes or seconds.

    Raises:
        UsageError: the text is no such amount, or not above zero.
    """
    if isinstance(given, Amount):
        return given
    found = _AMOUNT.fullmatch(str(given))
    value, suffix = (float(found[1]), found[2].lower().replace("µ", "u")) if found else (0.0, "")
    if suffix == "%" and 0 < value <= 100:
        return Amount(value / 100, relative=True)
    known = suffix in unit.factors or (not suffix and isinstance(given, Real))
    # There is no half a byte: 0.5 was meant as a share.
    whole = bool(suffix) or unit.divisible or value >= 1
    if known and whole and 0 < (amount := value * unit.factors.get(suffix, 1.0)) < math.inf:
        return Amount(amount)
    hint = f"write a share of the original, 50%, or {unit.example}"
    raise UsageError(f"{kind}: {given!r} is not an amount", hint=hint)
