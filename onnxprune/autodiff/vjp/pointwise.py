"""Operators that treat every position alike: arithmetic, activations, choices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.registry import ZERO, BackwardNode, elementwise, register_vjp

Gradients = Sequence[Value | None]


def _to_inputs(node: BackwardNode, *makers: Callable[[], Value]) -> Gradients:
    """Gradients of broadcast inputs, each made only if it is asked for."""
    return [maker().sum_to(node.input(slot).shape) if node.needed(slot) else None for slot, maker in enumerate(makers)]


@register_vjp("Add")
def _add(node: BackwardNode) -> Gradients:
    return _to_inputs(node, lambda: node.dy, lambda: node.dy)


@register_vjp("Sum")
def _sum(node: BackwardNode) -> Gradients:
    return _to_inputs(node, *[lambda: node.dy] * len(node.inputs))


@register_vjp("Mean")
def _mean(node: BackwardNode) -> Gradients:
    share = 1 / len(node.inputs)
    return _to_inputs(node, *[lambda: node.dy * share] * len(node.inputs))


@register_vjp("Sub")
def _sub(node: BackwardNode) -> Gradients:
    return _to_inputs(node, lambda: node.dy, lambda: -node.dy)


@register_vjp("Mul")
def _mul(node: BackwardNode) -> Gradients:
    a, b = node.input(0), node.input(1)
    return _to_inputs(node, lambda: node.dy * b, lambda: node.dy * a)


@register_vjp("Div")
def _div(node: BackwardNode) -> Gradients:
    b = node.input(1)
    return _to_inputs(node, lambda: node.dy / b, lambda: -(node.dy / b * node.y))


@register_vjp("Mod")
def _mod(node: BackwardNode) -> Gradients:
    quotient = node.input(0) / node.input(1)
    # fmod rounds the quotient towards zero, the other kind towards minus infinity.
    rounded = quotient.map("Floor")
    if node.attributes.get("fmod"):
        rounded = quotient.map("Abs").map("Floor") * quotient.map("Sign")
    return _to_inputs(node, lambda: node.dy, lambda: -(node.dy * rounded))


@register_vjp("Pow")
def _pow(node: BackwardNode) -> Gradients:
    x = node.x
    power = node.input(1).cast(x.dtype)
    known = power.constant

    def by_base() -> Value:
        if known is not None and known.size == 1 and float(known.reshape(-1)[0]) == 2:
            return node.dy * x * 2.0
        return node.dy * power * (x ** (power - 1.0))

    def by_power() -> Value:
        # x^p log(x) is zero at x = 0 for p > 0, where log gives minus infinity.
        positive = x.compare("Greater", 0.0)
        logarithm = positive.where(x, x.like(1.0)).map("Log")
        return node.dy * node.y * logarithm

    return _to_inputs(node, by_base, by_power)


@register_vjp("Max", "Min")
def _extreme(node: BackwardNode) -> Gradients:
    """Ties share the gradient equally, as in torch.maximum."""
    masks = [node.input(slot).mask("Equal", node.y) for slot in range(len(node.inputs))]
    if len(masks) == 1:
        return [node.dy]
    count = masks[0]
    for mask in masks[1:]:
        count = count + mask
    share = node.dy / count
    return _to_inputs(node, *[_product(share, mask) for mask in masks])


def _product(a: Value, b: Value) -> Callable[[], Value]:
    return lambda: a * b


@register_vjp("Where")
def _where(node: BackwardNode) -> Gradients:
    condition, zero = node.input(0), node.dy.like(0.0)
    left = condition.where(node.dy, zero).sum_to(node.input(1).shape) if node.needed(1) else None
    right = condition.where(zero, node.dy).sum_to(node.input(2).shape) if node.needed(2) else None
    return [None, left, right]


@register_vjp("Identity")
def _identity(node: BackwardNode) -> Gradients:
    return node.only_first(node.dy)


@register_vjp("Cast")
def _cast(node: BackwardNode) -> Gradients:
    """Integers that stand for real numbers carry their gradient as floats."""
    if node.x.dtype.kind != "f":
        return node.only_first(node.dy)
    return node.only_first(node.dy.cast(node.x.dtype))


@register_vjp("CastLike")
def _cast_like(node: BackwardNode) -> Gradients:
    return [node.dy.cast(node.x.dtype), ZERO]


# --- functions of one number -----------------------------------------------------------------------------


@elementwise("Neg")
def _neg(node: BackwardNode) -> Value:
    return -node.dy


@elementwise("Abs")
def _abs(node: BackwardNode) -> Value:
    return node.dy * node.x.map("Sign")


@elementwise("Reciprocal")
def _reciprocal(node: BackwardNode) -> Value:
    return -(node.dy * node.y * node.y)


@elementwise("Exp")
def _exp(node: BackwardNode) -> Value:
    return node.dy * node.y


@elementwise("Log")
def _log(node: BackwardNode) -> Value:
    return node.dy / node.x


@elementwise("Sqrt")
def _sqrt(node: BackwardNode) -> Value:
    return node.dy / (node.y * 2.0)


@elementwise("Sin")
def _sin(node: BackwardNode) -> Value:
    return node.dy * node.x.map("Cos")


@elementwise("Cos")
def _cos(node: BackwardNode) -> Value:
    return -(node.dy * node.x.map("Sin"))


@elementwise("Tan")
def _tan(node: BackwardNode) -> Value:
    return node.dy * (node.y * node.y + 1.0)


@elementwise("Asin")
def _asin(node: BackwardNode) -> Value:
    return node.dy / (1.0 - node.x * node.x).map("Sqrt")


@elementwise("Acos")
def _acos(node: BackwardNode) -> Value:
    return -(node.dy / (1.0 - node.x * node.x).map("Sqrt"))


@elementwise("Atan")
def _atan(node: BackwardNode) -> Value:
    return node.dy / (node.x * node.x + 1.0)


@elementwise("Sinh")
def _sinh(node: BackwardNode) -> Value:
    return node.dy * _even_exponentials(node.x)


@elementwise("Cosh")
def _cosh(node: BackwardNode) -> Value:
    return node.dy * (node.x.map("Exp") - (-node.x).map("Exp")) * 0.5


@elementwise("Asinh")
def _asinh(node: BackwardNode) -> Value:
    return node.dy / (node.x * node.x + 1.0).map("Sqrt")


@elementwise("Acosh")
def _acosh(node: BackwardNode) -> Value:
    return node.dy / (node.x * node.x - 1.0).map("Sqrt")


@elementwise("Atanh")
def _atanh(node: BackwardNode) -> Value:
    return node.dy / (1.0 - node.x * node.x)


def _even_exponentials(x: Value) -> Value:
    return (x.map("Exp") + (-x).map("Exp")) * 0.5


@elementwise("Erf")
def _erf(node: BackwardNode) -> Value:
    return node.dy * ((-(node.x * node.x)).map("Exp") * (2 / math.sqrt(math.pi)))


@elementwise("Tanh")
def _tanh(node: BackwardNode) -> Value:
    return node.dy * (1.0 - node.y * node.y)


@elementwise("Sigmoid")
def _sigmoid(node: BackwardNode) -> Value:
    return node.dy * (node.y * (1.0 - node.y))


@elementwise("Softplus")
def _softplus(node: BackwardNode) -> Value:
    return node.dy * node.x.map("Sigmoid")


@elementwise("Softsign")
def _softsign(node: BackwardNode) -> Value:
    denominator = node.x.map("Abs") + 1.0
    return node.dy / (denominator * denominator)


# --- activations with corners: the derivative at a corner is that of the left side, as in torch --------------


@elementwise("Relu")
def _relu(node: BackwardNode) -> Value:
    return node.dy * node.y.mask("Greater", 0.0)


@elementwise("LeakyRelu")
def _leaky_relu(node: BackwardNode) -> Value:
    slope = node.attributes.get("alpha", 0.01)
    return node.x.compare("Greater", 0.0).where(node.dy, node.dy * slope)


@elementwise("ThresholdedRelu")
def _thresholded_relu(node: BackwardNode) -> Value:
    return node.dy * node.x.mask("Greater", node.attributes.get("alpha", 1.0))


@register_vjp("PRelu")
def _prelu(node: BackwardNode) -> Gradients:
    slope, positive, zero = node.input(1), node.x.compare("Greater", 0.0), node.dy.like(0.0)
    return _to_inputs(
        node,
        lambda: positive.where(node.dy, node.dy * slope),
        lambda: positive.where(zero, node.dy * node.x),
    )


@elementwise("Elu")
def _elu(node: BackwardNode) -> Value:
    alpha = node.attributes.get("alpha", 1.0)
    return node.x.compare("Greater", 0.0).where(node.dy, node.dy * (node.y + alpha))


@elementwise("Celu")
def _celu(node: BackwardNode) -> Value:
    alpha = node.attributes.get("alpha", 1.0)
    return node.x.compare("Greater", 0.0).where(node.dy, node.dy * (node.y * (1 / alpha) + 1.0))


@elementwise("Selu")
def _selu(node: BackwardNode) -> Value:
    alpha = node.attributes.get("alpha", 1.67326319217681884765625)
    gamma = node.attributes.get("gamma", 1.05070102214813232421875)
    return node.x.compare("Greater", 0.0).where(node.dy * gamma, node.dy * (node.y + alpha * gamma))


@elementwise("HardSigmoid")
def _hard_sigmoid(node: BackwardNode) -> Value:
    inside = node.y.mask("Greater", 0.0) * node.y.mask("Less", 1.0)
    return node.dy * inside * node.attributes.get("alpha", 0.2)


@elementwise("HardSwish")
def _hard_swish(node: BackwardNode) -> Value:
    """Derivative of x clip(x / 6 + 1/2, 0, 1)."""
    gate = node.x.map("HardSigmoid", alpha=1 / 6, beta=0.5)
    inside = node.x - node.x.map("Shrink", lambd=3.0)
    return node.dy * (gate + inside * (1 / 6))


@elementwise("Swish")
def _swish(node: BackwardNode) -> Value:
    alpha = node.attributes.get("alpha", 1.0)
    gate = (node.x * alpha).map("Sigmoid")
    return node.dy * (gate + node.y * (1.0 - gate) * alpha)


@elementwise("Mish")
def _mish(node: BackwardNode) -> Value:
    gate = node.x.map("Softplus").map("Tanh")
    return node.dy * (gate + node.x * node.x.map("Sigmoid") * (1.0 - gate * gate))


@elementwise("Gelu")
def _gelu(node: BackwardNode) -> Value:
    x = node.x
    if node.attributes.get("approximate", "none") == "tanh":
        scale = math.sqrt(2 / math.pi)
        square = x * x
        gate = (x * (square * 0.044715 + 1.0) * scale).map("Tanh")
        slope = (square * (3 * 0.044715) + 1.0) * scale
        return node.dy * ((gate + 1.0) * 0.5 + x * 0.5 * (1.0 - gate * gate) * slope)
    cumulative = ((x * (1 / math.sqrt(2))).map("Erf") + 1.0) * 0.5
    density = (x * x * -0.5).map("Exp") * (1 / math.sqrt(2 * math.pi))
    return node.dy * (cumulative + x * density)


@elementwise("Shrink")
def _shrink(node: BackwardNode) -> Value:
    return node.dy * node.x.map("Abs").mask("Greater", node.attributes.get("lambd", 0.5))


@register_vjp("Clip")
def _clip(node: BackwardNode) -> Gradients:
    """Inside of the range and at its bounds the gradient goes to the input, as in torch.clamp; beyond, to the bound.

    ONNX takes the upper bound last: where the bounds cross, everything is the upper one.
    """
    if not node.needed(1) and not node.needed(2):
        return node.only_first(node.dy * node.x.mask("Equal", node.y))
    x, low, high = node.x, node.inputs[1:2], node.inputs[2:3]
    bottom = low[0] if low else None
    top = high[0] if high else None
    lifted = x if bottom is None else node.graph.op("Max", x, bottom, shape=x.shape)
    below_top = None if top is None else lifted.mask("LessOrEqual", top)
    gradient = node.dy if below_top is None else node.dy * below_top
    above_bottom = None if bottom is None else x.mask("GreaterOrEqual", bottom)
    results: list[Value | None] = [gradient if above_bottom is None else gradient * above_bottom]
    if bottom is not None and above_bottom is not None:
        results.append((gradient * (1.0 - above_bottom)).sum_to(bottom.shape) if node.needed(1) else None)
    elif len(node.inputs) > 1:
        results.append(None)
    if top is not None and below_top is not None:
        results.append((node.dy * (1.0 - below_top)).sum_to(top.shape) if node.needed(2) else None)
    return results


@register_vjp("Dropout")
def _dropout(node: BackwardNode) -> Gradients:
    """In training mode the kept positions are scaled by 1 / (1 - ratio); otherwise nothing happens."""
    training = node.has(2) and bool(node.constant(2, "the mode of Dropout").reshape(-1)[0])
    if not training:
        return node.only_first(node.dy)
    ratio = float(node.constant(1, "the ratio of Dropout").reshape(-1)[0]) if node.has(1) else 0.5
    kept = node.extra_output(1, node.y.shape, np.dtype(bool)).cast(node.dy.dtype)
    return node.only_first(node.dy * kept * (1 / (1 - ratio) if ratio < 1 else 0.0))


@register_vjp("CumSum")
def _cumsum(node: BackwardNode) -> Gradients:
    options = {"exclusive": node.attributes.get("exclusive", 0), "reverse": 1 - node.attributes.get("reverse", 0)}
    gradient = node.graph.op("CumSum", node.dy, node.input(1), shape=node.dy.shape, **options)
    return [gradient, None]


@register_vjp("Trilu")
def _trilu(node: BackwardNode) -> Gradients:
    diagonal = node.input(1) if node.has(1) else None
    upper = node.attributes.get("upper", 1)
    return node.only_first(node.graph.op("Trilu", node.dy, diagonal, shape=node.dy.shape, upper=upper))


@register_vjp("Softmax")
def _softmax(node: BackwardNode) -> Gradients:
    axis = node.attributes.get("axis", -1)
    weighted = node.dy * node.y
    return [weighted - node.y * weighted.sum([axis], keepdims=True)]


@register_vjp("LogSoftmax")
def _log_softmax(node: BackwardNode) -> Gradients:
    axis = node.attributes.get("axis", -1)
    return [node.dy - node.y.map("Exp") * node.dy.sum([axis], keepdims=True)]
