"""Entries of integer tensors as polynomials of sizes: what subgraphs that compute shapes and indices do to them.

A value is an object array of numbers and `Size`s. Operators that move entries run as they do on numbers; those that
compute are taken entry by entry, and an entry that depends on numbers alone is what the scan at numbers found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onnxprune.model.shapes.constant_fold import EVALUATORS
from onnxprune.model.shapes.polynomials import (
    LARGEST_FACTOR,
    Atom,
    Dim,
    Size,
    bounds,
    compared,
    floor,
    is_known,
    largest,
    remainder,
    smallest,
    truncated,
    unknown,
)

# Entries that are followed one by one.
MOST_ENTRIES = 1024

Entries = np.ndarray
_depends = np.frompyfunc(lambda entry: isinstance(entry, Size), 1, 1)


def depends(value: Entries) -> bool:
    """Whether an entry depends on what the run alone knows."""
    return value.dtype == object and any(isinstance(entry, Size) for entry in value.flat)


def follow(
    op: str, attrs: Mapping[str, Any], inputs: Sequence[Entries | None], found: Sequence[np.ndarray], *, whole: bool
) -> list[Entries | None]:
    """The entries of every output of a node.

    Args:
        op: the operator.
        attrs: its attributes.
        inputs: the entries of its inputs; None where one is omitted.
        found: its outputs at numbers for all that is not known.
        whole: all inputs and outputs are integers or booleans.

    Returns:
        The entries of each output; None where they cannot be told.
    """
    try:
        if op in _MOVES:
            made = _MOVES[op](attrs, *inputs, outputs=len(found))
            return [np.asarray(m, object) if np.shape(m) == f.shape else None for m, f in zip(made, found, strict=True)]
        if op in EVALUATORS and op not in _RESHAPING:
            return [_each(op, attrs, inputs, found[0], whole=whole)]
    except (TypeError, ValueError, IndexError, ArithmeticError):  # a place or a length depends on what is not known
        pass
    return [None] * len(found)


def _each(
    op: str, attrs: Mapping[str, Any], inputs: Sequence[Entries | None], found: np.ndarray, *, whole: bool
) -> Entries | None:
    """Entry by entry; what depends on nothing is as it was found."""
    rows = [np.broadcast_to(np.asarray(x, object), found.shape).reshape(-1) for x in inputs]
    hit = np.flatnonzero(np.logical_or.reduce([_depends(row).astype(bool) for row in rows]))
    if len(hit) > MOST_ENTRIES:
        return None
    compute = COMPUTES.get(op) if whole and not attrs.get("fmod") else None
    if op == "Cast" and found.dtype.kind == "b":  # whether it is zero
        compute = _is_not_zero if whole else None
    name = op + "".join(f" {key}={value}" for key, value in sorted(attrs.items()))
    made = found.astype(object).reshape(-1)
    for place in hit:
        row = [r[place] for r in rows]
        made[place] = compute(*row) if compute else unknown(name, *row)
    return made.reshape(found.shape)


def _is_not_zero(x: Dim) -> Dim:
    return 1 - compared("Equal", x, 0)


def _where(condition: Dim, one: Dim, other: Dim) -> Dim:
    if is_known(condition):
        return one if condition else other
    low = min(bounds(one)[0], bounds(other)[0])
    return one if one == other else unknown("Where", condition, one, other, least=None if math.isinf(low) else int(low))


def _absolute(x: Dim) -> Dim:
    return x if bounds(x)[0] >= 0 else unknown("Abs", x, least=0)


def _clip(x: Dim, low: Dim | None = None, high: Dim | None = None) -> Dim:
    x = x if low is None else largest(x, low)
    return x if high is None else smallest(x, high)


def _fold(function: Callable[..., Dim]) -> Callable[..., Any]:
    """ReduceMax and ReduceMin of a list."""

    def run(attrs: Mapping[str, Any], x: Entries, axes: Entries | None = None, *, outputs: int) -> list[Any]:
        if x.ndim != 1:
            raise ValueError("of several axes")
        return [np.array(function(*x.flat), object).reshape((1,) if attrs.get("keepdims", 1) else ())]

    return run


_MOVES: Mapping[str, Callable[..., Any]] = {
    **{
        op: EVALUATORS[op]
        for op in (
            *("Concat", "CumSum", "Expand", "Flatten", "Gather", "Identity", "ReduceProd", "ReduceSum", "Reshape"),
            *("Slice", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze"),
        )
    },
    "ReduceMax": _fold(largest),
    "ReduceMin": _fold(smallest),
}
# The operators that make tensors out of sizes: their entries are numbers, or there are not as many of them as known.
_RESHAPING = frozenset(("Compress", "ConstantOfShape", "EyeLike", "NonZero", "Range", "Size"))
# The operators that take whole numbers to whole numbers, by what they do to sizes; tests are 0 or 1.
COMPUTES: Mapping[str, Callable[..., Dim]] = {
    "Abs": _absolute,
    "Add": lambda x, y: x + y,
    "And": lambda x, y: x * y,
    "Cast": lambda x: x,
    "Ceil": lambda x: x,
    "Clip": _clip,
    "Div": truncated,
    "FloorDiv": floor,
    "TruncatedDiv": truncated,
    **{
        op: lambda x, y, op=op: compared(op, x, y)
        for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    },
    "Max": largest,
    "Min": smallest,
    "Mod": remainder,
    "Mul": lambda x, y: x * y,
    "Neg": lambda x: -x,
    "Not": lambda x: 1 - x,
    "Or": lambda x, y: x + y - x * y,
    "Sub": lambda x, y: x - y,
    "Where": _where,
}


def number(size: Dim, numbers: Mapping[str, int], known: dict[Atom, int | None] | None = None) -> int | None:
    """The number that a size is; None where an axis that no rule can tell takes part.

    Args:
        size: the size.
        numbers: the numbers that stand for its symbols.
        known: what is known of other sizes at the same numbers; grows.
    """
    if not isinstance(size, Size):
        return int(size)
    known = {} if known is None else known
    pending = list(size.atoms)
    while pending:  # operands first, each of them once: expressions are used twice and nested deeply
        atom = pending[-1]
        waiting = [a for o in atom.operands if isinstance(o, Size) for a in o.atoms if a not in known]
        if waiting:
            pending += waiting
            continue
        pending.pop()
        if atom not in known:
            known[atom] = _made(atom, numbers, known)
    return _sum(size, known)


def _sum(size: Dim, known: Mapping[Atom, int | None]) -> int | None:
    """The number of a size whose atoms are known; None where one is not, or the number is larger than any size."""
    if not isinstance(size, Size):
        return int(size)
    total = 0
    for atoms, factor in size.terms:
        found = [known[atom] for atom in atoms]
        if None in found:
            return None
        total += factor * math.prod(n for n in found if n is not None)
    return total if abs(total) <= LARGEST_FACTOR else None


def _made(atom: Atom, numbers: Mapping[str, int], known: Mapping[Atom, int | None]) -> int | None:
    if not atom.op:
        return numbers.get(atom.name)
    function = COMPUTES.get(atom.op)
    operands = [None if isinstance(o, float) else _sum(o, known) for o in atom.operands]
    if function is None or None in operands:
        return None
    try:
        made = function(*operands)
    except ArithmeticError:
        return None
    return None if isinstance(made, Size) else int(made)
