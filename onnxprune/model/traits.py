"""What is true of an operator whatever its sizes: one row per operator, by domain and type.

A trait that a row lacks is not known to hold. The rules of `tracing` say how labels go through an operator; everything
else that the project knows of operators by name is a trait or a query on traits, so that an operator with a rule and a
row is treated alike by every package. What depends on sizes, attributes or values stays with the code that reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper

from onnxprune.model.protos import MICROSOFT, QUANTIZING
from onnxprune.model.quantizers import has_a_step_for_zero, has_no_zero_point

Attributes = Mapping[str, Any]
# The value of an input by its slot: None where it is omitted, not a number where it is not static.
Value = Callable[[int], np.ndarray | None]
Slots = tuple[int, ...]

EVERY = tuple(range(64))


@dataclass(frozen=True)
class Zero:
    """Where the first output is zero, by the inputs at the same position; slots that a node lacks say nothing.

    An output is zero at a position where one of the `factors` is zero, all of the `terms` are, and all of the `parts`
    that the position comes from are.

    Attributes:
        factors: inputs one of which must be zero.
        terms: inputs that must all be zero, also one that is broadcast.
        parts: inputs that positions of the output come from, each of which must be zero where it has the position.
        divisors: inputs that make the output infinite, or no number, where they are zero.
        when: whether the row holds for a node, by its attributes and the values of its inputs; None if it always does.
        all_outputs: it holds for every output.
    """

    factors: Slots = ()
    terms: Slots = ()
    parts: Slots = ()
    divisors: Slots = ()
    when: Callable[[Attributes, Value], bool] | None = None
    all_outputs: bool = False


class Norm(NamedTuple):
    """The lists of channels of a norm.

    Attributes:
        scale: the slot of the scale.
        bias: the slot of the bias; None where the norm has none.
        axis: the axis of the channels that the lists lie along.
    """

    scale: int
    bias: int | None
    axis: int


@dataclass(frozen=True)
class Traits:
    """What is true of an operator whatever its sizes.

    Attributes:
        zero: where the output is zero; None where nothing is known to be.
        moves: every output holds elements of the first input and nothing else, perhaps in another order (Gather).
        joins: the output holds elements of the inputs and nothing else.
        lays_out: the output is the first input under another shape, in the same order (Reshape).
        same: the output is the first input, as long as nothing is trained.
        retypes: the output is the first input in another type (Cast).
        decodes: the output is the numbers that the first input stands for (DequantizeLinear).
        elementwise: a position of the output depends on nothing but this position of the inputs, after broadcasting.
        same_shape: the first output has the shape of the first input.
        linear: f(E[x]) = E[f(x)]: the mean of the output is what the means of the inputs make; what moves is so too.
        homogeneous: f(s x) = s f(x) for s > 0, with the same f for every channel, which it keeps apart.
        rises: inputs that may all grow without the output getting smaller anywhere, as long as `rises_when` holds of
            the attributes and everything else stays.
        rises_when: see `rises`.
        affine: inputs in each of which the output is a multiple and a constant, position by position.
        multilinear: factors of which the output is a sum of products, to which the bias is added.
        adds: the first two inputs are added, before anything else is done.
        squeezes: large differences between large numbers leave next to none in the output.
        neighbours: a position of the output depends on those next to it in the input, or in front of it, so that their
            order matters.
        tells_sizes: the output says the sizes of the input, whatever its values.
        draws: the output is drawn at random, another one in every run.
        flat_below: the output is constant where the input is at or below this.
        flat_above: the output is constant where the input is at or above this.
        limits: what the output is never below and never above.
        norm: the lists of channels of a norm; None for no norm.
        weight: the slot of a contraction's second factor, by habit the stored one; None for no contraction.
        bias: the slot of what is added to the contraction's products.
        zero_points: (slot of a factor that is stored in whole bytes, slot of its zero point), for each such factor.
        tables: (slot of indices, slot of the table whose rows they name), for each table.
    """

    zero: Zero | None = None
    moves: bool = False
    joins: bool = False
    lays_out: bool = False
    same: bool = False
    retypes: bool = False
    decodes: bool = False
    elementwise: bool = False
    same_shape: bool = False
    linear: bool = False
    homogeneous: bool = False
    rises: Slots = ()
    rises_when: Callable[[Attributes], bool] = lambda attrs: True
    affine: Slots = ()
    multilinear: Slots = ()
    adds: bool = False
    squeezes: bool = False
    neighbours: bool = False
    tells_sizes: bool = False
    draws: bool = False
    flat_below: float = -math.inf
    flat_above: float = math.inf
    limits: tuple[float, float] = (-math.inf, math.inf)
    norm: Norm | None = None
    weight: int | None = None
    bias: int | None = None
    zero_points: tuple[tuple[int, int], ...] = ()
    tables: tuple[tuple[int, int], ...] = ()


def traits_of(node: onnx.NodeProto) -> Traits:
    """The traits of the operator of `node`; none at all for an operator without a row."""
    return TRAITS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type), Traits())


def operators_where(holds: Callable[[Traits], object], *domains: str) -> frozenset[str]:
    """The names of the operators whose traits satisfy `holds`.

    Args:
        holds: the query.
        domains: where to look; by default in every domain.
    """
    return frozenset(op for (domain, op), row in TRAITS.items() if (domain in domains or not domains) and holds(row))


def zero(node: onnx.NodeProto, value: Value) -> Zero | None:
    """Where the output of `node` is zero; None where nothing is known, or attributes of a wrong type leave it open.

    Args:
        node: the node.
        value: the value of an input by its slot: None where it is omitted, not a number where it is not static.
    """
    row = traits_of(node).zero
    if row is None or row.when is None:
        return row
    try:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        return row if row.when(attributes, value) else None
    except (AttributeError, TypeError, ValueError):  # no schema checks the nodes of other domains
        return None


def divisors(node: onnx.NodeProto) -> Slots:
    """The inputs that make the output of `node` infinite, or no number, where they are zero."""
    row = traits_of(node).zero
    return row.divisors if row is not None else ()


# --- conditions ------------------------------------------------------------------------------------------


def _clips_around_zero(attrs: Attributes, value: Value) -> bool:
    low, high = (attrs.get(name) if value(slot) is None else value(slot) for slot, name in ((1, "min"), (2, "max")))
    return bool((low is None or np.all(np.asarray(low) <= 0)) and (high is None or np.all(np.asarray(high) >= 0)))


def _pads_with_zero(attrs: Attributes, value: Value) -> bool:
    filler = attrs.get("value", 0.0) if value(2) is None else value(2)
    return attrs.get("mode", b"constant") != b"constant" or not np.any(filler)


def _is_positive_power(attrs: Attributes, value: Value) -> bool:
    exponent = value(1)
    return exponent is not None and bool((exponent > 0).all())


# Activations that an attribute names and that give zero for zero; with ONNX Runtime's, in small letters.
_STILL = ("", "none", "relu", "leakyrelu", "tanh", "elu", "softsign", "thresholdedrelu", "gelu", "silu", "swish")


def _is_still(name: bytes) -> bool:
    return name.decode("utf-8", "replace").lower() in _STILL


def _activates_to_zero(attrs: Attributes, value: Value) -> bool:
    return _is_still(attrs.get("activation", b""))


def _state_of(count: int, *made_by: int) -> Callable[[Attributes, Value], bool]:
    """Whether those of a recurrence's `count` activations per direction that make its state give zero for zero."""

    def holds(attrs: Attributes, value: Value) -> bool:
        given = attrs.get("activations", ())
        return all(_is_still(name) for i, name in enumerate(given) if i % count in made_by)

    return holds


