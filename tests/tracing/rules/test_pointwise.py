"""Labels through operators that work position by position."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.tracing.rules.pointwise import BINARY, BROADCAST, UNARY
from tests.graphs.net import FLOAT, INT32, UINT8, Net
from tests.graphs.sandwich import Case, check_case, parameters

TO_UNIT = ("Acos", "Asin", "Atanh", "Tan")
TO_POSITIVE = ("Log", "Sqrt", "Reciprocal", "Pow", "Acosh", "Div", "BitShift")
ON_BOOL = ("Not", "And", "Or", "Xor")
ON_INT = ("BitwiseNot", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Mod")
VARIADIC = ("Sum", "Max", "Min", "Mean")


def ready(op: str, net: Net, x: str) -> str:
    """`x` in the domain of `op`, where it has something to say."""
    if op == "IsNaN":
        return net.add("Sqrt", x)
    if op == "IsInf":
        return net.add("Reciprocal", net.add("Relu", x))
    if op in TO_UNIT:
        return net.add("Tanh", x)
    if op in TO_POSITIVE:
        x = net.add("Add", net.add("Abs", x), net.const(np.float32(1.25)))
    if op in ON_BOOL:
        return net.add("Greater", x, net.const(np.float32(0.1)))
    if op in ON_INT or op == "BitShift":
        scale = {"BitShift": 1, "Equal": 2}.get(op, 9)
        x = net.add("Ceil", net.add("Abs", net.add("Mul", x, net.const(np.float32(scale)))))
        if op == "Mod":
            x = net.add("Add", x, net.const(np.float32(1)))
        return net.cast(x, UINT8 if op == "BitShift" else INT32)
    return x


def unary(op: str):
    def build(net: Net, x: str) -> str:
        return net.add(op, ready(op, net, x))

    return build


def cast(net: Net, x: str) -> str:
    return net.add("Cast", net.add("Mul", x, net.const(np.float32(50))), to=INT32)


def clip(net: Net, x: str) -> str:
    if net.opset < 11:
        return net.add("Clip", x, min=-0.5, max=0.7)
    return net.add("Clip", x, net.const(np.float32(-0.5)), net.const(np.float32(0.7)))


def clip_above(net: Net, x: str) -> str:
    return net.add("Clip", x, "", net.const(np.float32(0.7)))


def clip_computed(net: Net, x: str) -> str:
    bound = net.add("ReduceMax", net.inputs[0].name, keepdims=0)
    return net.add("Clip", x, "", net.add("Neg", net.add("Abs", bound)))


def dropout(net: Net, x: str) -> str:
    return net.add("Dropout", x)


def dropout_training(net: Net, x: str) -> str:
    return net.add("Dropout", x, net.const(np.float32(0.5)), net.const(np.bool_(True)))


def dropout_mask(net: Net, x: str) -> str:
    y, mask = net.add("Dropout", x, outputs=2)
    kept = net.cast(mask, FLOAT)
    return net.add("Add", y, kept)


def cast_like(net: Net, x: str) -> str:
    return net.add("CastLike", x, net.const(np.zeros(3, np.float32)))


def cast_like_labelled(net: Net, x: str) -> str:
    """Only the type of the second input matters, so its labels stay apart."""
    other = net.make((2, 5, 7), 2, weight="w_like")
    net.read(net.add("Relu", other), 2, weight="w_out_like")
    return net.add("CastLike", x, other)


def operand(op: str, net: Net, shape: tuple[int, ...]) -> str:
    """A constant second operand."""
    drawn = net.rng.standard_normal(shape)
    if op in ON_BOOL:
        return net.const(drawn > 0)
    if op == "BitShift":
        return net.const(np.abs(drawn * 2 + 1).astype(np.uint8))
    if op in ON_INT:
        return net.const(np.abs(drawn * (1 if op == "Equal" else 9)).astype(np.int32) + 1)
    if op in ("Div", "Pow"):
        drawn = np.abs(drawn) + 0.5
    return net.const(drawn.astype(np.float32))


def attributes(op: str) -> dict[str, object]:
    return {"direction": "LEFT"} if op == "BitShift" else {}


def with_constant(op: str, shape: tuple[int, ...], swapped: bool = False):
    def build(net: Net, x: str) -> str:
        pair = [ready(op, net, x), operand(op, net, shape)]
        return net.add(op, *(pair[::-1] if swapped else pair), **attributes(op))

    return build


def with_activation(op: str, shape: tuple[int, ...]):
    def build(net: Net, x: str) -> str:
        other = ready(op, net, net.make(shape, len(shape) - 1, weight="w_other"))
        return net.add(op, ready(op, net, x), other, **attributes(op))

    return build


def variadic(op: str):
    def build(net: Net, x: str) -> str:
        other = net.make((5, 8), 1, weight="w_other")
        return net.add(op, x, net.weight(5, 8) if net.opset >= 8 else other, other)

    return build


def where(role: str):
    def build(net: Net, x: str) -> str:
        other = net.make((2, 5, 8), 2, weight="w_other")
        test = net.add("Greater", x if role == "condition" else other, net.const(np.float32(0)))
        if role == "condition":
            return net.add("Where", test, net.weight(8), other)
        pair = [x, net.weight(8)]
        return net.add("Where", test, *(pair if role == "first" else pair[::-1]))

    return build


def prelu(shape: tuple[int, ...]):
    def build(net: Net, x: str) -> str:
        return net.add("PRelu", x, net.weight(*shape, name="slope", scale=0.5))

    return build


def thresholded(net: Net, x: str) -> str:
    return net.add("ThresholdedRelu", x, alpha=0.2)


def affine(net: Net, x: str) -> str:
    return net.add("Affine", x, alpha=2.0, beta=0.5)


SPECIAL = {"Affine": affine, "Cast": cast, "Clip": clip, "ThresholdedRelu": thresholded}
TWO = [op for op in (*BINARY, *BROADCAST) if op not in ("Where", "PRelu")]
SINCE = dict.fromkeys(VARIADIC, 8)
BOTH = {("w_other", 1): 8}

CASES = [
    *(Case(op, "", SPECIAL.get(op, unary(op))) for op in dict.fromkeys(UNARY)),
    *(Case(op, "same-shape", with_activation(op, (2, 5, 8)), others=BOTH, until=7) for op in VARIADIC),
    Case("Clip", "above", clip_above, since=11),
    Case("Clip", "computed", clip_computed, since=12),
    Case("Dropout", "", dropout),
    Case("Dropout", "training", dropout_training, units=0, why="dropped at random", since=12),
    Case("Dropout", "mask", dropout_mask, since=10),
    Case("CastLike", "", cast_like),
    Case("CastLike", "labelled", cast_like_labelled, others={("w_like", 1): 7}),
    *(Case(op, "vector", with_constant(op, (8,)), since=SINCE.get(op, 7)) for op in TWO),
    *(Case(op, "matrix-first", with_constant(op, (5, 8), True), since=SINCE.get(op, 7)) for op in TWO),
    *(Case(op, "scalar", with_constant(op, ()), since=SINCE.get(op, 7)) for op in TWO),
    *(Case(op, "column", with_constant(op, (5, 1)), since=SINCE.get(op, 7)) for op in TWO),
    *(Case(op, "activation", with_activation(op, (2, 5, 8)), others=BOTH, since=SINCE.get(op, 7)) for op in TWO),
    *(Case(op, "broadcast", with_activation(op, (5, 8)), others=BOTH, since=SINCE.get(op, 7)) for op in TWO),
    *(Case(op, "three", variadic(op), others=BOTH, since=8) for op in VARIADIC),
    *(Case("Where", role, where(role), others=BOTH, since=9) for role in ("condition",)),
    *(Case("Where", role, where(role), since=9, others=BOTH) for role in ("first", "second")),
    Case("PRelu", "vector", prelu((8,)), others={("slope", 0): 8}),
    Case("PRelu", "channels", prelu((8, 1, 1)), (2, 8, 4, 4), 1, 1, others={("slope", 0): 8}),
    Case("PRelu", "one", prelu((1,))),
    Case("PRelu", "spatial", prelu((5, 1))),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_pointwise(case: Case, version: int) -> None:
    check_case(case, version)


def test_before_opset_7_the_second_operand_is_laid_along_an_axis() -> None:
    from onnxprune.tracing.rules import find

    found = find("", "Add", 6)
    assert found is not None
    assert found.trace.__name__ == "broadcast_by_axis"
