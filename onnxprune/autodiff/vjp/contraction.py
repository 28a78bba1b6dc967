"""Products of matrices: MatMul, Gemm, Einsum, Det."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.registry import BackwardNode, register_vjp

Gradients = Sequence[Value | None]


@register_vjp("MatMul")
def _matmul(node: BackwardNode) -> Gradients:
    a, b = node.input(0), node.input(1)
    left = a if a.rank > 1 else a.reshape([1, *a.shape])
    right = b if b.rank > 1 else b.reshape([*b.shape, 1])
    shape = [*node.dy.shape]
    if b.rank == 1:
        shape.append(1)
    if a.rank == 1:
        shape.insert(len(shape) - 1, 1)
    gradient = node.dy.reshape(shape)
    by_left = _by_left(gradient, left, right).reshape(a.shape) if node.needed(0) else None
    by_right = _by_right(gradient, left, right).reshape(b.shape) if node.needed(1) else None
    return [by_left, by_right]


def _by_left(gradient: Value, left: Value, right: Value) -> Value:
    return (gradient @ right.mT).sum_to(left.shape)


def _by_right(gradient: Value, left: Value, right: Value) -> Value:
    """A matrix that all rows of a stack meet is one flat product, which needs no sum over the stack."""
    if right.rank == 2:
        rows = left.size // left.shape[-1]
        flat = left.reshape([rows, left.shape[-1]])
        return flat.mT @ gradient.reshape([rows, gradient.shape[-1]])
    return (left.mT @ gradient).sum_to(right.shape)


@register_vjp("Gemm")
def _gemm(node: BackwardNode) -> Gradients:
    a, b, dy = node.input(0), node.input(1), node.dy
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    turned_a, turned_b = node.attributes.get("transA", 0), node.attributes.get("transB", 0)

    def product(left: Value, right: Value, turn_left: int, turn_right: int, like: Value) -> Value:
        return node.graph.op(
            "Gemm", left, right, shape=like.shape, alpha=float(alpha), transA=turn_left, transB=turn_right
        )

    gradients: list[Value | None] = [None] * len(node.inputs)
    if node.needed(0):
        gradients[0] = product(b, dy, turned_b, 1, a) if turned_a else product(dy, b, 0, 1 - turned_b, a)
    if node.needed(1):
        gradients[1] = product(dy, a, 1, turned_a, b) if turned_b else product(a, dy, 1 - turned_a, 0, b)
    if node.needed(2):
        gradients[2] = dy.sum_to(node.input(2).shape) * float(beta)
    return gradients


@register_vjp("Einsum")
def _einsum(node: BackwardNode) -> Gradients:
    terms, output = _letters(node)
    sizes: dict[str, int] = {}
    for slot, term in enumerate(terms):
        for letter, size in zip(term, node.input(slot).shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
    operands = [(output, node.dy), *((t, node.input(i)) for i, t in enumerate(terms))]
    return [
        _einsum_gradient(node.input(slot), own, [o for i, o in enumerate(operands) if i != slot + 1], sizes)
        if node.needed(slot)
        else None
        for slot, own in enumerate(terms)
    ]


def _einsum_gradient(x: Value, own: str, others: Sequence[tuple[str, Value]], sizes: Mapping[str, int]) -> Value:
    """The gradient by one operand: the product of all others with the output's gradient, over its own letters.

    Args:
        x: the operand.
        own: its letters; one that comes twice takes a diagonal.
        others: letters and tensor of the output's gradient and of the other operands.
        sizes: of the axes of each letter.
    """
    graph, operands, made = x.graph, list(others), ""
    known = set("".join(letters for letters, _ in others))
    spare = iter(c for c in _ALPHABET if c not in sizes)
    for place, (letter, size) in enumerate(zip(own, x.shape, strict=True)):
        if letter in own[:place]:  # the gradient lies on the diagonal
            made += next(spare)
            operands.append((letter + made[-1], graph.constant(np.eye(size, dtype=x.dtype))))
        elif size == sizes[letter] and letter in known:
            made += letter
        else:  # summed over, or broadcast: the same everywhere along it
            made += "."
    axes = made.replace(".", "")
    equation = ",".join(letters for letters, _ in operands) + "->" + axes
    shape = [n for n, letter in zip(x.shape, made, strict=True) if letter != "."]
    value = graph.op("Einsum", *(v for _, v in operands), shape=shape, equation=equation)
    return value.reshape([1 if c == "." else n for c, n in zip(made, x.shape, strict=True)]).expand(x.shape)


_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _letters(node: BackwardNode) -> tuple[list[str], str]:
    """The terms of an equation with letters in place of an ellipsis."""
    equation = str(node.attributes["equation"]).replace(" ", "")
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    spare = [c for c in _ALPHABET if c not in equation]
    widths = [node.input(i).rank - len(t.replace("...", "")) if "..." in t else 0 for i, t in enumerate(terms)]
    dots = "".join(spare[: max(widths)])
    if not arrow:
        counted = "".join(terms).replace("...", "")
        output = "..." + "".join(sorted(c for c in set(counted) if counted.count(c) == 1))
    # The ellipses of all terms are aligned at their last axes.
    terms = [t.replace("...", dots[len(dots) - width :]) for t, width in zip(terms, widths, strict=True)]
    return terms, output.replace("...", dots)


@register_vjp("Det")
def _det(node: BackwardNode) -> Gradients:
    """The gradient is the matrix of cofactors, the determinants of all minors; it exists for singular matrices too."""
    x, n = node.x, node.x.shape[-1]
    dy = node.dy.reshape([*x.shape[:-2], 1, 1])
    if n == 1:
        return [dy.expand(x.shape)]
    rest = np.array([[i for i in range(n) if i != k] for k in range(n)], np.int64)
    places = (rest[:, None, :, None] * n + rest[None, :, None, :]).reshape(-1)  # [row, column, n - 1, n - 1]
    stack, flat = x.shape[:-2], x.reshape([*x.shape[:-2], n * n])
    minors = x.graph.op("Gather", flat, x.graph.constant(places), shape=[*stack, places.size], axis=len(stack))
    minors = minors.reshape([*stack, n * n, n - 1, n - 1])
    signs = np.where((np.arange(n)[:, None] + np.arange(n)) % 2, -1, 1).astype(x.dtype)
    cofactors = x.graph.op("Det", minors, shape=[*stack, n * n]).reshape(x.shape) * x.graph.constant(signs)
    return [dy * cofactors]
