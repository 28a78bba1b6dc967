"""Sizes and types of what ONNX Runtime's quantised operators make, for which `onnx` has no shape functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.protos import MICROSOFT

Shape = tuple[int, ...]
Attributes = Mapping[str, Any]
# From the attributes, and the sizes of every input (those of an omitted one are empty), to the sizes of the output.
Sizes = Callable[[Attributes, list[Shape]], Shape | None]


def infer(
    node: onnx.NodeProto, shapes: Mapping[str, Shape], dtypes: Mapping[str, int]
) -> list[tuple[int, Shape | None]]:
    """(type, sizes) of the output; empty where it cannot be known."""
    if node.domain != MICROSOFT or node.op_type not in _SIZES or any(i and i not in shapes for i in node.input):
        return []
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    attrs["type"] = dtypes.get(node.input[0], 0)
    given = [shapes[i] if i else () for i in node.input]
    sizes, like = _SIZES[node.op_type]
    try:
        shape = sizes(attrs, given)
    except (LookupError, ValueError, ZeroDivisionError):  # sizes that do not go together
        return []
    named = [node.input[slot] for slot in like if slot < len(node.input) and node.input[slot]]
    return [(dtypes.get(named[0], 0) if named else TensorProto.UINT8, shape)]


def _like(slot: int) -> Sizes:
    return lambda attrs, given: given[slot]


def _broadcast(*slots: int) -> Sizes:
    return lambda attrs, given: np.broadcast_shapes(*(given[s] for s in slots))


def _concat(attrs: Attributes, given: list[Shape]) -> Shape:
    parts, axis = given[2::3], attrs["axis"] % len(given[2])
    return (*parts[0][:axis], sum(p[axis] for p in parts), *parts[0][axis + 1 :])


def _gemm(attrs: Attributes, given: list[Shape]) -> Shape:
    return given[0][1 if attrs.get("transA") else 0], given[3][0 if attrs.get("transB") else 1]


def _product(attrs: Attributes, given: list[Shape]) -> Shape:
    a, b = given[:2]
    return (*np.broadcast_shapes(a[:-2], b[:-2]), *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


def _global_pool(attrs: Attributes, given: list[Shape]) -> Shape:
    n, *rest = given[0]
    ones = (1,) * (len(rest) - 1)
    return (n, *ones, rest[-1]) if attrs.get("channels_last") else (n, rest[0], *ones)


def _pool(attrs: Attributes, given: list[Shape]) -> Shape | None:
    if attrs.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        return None
    last = bool(attrs.get("channels_last"))
    space = given[0][1:-1] if last else given[0][2:]
    count, kernel = len(space), attrs["kernel_shape"]
    strides, pads = attrs.get("strides", [1] * count), attrs.get("pads", [0] * 2 * count)
    made = []
    for i, size in enumerate(space):
        steps, rest = divmod(size + pads[i] + pads[i + count] - kernel[i], strides[i])
        made.append(steps + 1 + bool(attrs.get("ceil_mode") and rest))
    return (given[0][0], *made, given[0][-1]) if last else (*given[0][:2], *made)


def _rows(attrs: Attributes, given: list[Shape]) -> Shape:
    return (*given[0][:-1], attrs["N"])


def _gather(attrs: Attributes, given: list[Shape]) -> Shape:
    axis = attrs.get("gather_axis", 0) % len(given[0])
    table = (*given[0][:-1], given[0][-1] * (8 // attrs.get("bits", 4) if attrs["type"] == TensorProto.UINT8 else 1))
    return (*table[:axis], *given[1], *table[axis + 1 :])


# Sizes, and the inputs whose type the output has: the first that is given; uint8 where none is.
_SIZES: Mapping[str, tuple[Sizes, tuple[int, ...]]] = {
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"), (_like(0), (0,))),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), (_broadcast(0, 3), (0,))),
    "QLinearWhere": (_broadcast(0, 1, 4), (1,)),
    "QLinearConcat": (_concat, (2,)),
    "QLinearAveragePool": (_pool, (0,)),
    "QLinearGlobalAveragePool": (_global_pool, (0,)),
    "QGemm": (_gemm, (8, 1)),
    "QuantizeLinear": (_like(0), (2,)),
    "DequantizeLinear": (_like(0), (1,)),
    "DynamicQuantizeMatMul": (_product, (0,)),
    "MatMulIntegerToFloat": (_product, (2,)),
    "MatMulNBits": (_rows, (0,)),
    "GatherBlockQuantized": (_gather, (2,)),
}