def _has_no_negative_slope(attrs: Attributes) -> bool:
    return bool(attrs.get("alpha", 1.0) >= 0)


# --- the table -------------------------------------------------------------------------------------------


def _each(ops: str, words: str = "", zero: Zero | None = None, **traits: Any) -> dict[str, Traits]:
    """The same row for each of `ops`; `words` are the traits that are true."""
    true: dict[str, Any] = dict.fromkeys(words.split(), True)
    return dict.fromkeys(ops.split(), Traits(zero=zero, **true, **traits))


_LSTM_STATE = Zero((1,), (2, 3), (5, 6), when=_state_of(3, 1, 2), all_outputs=True)
_SAME, _PRODUCT, _SUM = Zero(parts=(0,)), Zero(factors=(0, 1)), Zero(terms=EVERY)
_BIASED = Zero(factors=(0, 1), terms=(2,))
_SCALED = Zero(factors=(1,), terms=(2,))
_UPDATED = Zero(parts=(0, 2))
_POINT = "elementwise same_shape"  # of one input, position by position

_RISES: Mapping[str, Any] = {"rises": (0,)}
# As long as the slope that an attribute gives is not negative.
_SLOPED: Mapping[str, Any] = {"rises": (0,), "rises_when": _has_no_negative_slope}

_POINTWISE: Mapping[str, Traits] = {
    # f(0) = 0.
    **_each("BitCast CastLike IsInf IsNaN Swish Tan", _POINT, _SAME),
    **_each("Abs", _POINT, _SAME, limits=(0.0, math.inf)),
    **_each("Gelu", _POINT, _SAME, limits=(-0.2, math.inf)),
    **_each("Mish", _POINT, _SAME, limits=(-0.4, math.inf)),
    **_each("Sin", _POINT, _SAME, limits=(-1.0, 1.0)),
    **_each("Asin Asinh Atan Atanh Ceil Erf Floor Round Sign Sinh Softsign Sqrt Tanh", _POINT, _SAME, **_RISES),
    **_each("Celu Elu ThresholdedRelu", _POINT, _SAME, **_SLOPED),
    **_each("Selu", _POINT, _SAME),
    **_each("Neg", _POINT, _SAME, affine=(0,)),
    **_each("Cast", f"{_POINT} retypes", _SAME, **_RISES),
    **_each("Dropout", f"{_POINT} same linear homogeneous", _SAME),
    **_each("HardSwish", _POINT, _SAME, flat_below=-3.0, limits=(-0.4, math.inf)),
    **_each("Identity", f"{_POINT} moves same homogeneous", _SAME, **_RISES),
    **_each("LeakyRelu", f"{_POINT} homogeneous", _SAME, **_SLOPED),
    **_each("Relu", f"{_POINT} homogeneous", _SAME, flat_below=0.0, **_RISES),
    **_each("Affine", _POINT, Zero(parts=(0,), when=lambda attrs, value: attrs.get("beta", 0.0) == 0)),
    **_each("Clip", _POINT, Zero(parts=(0,), when=_clips_around_zero), rises=(0, 1, 2)),
    **_each("HardSigmoid", _POINT, Zero(parts=(0,), when=lambda attrs, value: attrs.get("beta", 0.5) <= 0), **_SLOPED),
    **_each("Shrink", _POINT, Zero(parts=(0,), when=lambda attrs, value: attrs.get("lambd", 0.5) >= 0)),
    # f(0) is anything.
    **_each("Reciprocal", _POINT, Zero(divisors=(0,))),
    **_each("Acosh Log", _POINT, Zero(divisors=(0,)), **_RISES),
    **_each("Acos BitwiseNot Cosh Not", _POINT),
    **_each("Cos", _POINT, limits=(-1.0, 1.0)),
    **_each("Exp Softplus", _POINT, **_RISES),
    **_each("Sigmoid", f"{_POINT} squeezes", **_RISES),
    # Several inputs.
    **_each("PRelu", _POINT, _SAME),
    **_each("BitShift", "elementwise", _SAME),
    **_each("Mul", "elementwise", _PRODUCT, affine=(0, 1)),
    **_each("And BitwiseAnd SwiGLU", "elementwise", _PRODUCT),
    **_each("Mean Max Min", "elementwise", _SUM, rises=EVERY),
    **_each("Or Xor BitwiseOr BitwiseXor", "elementwise", _SUM),
    **_each("Add Sum", "elementwise linear adds", _SUM, rises=EVERY),
    **_each("Sub", "elementwise linear", _SUM, affine=(0, 1)),
    **_each("Div", "elementwise", Zero(factors=(0,), divisors=(1,)), affine=(0,)),
    **_each("Mod", "elementwise", Zero(factors=(0,), divisors=(1,))),
    **_each("Pow", "elementwise", Zero(factors=(0,), when=_is_positive_power)),
    **_each("Where", "elementwise", Zero(terms=(1, 2)), rises=(1, 2)),
    **_each("Equal Greater GreaterOrEqual Less LessOrEqual", "elementwise"),
}

