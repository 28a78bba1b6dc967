"""Other numbers for symbolic dims, on each side of every comparison, clamp and division of sizes in a graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnxprune.model.shapes.entries import number
from onnxprune.model.shapes.infer import StaticInfo
from onnxprune.model.shapes.polynomials import Atom, Dim, Size

# Operators whose result changes its course where two operands are equal.
_TWO_SIDED = frozenset(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min"))
_CLAMPS = frozenset(("Max", "Min"))
# Numbers that are tried for a symbol, beside those next to where two linear operands are equal.
_TRIED = (1, 2, 3, 5, 8, 17, 33, 65, 129, 257, 513, 1025)
# Elements of all inputs together, sets of numbers, and comparisons that are looked at.
LARGEST_INPUT = 1 << 22
MOST_SETS = 4
MOST_COMPARED = 64

Course = tuple[Atom, int]
Compared = tuple[Atom, Dim]


@dataclass(frozen=True)
class OtherSides:
    """Numbers for symbolic dims at which comparisons of sizes come out otherwise.

    Attributes:
        tried: few sets of numbers, each for another course of some comparison.
        left: why courses are left that none of them takes, with a number that does; empty where none is known.
    """

    tried: Sequence[Mapping[str, int]]
    left: Sequence[str]


def other_sides(static: StaticInfo, inputs: Mapping[str, tuple[int, ...]]) -> OtherSides:
    """Find sets of numbers at which comparisons of sizes come out otherwise than at those of `static`.

    Args:
        static: the shapes of a graph.
        inputs: the shapes of its inputs at the numbers of `static`.

    Returns:
        The sets; none where the arithmetic of sizes compares nothing.
    """
    every = list(_compared(static))
    found = every[:MOST_COMPARED]
    symbols = sorted({s for _, difference in found for s in _symbols(difference)} & set(static.sizes))
    met = _courses(found, static.sizes)
    largest = LARGEST_INPUT // max(1, sum(map(math.prod, inputs.values())))
    chosen: list[dict[str, int]] = []
    beyond: list[tuple[str, set[Course]]] = []
    for symbol in symbols:
        roots = {r + step for _, d in found for r in _roots(d, symbol, static.sizes) for step in (-1, 0, 1)}
        for size in sorted(n for n in {*_TRIED, *roots} if n > 0):
            numbers = {**static.sizes, symbol: size}
            new = _courses(found, numbers) - met
            if size > static.sizes[symbol] * max(1, largest):
                beyond.append((f"{symbol}={size}: such inputs are too large", new))
            elif len(chosen) == MOST_SETS:
                beyond.append((f"{symbol}={size}: enough other sizes are tried", new))
            elif new:
                met |= new
                chosen.append(numbers)
    left = []
    for said, courses in beyond:
        if courses - met:
            met |= courses
            left.append(said)
    if len(every) > len(found):
        left.append(f"the other sides of {len(every) - len(found)} more comparisons")
    return OtherSides(chosen, left)


def _compared(static: StaticInfo) -> Iterator[Compared]:
    """(result, difference of the operands) of all that is compared or clamped."""
    pending: list[Dim] = [d for dims in static.dims.values() for d in dims]
    pending += [e for value in static.entries.values() if value is not None for e in value.flat]
    met: set[Atom] = set()
    while pending:
        size = pending.pop()
        for atom in size.atoms - met if isinstance(size, Size) else ():
            met.add(atom)
            pending.extend(o for o in atom.operands if isinstance(o, Size))
            if atom.op in _TWO_SIDED:
                first, *others = atom.operands
                yield from ((atom, first - o) for o in others if not (isinstance(first, float) or isinstance(o, float)))


def _symbols(size: Dim) -> set[str]:
    """The symbols that a size depends on."""
    found: set[str] = set()
    pending, met = [size], set[Atom]()
    while pending:
        one = pending.pop()
        for atom in one.atoms - met if isinstance(one, Size) else ():
            met.add(atom)
            pending.extend(atom.operands)
            if not atom.op:
                found.add(atom.name)
    return found


def _roots(difference: Dim, symbol: str, numbers: Mapping[str, int]) -> Iterator[int]:
    """Numbers for a symbol between which a difference that is linear in it changes its sign."""
    at = [number(difference, {**numbers, symbol: n}) for n in (1, 2, 3)]
    if None not in at:
        one, two, three = (n for n in at if n is not None)
        slope = two - one
        if slope and three - two == slope:
            yield 1 - math.floor(one / slope)


def _courses(found: Sequence[Compared], numbers: Mapping[str, int]) -> set[Course]:
    """How every comparison comes out; a clamp takes no course of its own where its operands are equal."""
    known: dict[Atom, int | None] = {}
    signs = ((atom, number(difference, numbers, known)) for atom, difference in found)
    return {(atom, (n > 0) - (n < 0)) for atom, n in signs if n is not None and (n or atom.op not in _CLAMPS)}
