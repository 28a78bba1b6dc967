"""Operators that work position by position, with numpy broadcasting."""

from __future__ import annotations

from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.letters import Letters, through
from onnxprune.tracing.rules.node_view import NodeView
from onnxprune.tracing.rules.registry import rule

UNARY = (
    "Abs",
    "Acos",
    "Affine",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
)

# From opset 7 on as numpy does; before, the second input is laid along `axis`.
BINARY = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "PRelu", "Sub", "Xor")
BROADCAST = (
    *("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "GreaterOrEqual", "LessOrEqual", "Max", "Mean", "Min"),
    *("Mod", "Sum", "Where"),
)


@rule(*UNARY)
@rule("BitCast")
@rule("Binarizer", "LabelEncoder", domain="ai.onnx.ml")
def unary(view: NodeView) -> list[Axes]:
    """Each position on its own."""
    return [view.labels(0)]


@rule("CastLike")
def cast_like(view: NodeView) -> list[Axes]:
    """Each position on its own; of the second input only the type matters."""
    view.looks_at(1)
    return [view.labels(0)]


@rule("Dropout")
def dropout(view: NodeView) -> list[Axes]:
    """Each position on its own (the mask too); what is drawn at random while training depends on the sizes."""
    training = view.value(2)
    if view.has(2) and (training is None or training.any()):
        raise Unsupported("positions are dropped at random")
    return [view.labels(0)] * len(view.node.output)


@rule(*BINARY, since=7)
@rule(*BROADCAST, "SwiGLU")
def broadcast(view: NodeView) -> list[Axes]:
    """Inputs tied position by position, broadcast from the right."""
    rank = len(view.out_shape())
    letters = [range(rank - len(view.shape(slot)), rank) for slot in range(len(view.node.input))]
    return through(view, letters, [range(rank)])


@rule(*BINARY, until=6)
def broadcast_by_axis(view: NodeView) -> list[Axes]:
    """Inputs tied position by position; the second one is laid along `axis` (before opset 7)."""
    rank, small = len(view.out_shape()), len(view.shape(1))
    start = view.attrs.get("axis", rank - small)
    start += rank if start < 0 else 0
    letters: list[Letters] = [range(rank), range(start, start + small)]
    if view.node.op_type == "PRelu" and small == 1 and rank > 1:
        letters[1] = [1]
    return through(view, letters, [range(rank)])
