"""How numbers are written for people; every figure on screen goes through here."""

from __future__ import annotations

_STEPS = ("", "k", "M", "G", "T", "P")
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")


def count(value: float) -> str:
    """A number of things: `640`, `25.6 M`, `4.1 G`."""
    return _scaled(value, 1000, _STEPS)


def bytes_text(value: float) -> str:
    """A number of bytes: `97.7 MiB`."""
    return _scaled(value, 1024, _BYTES)


def percent(part: float, whole: float = 1.0) -> str:
    """A share: `50.3 %`; all and nothing only where it is all or nothing; of nothing, a dash."""
    if not whole:
        return "-"
    share = 100 * part / whole
    if 0 < share < 0.05:
        return "<0.1 %"
    return f"{min(share, 99.9) if part < whole else share:.1f} %"


def change(before: float, after: float) -> str:
    """What became of a quantity, relative to what it was: `-50.3 %`."""
    return f"{100 * (after - before) / before:+.1f} %" if before else "-"


def error(value: float) -> str:
    """A relative error or a tolerance: `4.1e-07`; a plain `0` where there is none."""
    return f"{value:.1e}" if value else "0"


def seconds(value: float) -> str:
    """A duration: `0.04 s`, `12.3 s`."""
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def duration(value: float) -> str:
    """A time that is measured, to four figures: `12.34 ms`, `85.12 us`."""
    return _measured(value, "s")


def energy(value: float) -> str:
    """An energy, to four figures: `12.34 mJ`, `85.12 uJ`."""
    return _measured(value, "J")


def plural(number: int, noun: str) -> str:
    """`1 group`, `3 groups`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _measured(value: float, unit: str) -> str:
    scale, prefix = next(((s, p) for s, p in ((1, ""), (1e3, "m")) if value * s >= 1), (1e6, "u"))
    shown = value * scale
    return f"{shown:.{max(0, 3 - len(str(int(shown))) + 1)}f} {prefix}{unit}"


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    index = 0
    # 999.96 would be written as 1000.0, so it moves on to the next unit already.
    while abs(value) >= (base if index == 0 else base - 0.05) and index < len(units) - 1:
        value, index = value / base, index + 1
    number = f"{value:.0f}" if index == 0 else f"{value:.1f}"
    return f"{number} {units[index]}".rstrip()
