"""Sizes as polynomials over unknown dims: equal sizes are equal polynomials.

The variables are *atoms*: a symbolic dim, the size of an axis that no rule can tell, or the result of an operator that
is no polynomial (a floor division, a maximum, a comparison), named by its operands so that the same computation is the
same atom. A size that depends on nothing is an `int`, also where it was computed from sizes that do (`N - N + 4`).
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

# Longer polynomials and names are given one name as a whole: expressions that are used twice grow exponentially.
MOST_TERMS = 32
LONGEST_NAME = 120
LARGEST_FACTOR = 1 << 62


@dataclass(frozen=True)
class Atom:
    """A number that the run alone knows.

    Attributes:
        name: atoms of one name are the same number.
        least: a lower bound; None if there is none.
        op: the operator that makes it; empty for a symbolic dim and for an axis that no rule can tell.
        operands: the operator's.
    """

    name: str
    least: int | None = 0
    op: str = ""
    operands: tuple[Any, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Atom) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


Monomial = tuple[Atom, ...]


@dataclass(frozen=True)
class Size:
    """A polynomial that is no number: terms as (atoms, factor), in a canonical order."""

    terms: tuple[tuple[Monomial, int], ...]

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _largest_factor(self) -> int:
        return max(abs(factor) for _, factor in self.terms)

    @cached_property
    def _name(self) -> str:
        parts = []
        for atoms, factor in self.terms:
            names = [a.name for a in atoms]
            parts.append("*".join([str(factor), *names] if factor != 1 or not names else names))
        return " + ".join(parts)

    def __str__(self) -> str:
        return self._name

    def __add__(self, other: Dim) -> Dim:
        return _combined(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return _combined(self, other, -1)

    def __rsub__(self, other: Dim) -> Dim:
        return _combined(-self, other, 1)

    def __neg__(self) -> Size:
        return Size(tuple((atoms, -factor) for atoms, factor in self.terms))

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int) and 0 < other * self._largest_factor <= LARGEST_FACTOR:
            return Size(tuple((atoms, factor * other) for atoms, factor in self.terms))
        made: dict[Monomial, int] = {}
        for atoms, factor in self.terms:
            for more, times in _terms(other):
                both = tuple(sorted((*atoms, *more), key=_by_name))
                made[both] = made.get(both, 0) + factor * times
        return _size(made, "Mul", (self, other))

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floor(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floor(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return remainder(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return remainder(other, self)

    def __bool__(self) -> bool:
        raise TypeError(f"whether {self} is zero is not known")

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """A lower and an upper bound; infinite where there is none."""
        low = high = 0.0
        for atoms, factor in self.terms:
            least = math.prod(a.least if a.least is not None else -math.inf for a in atoms)
            if any(a.least is None or a.least < 0 for a in atoms):
                least = -math.inf
            if not atoms:
                low, high = low + factor, high + factor
            elif factor > 0:
                low, high = low + factor * least, math.inf
            elif least == -math.inf:
                low = -math.inf
                high = math.inf
            else:
                low, high = -math.inf, high + factor * least
        return low, high

    @cached_property
    def atoms(self) -> frozenset[Atom]:
        """The atoms that it has, without those inside of their operands."""
        return frozenset(a for atoms, _ in self.terms for a in atoms)


# A size: a number, or a polynomial over what the run alone knows.
Dim = int | Size
Dims = tuple[Dim, ...]


def _by_name(atom: Atom) -> str:
    return atom.name


def _terms(size: Dim) -> Sequence[tuple[Monomial, int]]:
    return size.terms if isinstance(size, Size) else (((), operator.index(size)),)


def _size(terms: Mapping[Monomial, int], op: str, operands: tuple[Any, ...]) -> Dim:
    left = {atoms: factor for atoms, factor in terms.items() if factor}
    if not left or (len(left) == 1 and () in left):
        return left.get((), 0)
    if len(left) > MOST_TERMS or any(abs(f) > LARGEST_FACTOR or len(m) > MOST_TERMS for m, f in left.items()):
        return unknown(op, *operands)
    return Size(tuple(sorted(left.items(), key=lambda term: [a.name for a in term[0]])))


def _combined(one: Size, other: Dim, sign: int) -> Dim:
    terms = dict(one.terms)
    for atoms, factor in _terms(other):
        terms[atoms] = terms.get(atoms, 0) + sign * factor
    return _size(terms, "Add" if sign > 0 else "Sub", (one, other))


def symbol(name: str, least: int | None = 0) -> Size:
    """A size that is one atom: a symbolic dim, or an axis that no rule can tell."""
    return Size((((Atom(name, least),), 1),))


def unknown(op: str, *operands: Any, least: int | None = None) -> Size:
    """The result of an operator that is no polynomial of its operands."""
    name = f"{op}({', '.join(map(str, operands))})"
    if len(name) > LONGEST_NAME:
        name = f"{op}~{hashlib.sha256(name.encode()).hexdigest()[:24]}"
    return Size((((Atom(name, least, op, operands),), 1),))


def is_known(size: Dim | None) -> TypeGuard[int]:
    """Whether a size, or an entry of a value, depends on nothing that the run alone knows."""
    return not isinstance(size, Size)


def bounds(size: Dim) -> tuple[float, float]:
    """A lower and an upper bound of a size."""
    return size.bounds if isinstance(size, Size) else (float(size), float(size))


def _least(low: float) -> int | None:
    return None if math.isinf(low) else math.floor(low)


def quotient(one: Dim, other: Dim) -> Dim | None:
    """`one / other` if that is a polynomial with whole factors; None otherwise, and where `other` is zero."""
    divisor = _terms(other)
    if not isinstance(other, Size) and other == 0:
        return None
    head, by = max(divisor, key=lambda term: _rank(term[0]))
    rest, made = dict(_terms(one)), dict[Monomial, int]()
    for _ in range(2 * MOST_TERMS):
        rest = {atoms: factor for atoms, factor in rest.items() if factor}
        if not rest:
            return _size(made, "Div", (one, other))
        atoms = max(rest, key=_rank)
        left = _without(atoms, head)
        if left is None or rest[atoms] % by:
            return None
        times = rest[atoms] // by
        made[left] = made.get(left, 0) + times
        for more, factor in divisor:
            both = tuple(sorted((*left, *more), key=_by_name))
            rest[both] = rest.get(both, 0) - times * factor
    return None


def _rank(atoms: Monomial) -> tuple[int, list[str]]:
    """An order of monomials that stays when both are multiplied by a third: by degree, then by names."""
    return len(atoms), [atom.name for atom in atoms]


def _without(atoms: Monomial, part: Monomial) -> Monomial | None:
    left = list(atoms)
    for atom in part:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def floor(one: Dim, other: Dim) -> Dim:
    """`one // other`, rounded down."""
    if is_known(one) and is_known(other):
        return one // other
    exact = quotient(one, other)
    if exact is not None:
        return exact
    return _division(one, other, "Floor")


def truncated(one: Dim, other: Dim) -> Dim:
    """`one / other`, rounded towards zero."""
    if is_known(one) and is_known(other):
        return (abs(one) // abs(other)) * (1 if (one < 0) == (other < 0) else -1)
    exact = quotient(one, other)
    return _division(one, other, "Truncated") if exact is None else exact


def _division(one: Dim, other: Dim, otherwise: str) -> Dim:
    low = bounds(one)[0]
    if isinstance(one, Size) and is_known(other) and other > 0 and (low >= 0 or otherwise == "Floor"):
        return _floored(one, other)
    if low >= 0 and bounds(other)[0] >= 0:
        return unknown("Div", one, other, least=0)
    return unknown(f"{otherwise}Div", one, other)


def _floored(size: Dim, by: int) -> Dim:
    """`size // by`, rounded down, in a form in which equal quotients are mostly equal.

    Multiples of `by` are taken out, `(by A + B) // by = A + B // by`; a quotient within becomes one with it,
    `(X // a + k) // b = (X + a k) // (a b)`; and what all factors
    have in common goes, `(g A + k) // (g b) = (A + k // g) // b`.
    """
    if not isinstance(size, Size):
        return size // by
    outside = _size({atoms: factor // by for atoms, factor in size.terms}, "FloorDiv", (size, by))
    rest = _size({atoms: factor % by for atoms, factor in size.terms}, "FloorDiv", (size, by))
    if not isinstance(rest, Size):
        return outside + rest // by
    factors = {atoms: factor for atoms, factor in rest.terms if atoms}
    constant = dict(rest.terms).get((), 0)
    common = math.gcd(by, *factors.values())
    if common > 1:
        left = _size({**{a: f // common for a, f in factors.items()}, (): constant // common}, "FloorDiv", (rest, by))
        return outside + _floored(left, by // common)
    (atoms, factor), *others = factors.items()
    inner = atoms[0]
    if not others and factor == 1 and len(atoms) == 1 and inner.op in ("Div", "FloorDiv"):
        numerator, within = inner.operands
        if isinstance(within, int) and 0 < within <= LARGEST_FACTOR // by:
            return outside + _floored(numerator + within * constant, within * by)
    low = bounds(rest)[0]
    name = "Div" if low >= 0 else "FloorDiv"
    return outside + unknown(name, rest, by, least=None if math.isinf(low) else math.floor(low) // by)


def least_symbol(size: Dim, least: int) -> tuple[str, int] | None:
    """The symbol that a size rises with, and the smallest number for it at which the size is `least`.

    Args:
        size: `N + r` or `(N + p) // q + r` for a symbol N; nothing is told of other sizes.
        least: what the size is at least.
    """
    if not isinstance(size, Size):
        return None
    terms = dict(size.terms)
    least -= terms.pop((), 0)
    if len(terms) != 1:
        return None
    ((atoms, factor),) = terms.items()
    if factor != 1 or len(atoms) != 1:
        return None
    (atom,) = atoms
    if not atom.op:
        return atom.name, least
    if atom.op in ("Div", "FloorDiv") and isinstance(atom.operands[1], int):
        return least_symbol(atom.operands[0], least * atom.operands[1])
    return None


def remainder(one: Dim, other: Dim) -> Dim:
    """`one % other`, of the sign of `other`."""
    if is_known(one) and is_known(other):
        return one % other
    if quotient(one, other) is not None:
        return 0
    return unknown("Mod", one, other, least=0 if bounds(other)[0] >= 0 else None)


def largest(*sizes: Dim) -> Dim:
    """The maximum."""
    left = [s for i, s in enumerate(sizes) if not any(_never_below(o, s, later=j > i) for j, o in _others(sizes, i))]
    if len(left) == 1:
        return left[0]
    return unknown("Max", *sorted(left, key=str), least=_least(max(bounds(s)[0] for s in left)))


def smallest(*sizes: Dim) -> Dim:
    """The minimum."""
    left = [s for i, s in enumerate(sizes) if not any(_never_below(s, o, later=j > i) for j, o in _others(sizes, i))]
    if len(left) == 1:
        return left[0]
    return unknown("Min", *sorted(left, key=str), least=_least(min(bounds(s)[0] for s in left)))


def _others(sizes: Sequence[Dim], own: int) -> Iterator[tuple[int, Dim]]:
    return ((j, o) for j, o in enumerate(sizes) if j != own)


def _never_below(one: Dim, other: Dim, *, later: bool) -> bool:
    """Whether `one` is at least `other` for sure; of two that are equal for sure, the later one is."""
    low, high = bounds(one - other)
    return low > 0 or (low == 0 and (high > 0 or later))


def compared(op: str, one: Dim, other: Dim) -> Dim:
    """0 or 1, or what the run alone knows: a comparison by the name of its operator."""
    if isinstance(one, float) or isinstance(other, float):
        return unknown(op, one, other, least=0)
    low, high = bounds(one - other)
    if op in ("Less", "LessOrEqual"):
        low, high = -high, -low
    strict = op in ("Less", "Greater")
    if op == "Equal":
        verdict = 1 if low == high == 0 else 0 if low > 0 or high < 0 else None
    elif strict:
        verdict = 1 if low > 0 else 0 if high <= 0 else None
    else:
        verdict = 1 if low >= 0 else 0 if high < 0 else None
    return unknown(op, one, other, least=0) if verdict is None else verdict


def broadcast_dims(*shapes: Dims) -> Dims:
    """The sizes of what operators that broadcast make of tensors of these.

    Raises:
        ValueError: they do not fit.
    """
    rank = max(map(len, shapes), default=0)
    made: list[Dim] = []
    for axis in range(rank):
        found = {s[axis - rank + len(s)] for s in shapes if axis - rank + len(s) >= 0} - {1}
        known = {n for n in found if is_known(n)}
        if len(known) > 1:
            raise ValueError(f"sizes {sorted(map(str, found))} do not fit")
        left = known or found
        made.append(unknown("Broadcast", *sorted(left, key=str), least=0) if len(left) > 1 else next(iter(left), 1))
    return tuple(made)


def product(sizes: Sequence[Dim]) -> Dim:
    """The number of elements."""
    number = math.prod(size for size in sizes if not isinstance(size, Size))
    return math.prod((size for size in sizes if isinstance(size, Size)), start=number)
