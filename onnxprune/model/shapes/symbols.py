"""Symbolic dims: what they are called, and numbers to put in their place."""

from __future__ import annotations

import ast
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import onnx
from onnx import TensorProto

from onnxprune.errors import UsageError

# Numbers that stand for a symbolic dim in the two scans: batch first, then every other, tried in this order
# until the graph accepts them (a convolution over raw audio needs thousands of samples).
BATCH = (2, 3)
LADDER = ((16, 24), (64, 96), (224, 256), (1024, 1536), (16000, 24000))


def dims_of(value: onnx.ValueInfoProto) -> list[int | str]:
    """The dims of a graph input or output: a number, or the symbol that stands for it (`name[axis]` if none).

    Old exporters write -1 for a size that is not known, and ONNX Runtime reads any negative number as that.
    """
    shape = value.type.tensor_type.shape
    return [
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else (d.dim_param or f"{value.name}[{axis}]")
        for axis, d in enumerate(shape.dim)
    ]


def sizes_of(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int | None]]) -> dict[str, int]:
    """Numbers for the symbolic dims of a graph whose inputs have the given shapes; a None says nothing of its axis.

    Raises:
        UsageError: no input is called so, or it cannot have the shape.
    """
    inputs = {value.name: value for value in graph.input}
    found: dict[int | str, int] = {}
    for name, shape in shapes.items():
        if name not in inputs:
            known = ", ".join(n for n in inputs if n not in {t.name for t in graph.initializer})
            raise UsageError(f"no input is called {name!r}", hint=f"known: {known}")
        dims = dims_of(inputs[name])
        pairs = [(dim, size) for dim, size in zip(dims, shape, strict=False) if size is not None]
        if len(dims) != len(shape) or any(
            size != (found.setdefault(d, size) if isinstance(d, str) else d) for d, size in pairs
        ):
            asked, own = ("x".join("?" if size is None else str(size) for size in of) for of in (shape, dims))
            raise UsageError(f"input {name!r} cannot be {asked}: it is {own}")
    return {str(symbol): size for symbol, size in found.items()}


def check_sizes(graph: onnx.GraphProto, sizes: Mapping[str, int], *, given_as: str = "sizes") -> None:
    """Refuse numbers for symbolic dims that no input of a graph has.

    Raises:
        UsageError: an unknown symbol, or a number that is no size.
    """
    known = list(symbolic_dims(graph))
    hint = f"known: {', '.join(known)}" if known else "all axes of its inputs have a size"
    for name, number in sizes.items():
        if name not in known:
            raise UsageError(f"{given_as}: no symbolic axis of the model is called {name!r}", hint=hint)
        if not isinstance(number, Integral) or number < 1:
            raise UsageError(f"{given_as}: {name} is {number!r}, but must be a whole number of at least 1")


@dataclass(frozen=True)
class Use:
    """Where a symbolic dim is first used among the graph's inputs."""

    tensor: str
    axis: int
    rank: int
    is_float: bool


def symbolic_dims(graph: onnx.GraphProto) -> dict[str, Use]:
    """Symbol -> its first use among the graph's inputs, initializers left out."""
    weights = {t.name for t in graph.initializer}
    found: dict[str, Use] = {}
    for value in graph.input:
        if value.name in weights or not value.type.tensor_type.HasField("shape"):
            continue
        dims = dims_of(value)
        is_float = value.type.tensor_type.elem_type in _FLOATS
        for axis, dim in enumerate(dims):
            if isinstance(dim, str):
                found.setdefault(dim, Use(value.name, axis, len(dims), is_float))
    return found


_FLOATS = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16))


def candidate_sizes(
    symbols: Mapping[str, Use], given: Mapping[str, int]
) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """The two sets of numbers to try, most likely first."""
    plain = {s: use for s, use in symbols.items() if s not in given and _expression(s, {}) is None}
    spatial = any(use.axis and use.rank >= 4 and use.is_float for use in plain.values())
    ladder = LADDER[1:] if spatial and not _attended(plain) else LADDER
    rungs = ladder if any(use.axis for use in plain.values()) else ladder[:1]
    tries = [(BATCH, rung) for rung in rungs]
    if any(not use.axis for use in plain.values()):  # attention with caches may take several tokens of one sample only
        tries.append(((1, 3), rungs[0]))
    for batch, rung in tries:
        pair = []
        for which in (0, 1):
            numbers = {s: (rung if use.axis else batch)[which] for s, use in plain.items()}
            for total, parts in _attended(plain).items():
                numbers[total] = sum(numbers[p] for p in parts)
            for symbol in symbols:
                value = None if symbol in numbers else _expression(symbol, {**numbers, **given})
                if value is not None and value > 0:  # not over unknown names, nor a difference below one
                    numbers.setdefault(symbol, value)
                elif symbol not in given:
                    numbers.setdefault(symbol, rung[which])
            pair.append(numbers)
        yield pair[0], pair[1]


def _attended(symbols: Mapping[str, Use]) -> dict[str, list[str]]:
    """The length of a decoder's mask: past keys (axis 2 of rank-4 inputs) and new tokens together."""
    past = [s for s, use in symbols.items() if use.is_float and (use.axis, use.rank) == (2, 4)]
    tokens = [s for s, use in symbols.items() if not use.is_float and (use.axis, use.rank) == (1, 2)]
    total = [s for s in tokens if "mask" in symbols[s].tensor]
    new = [s for s in tokens if s not in total]
    return {total[0]: [past[0], new[0]]} if len(past) == len(total) == len(new) == 1 else {}


_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def _expression(symbol: str, numbers: Mapping[str, int]) -> int | None:
    """The value of a dim such as `past + 1`; -1 if it is an expression over unknown names, None if it is a name."""
    try:
        tree = ast.parse(symbol, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(tree, ast.BinOp):
        return None

    def value(node: ast.expr) -> int | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            return numbers.get(node.id)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = value(node.left), value(node.right)
            if left is not None and right is not None and abs(left * right) < 1 << 40 and right:
                return int(_OPERATORS[type(node.op)](left, right))
        return None

    try:
        found = value(tree)
    except RecursionError:
        return None
    if found is not None:
        return found
    return -1 if not numbers else None
