"""What is true of an operator whatever its sizes: one row per operator, by domain and type.

So far a row says where an output is zero: at a position where one of the `factors` is zero, all of the `terms` are, and
all of the `parts` that the position comes from are. Without a row, nothing is known to be zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.model.protos import MICROSOFT

Attributes = Mapping[str, Any]
# The value of an input by its slot: None where it is omitted, not a number where it is not static.
Value = Callable[[int], np.ndarray | None]
Slots = tuple[int, ...]

EVERY = tuple(range(64))


@dataclass(frozen=True)
class Zero:
    """Where the first output is zero, by the inputs at the same position; slots that a node lacks say nothing.

    Attributes:
        factors: inputs one of which must be zero.
        terms: inputs that must all be zero, also one that is broadcast.
        parts: inputs that positions of the output come from, each of which must be zero where it has the position.
        divisors: inputs that make the output infinite, or no number, where they are zero.
        when: whether the row holds for a node, by its attributes and the values of its inputs.
        all_outputs: it holds for every output.
    """

    factors: Slots = ()
    terms: Slots = ()
    parts: Slots = ()
    divisors: Slots = ()
    when: Callable[[Attributes, Value], bool] = lambda attrs, value: True
    all_outputs: bool = False


def zero(node: onnx.NodeProto, value: Value) -> Zero | None:
    """The row that holds for `node`; None where there is none.

    Args:
        node: the node.
        value: the value of an input by its slot: None where it is omitted, not a number where it is not static.
    """
    row = _ZERO.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
    if row is None:
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return row if row.when(attributes, value) else None


def divisors(node: onnx.NodeProto) -> Slots:
    """The inputs that make the output of `node` infinite, or no number, where they are zero."""
    row = _ZERO.get((node.domain, node.op_type))
    return row.divisors if row is not None else ()


def rows() -> Iterable[tuple[str, str, Zero]]:
    """(domain, operator, row) of the whole table."""
    return ((domain, op, row) for (domain, op), row in _ZERO.items())


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


# --- the table -------------------------------------------------------------------------------------------


def _each(ops: str, row: Zero) -> dict[str, Zero]:
    return dict.fromkeys(ops.split(), row)


_SAME, _PRODUCT, _SUM = Zero(parts=(0,)), Zero(factors=(0, 1)), Zero(terms=EVERY)
_BIASED = Zero(factors=(0, 1), terms=(2,))
_SCALED = Zero(factors=(1,), terms=(2,))
_UPDATED = Zero(parts=(0, 2))

_STANDARD: Mapping[str, Zero] = {
    # Position by position, with f(0) = 0.
    **_each("Abs Asin Asinh Atan Atanh BitCast Cast CastLike Ceil Celu Elu Erf Floor Gelu", _SAME),
    **_each("HardSwish Identity IsInf IsNaN LeakyRelu Mish Neg PRelu Relu Round Selu Sign", _SAME),
    **_each("Sin Sinh Softsign Sqrt Swish Tan Tanh ThresholdedRelu Dropout BitShift", _SAME),
    "Affine": Zero(parts=(0,), when=lambda attrs, value: attrs.get("beta", 0.0) == 0),
    "Clip": Zero(parts=(0,), when=_clips_around_zero),
    "HardSigmoid": Zero(parts=(0,), when=lambda attrs, value: attrs.get("beta", 0.5) <= 0),
    "Shrink": Zero(parts=(0,), when=lambda attrs, value: attrs.get("lambd", 0.5) >= 0),
    **_each("Acosh Log Reciprocal", Zero(divisors=(0,))),
    # Several inputs, position by position.
    **_each("Mul And BitwiseAnd SwiGLU", _PRODUCT),
    **_each("Add Sub Sum Mean Max Min Or Xor BitwiseOr BitwiseXor", _SUM),
    **_each("Div Mod", Zero(factors=(0,), divisors=(1,))),
    "Pow": Zero(factors=(0,), when=_is_positive_power),
    "Where": Zero(terms=(1, 2)),
    # Moves.
    **_each("Compress DepthToSpace Expand Flatten Gather GatherElements GatherND Reshape", _SAME),
    **_each("ReverseSequence Slice SpaceToDepth Squeeze Tile Transpose Trilu Unsqueeze Col2Im", _SAME),
    **_each("ScatterElements Scatter ScatterND", _UPDATED),
    "Concat": Zero(parts=EVERY),
    "Pad": Zero(parts=(0,), when=_pads_with_zero),
    "Split": Zero(parts=(0,), all_outputs=True),
    "TensorScatter": Zero(parts=(0, 1)),
    # Along axes that do not shrink.
    **_each("AveragePool MaxPool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool", _SAME),
    **_each("CenterCropPad Crop GridSample MaxRoiPool RoiAlign Upsample", _SAME),
    **_each("CumSum CumProd LRN LpNormalization RotaryEmbedding", _SAME),
    "MeanVarianceNormalization": Zero(parts=(0,), divisors=(0,)),
    **_each("ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd", _SAME),
    **_each("ReduceL1 ReduceL2 ReduceSumSquare", _SAME),
    "ReduceLogSum": Zero(divisors=(0,)),
    "Resize": Zero(parts=(0,), when=lambda attrs, value: attrs.get("extrapolation_value", 0.0) == 0),
    # Sums of products.
    **_each("MatMul ConvInteger MatMulInteger", _PRODUCT),
    **_each("Conv ConvTranspose Gemm", _BIASED),
    "CausalConvWithState": Zero(factors=(1,), terms=(2,), when=_activates_to_zero),
    "DeformConv": Zero(factors=(0, 1), terms=(3,)),
    "Einsum": Zero(factors=EVERY),
    # Norms: what comes out is scaled and shifted.
    **_each("BatchNormalization InstanceNormalization", _SCALED),
    **_each("GroupNormalization LayerNormalization", _SCALED),
    **_each("RMSNormalization SimplifiedLayerNormalization", _PRODUCT),
    # The state of a unit whose weights are zero is halved in every step.
    "LSTM": Zero((1,), (2, 3), (5, 6), when=_state_of(3, 1, 2), all_outputs=True),
    "GRU": Zero((1,), (2, 3), (5,), when=_state_of(2, 1), all_outputs=True),
    "RNN": Zero((1,), (2, 3), (5,), when=_state_of(1, 0), all_outputs=True),
    # What is attended to is a sum of values.
    "Attention": Zero(parts=(2, 5)),
    "LinearAttention": Zero(parts=(2, 3)),
    # Zero is stored as the zero point.
    **_each("QuantizeLinear DequantizeLinear DynamicQuantizeLinear", _SAME),
    "QLinearConv": Zero(factors=(0, 3), terms=(8,)),
    "QLinearMatMul": Zero(factors=(0, 3)),
}

_FUSED: Mapping[str, Zero] = {
    **_each("Gelu QuickGelu RotaryEmbedding GatherBlockQuantized", _SAME),
    **_each("BiasGelu FastGelu BiasAdd BiasSplitGelu", _SUM),
    **_each("FusedMatMul TransposeMatMul", _PRODUCT),
    **_each("GemmFastGelu NhwcConv", _BIASED),
    "FusedGemm": Zero(factors=(0, 1), terms=(2,), when=_activates_to_zero),
    "FusedConv": Zero(factors=(0, 1), terms=(2, 3), when=_activates_to_zero),
    "MatMulNBits": Zero(factors=(0, 1), terms=(5,)),
    "MoE": Zero(factors=(4,), terms=(5,)),
    "SkipLayerNormalization": Zero(factors=(2,), terms=(3,)),
    "SkipSimplifiedLayerNormalization": Zero(factors=(2,)),
    "EmbedLayerNormalization": Zero(factors=(5,), terms=(6,)),
    "Attention": Zero(factors=(1,), parts=(2, 4)),
    "MultiHeadAttention": Zero(parts=(0, 1, 2, 3, 7)),
    "GroupQueryAttention": Zero(parts=(0, 2, 4)),
    **_each("QuantizeLinear DequantizeLinear", _SAME),
    **_each("QLinearAveragePool QLinearGlobalAveragePool QLinearLeakyRelu", _SAME),
    "QLinearAdd": Zero(terms=(0, 3)),
    "QLinearMul": Zero(factors=(0, 3)),
    "QLinearWhere": Zero(terms=(1, 4)),
    "QLinearConcat": Zero(parts=EVERY[2::3]),
    "MatMulIntegerToFloat": Zero(factors=(0, 1), terms=(6,)),
    "DynamicQuantizeMatMul": Zero(factors=(0, 1), terms=(4,)),
    "QGemm": Zero(factors=(0, 3), terms=(6,)),
}

_ZERO = {("", op): row for op, row in _STANDARD.items()} | {(MICROSOFT, op): row for op, row in _FUSED.items()}