_STANDARD: Mapping[str, Traits] = {
    **_POINTWISE,
    # Moves.
    **_each("Flatten Reshape", "moves lays_out homogeneous", _SAME, **_RISES),
    **_each("Squeeze Unsqueeze", "moves lays_out", _SAME, **_RISES),
    **_each("Compress DepthToSpace Expand Slice SpaceToDepth Tile Transpose", "moves", _SAME, **_RISES),
    **_each("ReverseSequence", "moves same_shape", _SAME, **_RISES),
    **_each("Gather GatherElements GatherND", "moves", _SAME, tables=((1, 0),), **_RISES),
    **_each("Split", "moves", Zero(parts=(0,), all_outputs=True), **_RISES),
    **_each("Col2Im", "", _SAME),
    **_each("Trilu", "same_shape", _SAME),
    **_each("ScatterElements Scatter ScatterND", "same_shape", _UPDATED),
    **_each("Concat", "linear joins", Zero(parts=EVERY), rises=EVERY),
    **_each("Pad", "", Zero(parts=(0,), when=_pads_with_zero), rises=(0, 2)),
    **_each("TensorScatter", "same_shape", Zero(parts=(0, 1))),
    # Along axes that do not shrink.
    **_each("AveragePool GlobalAveragePool", "linear homogeneous", _SAME, **_RISES),
    **_each("MaxPool GlobalMaxPool", "homogeneous", _SAME, **_RISES),
    **_each("LpPool GlobalLpPool CenterCropPad Crop GridSample MaxRoiPool RoiAlign Upsample", "", _SAME),
    **_each("CumSum CumProd LRN", "same_shape neighbours", _SAME),
    **_each("LpNormalization RotaryEmbedding", "same_shape", _SAME),
    **_each("MeanVarianceNormalization", "same_shape", Zero(parts=(0,), divisors=(0,))),
    **_each("ReduceSum ReduceMean", "linear", _SAME, **_RISES),
    **_each("ReduceMax ReduceMin", "", _SAME, **_RISES),
    **_each("ReduceProd", "", _SAME),
    **_each("ReduceL1 ReduceL2 ReduceSumSquare", "", _SAME, limits=(0.0, math.inf)),
    **_each("ReduceLogSum", "", Zero(divisors=(0,))),
    **_each("Resize", "", Zero(parts=(0,), when=lambda attrs, value: attrs.get("extrapolation_value", 0.0) == 0)),
    **_each("Softmax", "same_shape squeezes", limits=(0.0, 1.0)),
    **_each("Hardmax", "same_shape", limits=(0.0, 1.0)),
    **_each("LogSoftmax", "same_shape", limits=(-math.inf, 0.0)),
    **_each("ArgMax ArgMin Det DFT ReduceLogSumExp STFT TopK"),
    **_each("NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss"),
    # Sums of products.
    **_each("MatMul", "", _PRODUCT, weight=1, multilinear=(0, 1)),
    **_each("ConvInteger MatMulInteger", "", _PRODUCT, weight=1, zero_points=((1, 3),)),
    **_each("Conv ConvTranspose Gemm", "", _BIASED, weight=1, bias=2, multilinear=(0, 1)),
    **_each("CausalConvWithState", "", Zero(factors=(1,), terms=(2,), when=_activates_to_zero)),
    **_each("DeformConv", "", Zero(factors=(0, 1), terms=(3,)), weight=1, bias=3),
    **_each("Einsum", "", Zero(factors=EVERY), multilinear=EVERY),
    # Norms: what comes out is scaled and shifted.
    **_each("BatchNormalization", "same_shape", _SCALED, norm=Norm(1, 2, 1), affine=(0,)),
    **_each("InstanceNormalization GroupNormalization", "same_shape", _SCALED, norm=Norm(1, 2, 1)),
    **_each("LayerNormalization", "same_shape", _SCALED, norm=Norm(1, 2, -1)),
    **_each("RMSNormalization", "same_shape", _PRODUCT, norm=Norm(1, None, -1)),
    **_each("SimplifiedLayerNormalization", "same_shape", _PRODUCT),
    # The state of a unit whose weights are zero is halved in every step.
    **_each("LSTM", "", _LSTM_STATE),
    **_each("GRU", "", Zero((1,), (2, 3), (5,), when=_state_of(2, 1), all_outputs=True)),
    **_each("RNN", "", Zero((1,), (2, 3), (5,), when=_state_of(1, 0), all_outputs=True)),
    # What is attended to is a sum of values.
    **_each("Attention", "", Zero(parts=(2, 5))),
    **_each("LinearAttention", "", Zero(parts=(2, 3))),
    # Zero is stored as the zero point.
    **_each("QuantizeLinear", "same_shape", _SAME, **_RISES),
    **_each("DynamicQuantizeLinear", "same_shape", _SAME),
    **_each("DequantizeLinear", "same_shape decodes", _SAME, **_RISES),
    **_each("QLinearConv", "", Zero(factors=(0, 3), terms=(8,)), weight=3, bias=8, zero_points=((3, 5),)),
    **_each("QLinearMatMul", "", Zero(factors=(0, 3)), weight=3, zero_points=((3, 5),)),
    # Made of sizes or of nothing; and graphs inside of a node.
    **_each("Shape Size", "tells_sizes"),
    **_each("AffineGrid Constant ConstantOfShape EyeLike OneHot Range"),
    **_each("RandomNormal RandomUniform Multinomial", "draws"),
    **_each("Bernoulli RandomNormalLike RandomUniformLike", "same_shape draws"),
    **_each("If Loop Scan"),
}

