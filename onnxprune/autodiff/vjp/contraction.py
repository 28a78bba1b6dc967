"""Products of matrices: MatMul, Gemm, Einsum."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.registry import BackwardNode, NoGradient, register_vjp

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
    gradients: list[Value | None] = []
    for slot, own in enumerate(terms):
        if not node.needed(slot):
            gradients.append(None)
            continue
        if len(set(own)) < len(own):
            raise NoGradient("Einsum takes a diagonal")
        others = [(t, node.input(i)) for i, t in enumerate(terms) if i != slot]
        known = set(output).union(*(t for t, _ in others)) if others else set(output)
        # A letter of this term alone is summed over: its gradient is the same everywhere along it.
        made = "".join(letter for letter in own if letter in known)
        sizes = dict(zip(own, node.input(slot).shape, strict=True))
        equation = ",".join([output, *(t for t, _ in others)]) + "->" + made
        shape = [sizes[letter] for letter in made]
        value = node.graph.op("Einsum", node.dy, *(v for _, v in others), shape=shape, equation=equation)
        if made != own:
            value = value.reshape([sizes[x] if x in known else 1 for x in own]).expand(node.input(slot).shape)
        gradients.append(value)
    return gradients


def _letters(node: BackwardNode) -> tuple[list[str], str]:
    """The terms of an equation with letters in place of an ellipsis."""
    equation = str(node.attributes["equation"]).replace(" ", "")
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if c not in equation]
    widths = {node.input(i).rank - len(t.replace("...", "")) for i, t in enumerate(terms) if "..." in t}
    if len(widths) > 1:
        raise NoGradient("Einsum broadcasts along its ellipsis")
    dots = "".join(spare[: widths.pop()]) if widths else ""
    if not arrow:
        counted = "".join(terms).replace("...", "")
        output = ("..." if dots else "") + "".join(sorted(c for c in set(counted) if counted.count(c) == 1))
    terms = [t.replace("...", dots) for t in terms]
    sizes: dict[str, int] = {}
    for i, term in enumerate(terms):
        for letter, size in zip(term, node.input(i).shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise NoGradient("Einsum broadcasts an axis of one position")
    return terms, output.replace("...", dots)
