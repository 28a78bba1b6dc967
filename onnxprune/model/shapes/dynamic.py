"""Sizes and values that are known only when a model runs, followed axis by axis and entry by entry.

Nothing here is told from a number that stands for a symbolic dim: an axis is static because its size is computed from
static ones, or because the operator's own shape function says so while it is told symbols for all others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx
from onnx import helper

from onnxprune.model import control_flow
from onnxprune.model.shapes.entries import Entries, depends, follow, number
from onnxprune.model.shapes.polynomials import Atom, Dim, Dims, Size, is_known, product, symbol
from onnxprune.model.shapes.size_rules import SIZES, Shape, SizeNode
from onnxprune.model.shapes.stand_ins import STAND_IN

# Entries of an integer tensor that are given names where nothing is known of them.
MOST_NAMED = 64
# What arithmetic raises where a place, a length or a rank depends on what the run alone knows.
UNTOLD = (LookupError, TypeError, ValueError, ArithmeticError)


class Numbers(Protocol):
    """A scan at numbers.

    Attributes:
        shapes: tensor -> sizes.
        dtypes: tensor -> type.
        values: tensor -> value.
        numbers: symbol -> the number that stands for it.
        open: axes whose size nobody tells, with a stand-in in `shapes`.
    """

    shapes: dict[str, Shape]
    dtypes: dict[str, int]
    values: dict[str, np.ndarray]
    numbers: dict[str, int]
    open: set[tuple[str, int]]

    def resize(self, tensor: str, shape: Shape) -> None:
        """Take other numbers for the sizes of a tensor."""


@dataclass
class Unknowns:
    """What is no number.

    Attributes:
        known: the scan at numbers, which goes one node ahead.
        dims: tensor -> its sizes, where some are no numbers.
        values: tensor -> its entries, where some are no numbers; None where none is known.
        guesses: the names of sizes and entries that depend on values: stand-ins are their numbers.
        guessed: the tensors whose value in the scan rests on a stand-in.
    """

    known: Numbers
    dims: dict[str, Dims] = field(default_factory=dict)
    values: dict[str, Entries | None] = field(default_factory=dict)
    guesses: set[str] = field(default_factory=set)
    guessed: set[str] = field(default_factory=set)
    _rests: dict[Atom, bool] = field(default_factory=dict)

    def touches(self, node: onnx.NodeProto) -> bool:
        """Whether any input of a node is no number."""
        return any(i in self.dims or i in self.values for i in node.input)

    def is_open(self, node: onnx.NodeProto) -> bool:
        """Whether the numbers for any output of a node are stand-ins that came in there."""
        known = self.known
        return any(
            name in self.guessed or any((name, a) in known.open for a in range(len(known.shapes.get(name, ()))))
            for name in (node.output if known.open or self.guessed else ())
        )

    def guesses_at(self, node: onnx.NodeProto) -> bool:
        """Whether any input of a node rests on a stand-in."""
        return bool(self.guesses or self.guessed) and any(i in self.guessed or self.loose(i) for i in node.input)

    def loose(self, tensor: str) -> frozenset[int]:
        """The axes of a tensor whose size depends on values."""
        dims = self.dims.get(tensor, ()) if self.guesses else ()
        return frozenset(axis for axis, size in enumerate(dims) if self.rests(size))

    def rests(self, size: Dim) -> bool:
        """Whether a size depends on values."""
        return isinstance(size, Size) and any(self._rests_on(atom) for atom in size.atoms)

    def _rests_on(self, atom: Atom) -> bool:
        known = self._rests.get(atom)
        if known is None:
            known = atom.name in self.guesses or any(self.rests(o) for o in atom.operands)
            self._rests[atom] = known
        return known

    def dims_of(self, tensor: str) -> Dims:
        """The sizes of a tensor.

        Raises:
            LookupError: not even its rank is known.
        """
        return self.dims.get(tensor) or self.known.shapes[tensor]

    def shape_of(self, tensor: str) -> Shape:
        """The sizes of a tensor at numbers."""
        return self.known.shapes[tensor]

    def static(self, tensor: str) -> np.ndarray | None:
        """The value of a tensor that depends on nothing."""
        return None if tensor in self.values else self.known.values.get(tensor)

    def entries(self, tensor: str) -> Entries | None:
        """The entries of a tensor; None where they are not known."""
        return self.values[tensor] if tensor in self.values else self.known.values.get(tensor)

    def put(
        self,
        tensor: str,
        dims: Sequence[Dim | None] | None,
        value: Entries | None = None,
        *,
        guessing: bool = False,
    ) -> None:
        """Note the sizes and entries of a tensor; what is None is known to the run alone.

        Args:
            tensor: the tensor.
            dims: its sizes.
            value: its entries.
            guessing: what it is made of rests on stand-ins.
        """
        shape = self.known.shapes.get(tensor)
        if shape is None:
            return
        given: Sequence[Dim | None] = dims if dims is not None and len(dims) == len(shape) else [None] * len(shape)
        made = tuple(
            self._size(tensor, axis, d, guessing=guessing or (tensor, axis) in self.known.open)
            for axis, d in enumerate(given)
        )
        if not all(map(is_known, made)):
            self.dims[tensor] = made
        if guessing or self.known.open:
            self.known.resize(tensor, tuple(map(self._settled, made, shape)))
        found = self.known.values.get(tensor)
        if found is None:
            return
        guessing = guessing or tensor in self.guessed
        if value is not None and value.shape == found.shape:
            if depends(value):
                self.values[tensor] = value
        else:
            self.values[tensor] = self._named(tensor, found, guessing) if tensor not in self.dims else None
        if guessing and self._is_guess(tensor):
            self.guessed.add(tensor)

    def _size(self, tensor: str, axis: int, told: Dim | None, *, guessing: bool) -> Dim:
        """The size of an axis, named after it where nothing is told that fits its number."""
        found = self.known.shapes[tensor][axis]
        if told is not None and (not is_known(told) or told == found or guessing):
            return told
        name = f"{tensor}#{axis}"
        self.known.numbers[name] = found
        if guessing:
            self.guesses.add(name)
        return symbol(name)

    def _agrees(self, size: Dim, found: int) -> bool:
        """Whether the windows' formula gives the number that the scan found; no model runs where no window fits."""
        made = number(size, self.known.numbers)
        return made is None or made == found or made <= 0

    def _settled(self, size: Dim, found: int) -> int:
        """The number of an axis that agrees with those that its size is made of, and is no special case."""
        made = number(size, self.known.numbers)
        if not self.rests(size):
            return found if made is None else made
        return next((n for n in (made, found) if n is not None and n > 1), STAND_IN)

    def _is_guess(self, tensor: str) -> bool:
        """Whether any entry rests on a stand-in."""
        if tensor not in self.values:
            return False
        entries = self.values[tensor]
        return entries is None or any(self.rests(entry) for entry in entries.flat)

    def _named(self, tensor: str, found: np.ndarray, guessing: bool) -> Entries | None:
        """A name for every entry of a small integer tensor of which nothing is known."""
        if found.dtype.kind not in ("iubf" if guessing else "iub") or found.size > MOST_NAMED:
            return None
        least = 0 if found.dtype.kind in "ub" else None
        names = [f"{tensor}[{i}]" for i in range(found.size)]
        self.known.numbers.update(zip(names, map(int, found.flat), strict=True))
        if guessing:
            self.guesses.update(names)
        made = np.empty(found.size, object)
        made[:] = [symbol(name, least) for name in names]
        return made.reshape(found.shape)

    def node(self, node: onnx.NodeProto, ask: Callable[[], Sequence[Sequence[Dim | None] | None]]) -> None:
        """Follow a node.

        Args:
            node: the node; the scan has been there.
            ask: the sizes of its outputs by the operator's shape function.
        """
        values, guessing = self._values(node), self.guesses_at(node)
        rule = SIZES.get(node.op_type) if not node.domain else None
        made: Sequence[Sequence[Dim | None] | None] = [None] * len(node.output)
        with contextlib.suppress(*UNTOLD):
            made = rule(SizeNode(node, self)) if rule else ask()
        if (
            node.op_type == "Conv" and not node.domain
        ):  # one formula of ours for what the shape function does with numbers
            made = [
                [
                    d if d is None or self._agrees(d, n) else None
                    for d, n in zip(made[0] or (), self.known.shapes.get(node.output[0], ()), strict=False)
                ]
            ]
        for slot, name in enumerate(node.output):
            if name:
                self.put(name, made[slot] if slot < len(made) else None, values[slot], guessing=guessing)

    def flow(self, node: onnx.NodeProto, varying: set[tuple[str, int]]) -> None:
        """Follow what goes into bodies, and what comes out of them."""
        condition, guessing = self.static(node.input[0]) if node.op_type == "If" else None, self.guesses_at(node)
        made: Sequence[Sequence[Dim | None] | None] = []
        with contextlib.suppress(LookupError, ValueError):
            made = control_flow.dims(node, self.dims_of, varying, condition)
        for slot, name in enumerate(node.output):
            if name:
                self.put(name, made[slot] if slot < len(made) else None, guessing=guessing)

    def _values(self, node: onnx.NodeProto) -> Sequence[Entries | None]:
        none: list[Entries | None] = [None] * len(node.output)
        if node.domain or not any(o in self.known.values for o in node.output):
            return none
        if node.op_type in ("Shape", "Size") and node.input[0] in self.known.shapes:
            dims = self.dims_of(node.input[0])
            attrs = {a.name: a.i for a in node.attribute}
            span = list(dims[attrs.get("start", 0) : attrs.get("end")])
            return [_list(span) if node.op_type == "Shape" else _list([product(dims)]).reshape(())]
        found = [self.known.values.get(o) for o in node.output]
        inputs = [self.entries(i) if i else None for i in node.input]
        if any(f is None for f in found) or any(x is None and i for x, i in zip(inputs, node.input, strict=True)):
            return none
        attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        numbers = [self.known.values[i] for i in node.input if i] + [f for f in found if f is not None]
        whole = all(x.dtype.kind in "iub" for x in numbers)
        return follow(node.op_type, attrs, inputs, [f for f in found if f is not None], whole=whole)


def _list(sizes: Sequence[Dim]) -> Entries:
    made = np.empty(len(sizes), object)
    made[:] = list(sizes)
    return made