_LEARNING: Mapping[str, Traits] = _each("ArrayFeatureExtractor Binarizer LabelEncoder TreeEnsemble")

_FUSED: Mapping[str, Traits] = {
    **_each("Gelu QuickGelu", _POINT, _SAME),
    **_each("RotaryEmbedding", "same_shape", _SAME),
    **_each("GatherBlockQuantized", "", _SAME),
    **_each("BiasGelu FastGelu BiasAdd", "elementwise", _SUM),
    **_each("BiasSplitGelu", "", _SUM),
    **_each("FusedMatMul TransposeMatMul", "", _PRODUCT, weight=1),
    **_each("GemmFastGelu NhwcConv", "", _BIASED, weight=1, bias=2),
    **_each("FusedGemm", "", Zero(factors=(0, 1), terms=(2,), when=_activates_to_zero), weight=1, bias=2),
    **_each("FusedConv", "", Zero(factors=(0, 1), terms=(2, 3), when=_activates_to_zero), weight=1, bias=2),
    **_each("MatMulNBits", "", Zero(factors=(0, 1), terms=(5,)), weight=1, bias=5),
    **_each("MoE", "same_shape", Zero(factors=(4,), terms=(5,))),
    **_each("QMoE", "same_shape"),
    **_each("SkipLayerNormalization", "same_shape adds", Zero(factors=(2,), terms=(3,)), norm=Norm(2, 3, -1)),
    **_each("SkipSimplifiedLayerNormalization", "same_shape adds", Zero(factors=(2,)), norm=Norm(2, None, -1)),
    **_each("EmbedLayerNormalization", "", Zero(factors=(5,), terms=(6,)), tables=((0, 2), (1, 4), (8, 3))),
    **_each("Attention", "", Zero(factors=(1,), parts=(2, 4))),
    **_each("MultiHeadAttention", "", Zero(parts=(0, 1, 2, 3, 7))),
    **_each("GroupQueryAttention", "", Zero(parts=(0, 2, 4))),
    **_each("QuantizeLinear", "same_shape", _SAME),
    **_each("DequantizeLinear", "same_shape decodes", _SAME),
    **_each("QLinearAveragePool QLinearGlobalAveragePool", "", _SAME),
    **_each("QLinearLeakyRelu", "same_shape", _SAME),
    **_each("QLinearSigmoid QLinearSoftmax", "same_shape"),
    **_each("QLinearAdd", "", Zero(terms=(0, 3))),
    **_each("QLinearMul", "", Zero(factors=(0, 3))),
    **_each("QLinearWhere", "", Zero(terms=(1, 4))),
    **_each("QLinearConcat", "", Zero(parts=EVERY[2::3])),
    **_each("MatMulIntegerToFloat", "", Zero(factors=(0, 1), terms=(6,)), weight=1, bias=6, zero_points=((1, 5),)),
    **_each("DynamicQuantizeMatMul", "", Zero(factors=(0, 1), terms=(4,)), weight=1, bias=4, zero_points=((1, 3),)),
    **_each("DynamicQuantizeLSTM", "", _LSTM_STATE, zero_points=((1, 9), (2, 11))),
    **_each("QGemm", "", Zero(factors=(0, 3), terms=(6,)), weight=3, bias=6, zero_points=((3, 5),)),
}

# What is quantised and scaled back.
_QUANTIZERS: Mapping[str, Traits] = {
    **_each("Quant IntQuant", "", Zero(parts=(0,), when=has_a_step_for_zero)),
    **_each("Trunc", "", Zero(parts=(0,), when=has_no_zero_point)),
    **_each("BipolarQuant"),
}

TRAITS: Mapping[tuple[str, str], Traits] = {
    (domain, op): row
    for domain, rows in (
        ("", _STANDARD),
        ("ai.onnx.ml", _LEARNING),
        (MICROSOFT, _FUSED),
        *((d, _QUANTIZERS) for d in QUANTIZING),
    )
    for op, row in rows.items()
}
