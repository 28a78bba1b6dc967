"""Scopes that names of weights and nodes stand in, as exporters write them: `layers.0.up.weight`, `/layers/up/Add`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def common_scope(names: Sequence[str]) -> str:
    """Find what names have in common, up to a point, slash or colon; of one name all but its last part.

    Args:
        names: of weights or nodes; names of one part, as exporters number constants, say nothing.

    Returns:
        The scope, without the sign at its end; empty where there is none.
    """
    split = [parts[:-1] for parts in map(_parts, names) if len(parts) > 1]
    if not split:
        return ""
    common = split[0]
    for other in split[1:]:
        same = (a == b for a, b in zip(common, other, strict=False))
        common = common[: sum(_while_true(same))]
    return "".join(common).strip("./:")


def _parts(name: str) -> list[str]:
    """The parts of a name, each with the sign behind it."""
    parts = [""]
    for sign in name:
        parts[-1] += sign
        if sign in "./:":
            parts.append("")
    return parts


def _while_true(flags: Iterable[bool]) -> Iterator[int]:
    for flag in flags:
        if not flag:
            return
        yield 1
