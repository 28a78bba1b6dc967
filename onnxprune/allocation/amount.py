"""Budgets as people write them: `50%`, `2.1G`, `20MB`, `12ms`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from onnxprune.errors import UsageError

_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_BYTES = {
    **{f"{prefix}b": factor for prefix, factor in _COUNTS.items()},
    **{f"{prefix}ib": 1024.0**power for power, prefix in enumerate("kmgt", 1)},
}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_EXAMPLES = {id(_COUNTS): "2.1G", id(_BYTES): "20MB", id(_SECONDS): "12ms"}
# What can be limited, and the units that an amount of it is written in.
UNITS: Mapping[str, Mapping[str, float]] = {
    "params": _COUNTS,
    "macs": _COUNTS,
    "size": _BYTES,
    "memory": _BYTES,
    "latency": _SECONDS,
}
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
    factor = _BYTES.get(found[2].lower()) if found else None
    if found is None or factor is None or not 1 <= float(found[1]) * factor < math.inf:
        raise UsageError(f"{option}: {text!r} is no size", hint="write 4GB or 512MiB")
    return int(float(found[1]) * factor)


def read(kind: str, given: str | float | Amount) -> Amount:
    """The amount that a person gave.

    Args:
        kind: one of `UNITS`.
        given: a text such as "50%" or "20MB", or a number of things, bytes or seconds.

    Raises:
        UsageError: the text is no such amount, or not above zero.
    """
    if isinstance(given, Amount):
        return given
    found = _AMOUNT.fullmatch(str(given))
    value, unit = (float(found[1]), found[2].lower().replace("µ", "u")) if found else (0.0, "")
    units = UNITS[kind]
    if unit == "%" and 0 < value <= 100:
        return Amount(value / 100, relative=True)
    known = unit in units or (not unit and isinstance(given, Real))
    # There is no half a byte: 0.5 was meant as a share.
    whole = bool(unit) or units is _SECONDS or value >= 1
    if known and whole and 0 < (amount := value * units.get(unit, 1.0)) < math.inf:
        return Amount(amount)
    example = _EXAMPLES[id(units)]
    raise UsageError(f"{kind}: {given!r} is not an amount", hint=f"write a share of the original, 50%, or {example}")
