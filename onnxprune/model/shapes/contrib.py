"""Sizes and types of the outputs of operators that `onnx` has no shape function for, ONNX Runtime's among them."""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper

from onnxprune.model.protos import MICROSOFT, QUANTIZING
from onnxprune.model.quantizers import QUANTIZERS
from onnxprune.model.shapes.polynomials import Dim, Dims, Size, broadcast_dims, largest

logger = logging.getLogger(__name__)

LARGEST_SIZE = 1 << 31

# Fused operators whose first output is sized like that of a standard operator on the first inputs.
_STANDARD: Mapping[str, tuple[str, int]] = {"FusedConv": ("Conv", 3), "FusedGemm": ("Gemm", 3)}


def standard(node: onnx.NodeProto) -> onnx.NodeProto:
    """The standard operator whose output is sized like that of a fused one; other nodes as they are."""
    if node.domain != MICROSOFT or node.op_type not in _STANDARD:
        return node
    op, count = _STANDARD[node.op_type]
    known = defs.get_schema(op).attributes
    plain = helper.make_node(op, node.input[:count], node.output, name=node.name)
    plain.attribute.extend(a for a in node.attribute if a.name in known)
    return plain


@dataclass(frozen=True)
class _Given:
    """What is known of a node and its inputs."""

    node: onnx.NodeProto
    shapes: Mapping[str, Dims]
    dtypes: Mapping[str, int]
    values: Mapping[str, np.ndarray]

    def attribute(self, name: str, default: Any = 0) -> Any:
        return next((helper.get_attribute_value(a) for a in self.node.attribute if a.name == name), default)

    def has(self, slot: int) -> bool:
        return slot < len(self.node.input) and bool(self.node.input[slot])

    def shape(self, slot: int) -> Dims:
        return self.shapes[self.node.input[slot]]


Sizes = Callable[[_Given], Sequence[Dims | None]]


def infer_contrib(
    node: onnx.NodeProto,
    shapes: Mapping[str, Dims],
    dtypes: Mapping[str, int],
    values: Mapping[str, np.ndarray],
) -> list[tuple[int, Dims | None]]:
    """(type, sizes) of every output of a node; empty where they cannot be known."""
    sizes = _SIZES.get((node.domain, node.op_type))
    if sizes is None:
        return []
    given = _Given(node, shapes, dtypes, values)
    try:
        found = [_checked(shape) for shape in sizes(given)]
    except Exception as error:  # noqa: BLE001 no schema checks what these nodes hold: anything may be missing or absurd
        logger.debug("%s %r has no sizes: %s: %s", node.op_type, node.name, type(error).__name__, error)
        return []
    found += [None] * (len(node.output) - len(found))
    return [(_type(given, slot), shape) for slot, shape in enumerate(found[: len(node.output)])]


def _checked(shape: Dims | None) -> Dims | None:
    """A shape whose sizes are whole numbers that a tensor can have."""
    if shape is None:
        return None
    sizes = tuple(n if isinstance(n, Size) else operator.index(n) for n in shape)
    if any(not 0 <= n < LARGEST_SIZE for n in sizes if not isinstance(n, Size)):
        raise ValueError(f"no tensor has the shape {list(map(str, sizes))}")
    return sizes


def _type(given: _Given, slot: int) -> int:
    """The type of an output: that of the inputs that say so, or of the first that is a float."""
    node = given.node
    if node.op_type in _TESTS:
        return TensorProto.BOOL
    if (node.op_type, slot) in _INTEGER:
        return TensorProto.INT32
    if node.domain == MICROSOFT and node.op_type in _QUANTIZED:
        named = (node.input[s] for s in _QUANTIZED[node.op_type][1] if given.has(s))
        return next((given.dtypes.get(name, 0) for name in named), TensorProto.UINT8)
    return next((given.dtypes[i] for i in node.input if given.dtypes.get(i) in _FLOATS), 0)


_FLOATS = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE))
_INTEGER = frozenset((("EmbedLayerNormalization", 1),))
_TESTS = frozenset(("GreaterOrEqual", "LessOrEqual"))


def _like_first(given: _Given) -> Sequence[Dims | None]:
    return [given.shape(0)]


def _broadcast(given: _Given) -> Sequence[Dims | None]:
    return [broadcast_dims(*(given.shape(s) for s in range(len(given.node.input)) if given.has(s)))]


def _crop(given: _Given) -> Sequence[Dims | None]:
    left, top, right, bottom = given.attribute("border")
    n, c, height, width = given.shape(0)
    return [(n, c, *(given.attribute("scale") or (height - top - bottom, width - left - right)))]


def _skip_norm(given: _Given) -> Sequence[Dims | None]:
    x = given.shape(0)
    statistics = (*x[:-1], 1)
    return [x, statistics, statistics, x]


def _embed_norm(given: _Given) -> Sequence[Dims | None]:
    batch, length = given.shape(0)
    x = (batch, length, given.shape(2)[1])
    return [x, (batch,), x]


def _split_halves(given: _Given) -> Sequence[Dims | None]:
    *rest, last = given.shape(0)
    return [(*rest, last // 2)]


def _product(given: _Given) -> Sequence[Dims | None]:
    a, b = (_turned(given, slot) for slot in (0, 1))
    batch = broadcast_dims(a[:-2], b[:-2])
    return [(*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))]


def _turned(given: _Given, slot: int) -> Dims:
    """The sizes of a factor of FusedMatMul in the order of a plain product."""
    shape, side = given.shape(slot), "AB"[slot]
    if len(shape) > 1 and given.attribute(f"transBatch{side}"):
        shape = (*shape[1:-1], shape[0], shape[-1])
    if len(shape) > 1 and given.attribute(f"trans{side}"):
        shape = (*shape[:-2], shape[-1], shape[-2])
    return shape


def _nhwc_conv(given: _Given) -> Sequence[Dims | None]:
    (batch, *space, _), (out, *kernel, _) = given.shape(0), given.shape(1)
    if given.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        return [None]
    count = len(space)
    strides, dilations = (given.attribute(name, [1] * count) for name in ("strides", "dilations"))
    pads = given.attribute("pads", [0] * 2 * count)
    sizes = (
        (n + pads[i] + pads[i + count] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i, n in enumerate(space)
    )
    return [(batch, *sizes, out)]


def _attention(given: _Given) -> Sequence[Dims | None]:
    batch, length, _ = given.shape(0)
    heads, columns = given.attribute("num_heads"), given.shape(1)[1]
    widths = given.attribute("qkv_hidden_sizes", [columns // 3] * 3)
    if given.has(4):
        past = given.shape(4)
        total = past[3] if given.attribute("past_present_share_buffer") else past[3] + length
        return [(batch, length, widths[2]), (*past[:3], total, past[4])]
    return [(batch, length, widths[2]), (2, batch, heads, length, widths[0] // heads)]


def _multi_head(given: _Given) -> Sequence[Dims | None]:
    query, heads = given.shape(0), given.attribute("num_heads")
    batch, length = query[:2]
    if len(query) == 5:
        key = value = length, query[4]
    else:
        key = _length_and_size(given, 1, heads) if given.has(1) else (length, query[2] // heads)
        value = _length_and_size(given, 2, heads) if given.has(2) else key
    past = given.shape(6)[2] if given.has(6) else 0
    total = past if given.has(8) else past + key[0]
    cache = [(batch, heads, total, size) for size in (key[1], value[1])]
    return [(batch, length, heads * value[1]), *cache, (batch, heads, length, total)]


def _length_and_size(given: _Given, slot: int, heads: int) -> tuple[Dim, Dim]:
    """The number of positions and the head size of a key or value."""
    shape = given.shape(slot)
    if len(shape) == 4:
        return shape[2], shape[3]
    return shape[1], shape[2] // heads if len(shape) == 3 else shape[4]


def _grouped_query(given: _Given) -> Sequence[Dims | None]:
    (batch, length, width), heads, pairs = given.shape(0), given.attribute("num_heads"), given.attribute("kv_num_heads")
    size = width // heads if given.has(1) else width // (heads + 2 * pairs)
    past = given.shape(3)[2] if given.has(3) else 0
    total = given.values.get(given.node.input[6])
    if total is None and past:  # a buffer that all steps share may be longer than what is in it
        return [(batch, length, heads * size)]
    cache = (batch, pairs, largest(past, length if total is None else int(total.item())), size)
    return [(batch, length, heads * size), cache, cache]


def _standard_attention(given: _Given) -> Sequence[Dims | None]:
    """`onnx` does not tell the sizes of present keys and values where there are no past ones."""
    query, key, value = (given.shape(slot) for slot in range(3))
    heads, pairs = given.attribute("q_num_heads"), given.attribute("kv_num_heads")
    if len(query) == 3:
        batch, length, width = query
        key = (batch, pairs, key[1], width // heads)
        value = (batch, pairs, value[1], value[2] // pairs)
        first: Dims = (batch, length, heads * value[3])
    else:
        batch, heads, length, _ = query
        first = (*query[:3], value[3])
    total = key[2] + (given.shape(4)[2] if given.has(4) else 0)
    present = [(*shape[:2], total, shape[3]) for shape in (key, value)]
    return [first, *present, (batch, heads, length, total)]


# --- quantised ---------------------------------------------------------------------------------------------


def _quantized_lstm(given: _Given) -> Sequence[Dims | None]:
    steps, batch, _ = given.shape(0)
    directions, hidden, _ = given.shape(2)
    state = (directions, batch, hidden)
    return [(steps, directions, batch, hidden), state, state]


def _like(slot: int) -> Sizes:
    return lambda given: [given.shape(slot)]


def _broadcast_of(*slots: int) -> Sizes:
    return lambda given: [broadcast_dims(*(given.shape(s) for s in slots))]


def _concat(given: _Given) -> Sequence[Dims | None]:
    parts = [given.shape(s) for s in range(2, len(given.node.input), 3)]
    axis = given.attribute("axis") % len(parts[0])
    return [(*parts[0][:axis], sum(p[axis] for p in parts), *parts[0][axis + 1 :])]


def _gemm(given: _Given) -> Sequence[Dims | None]:
    sides = (0, "transA", 1, 0), (3, "transB", 0, 1)
    return [tuple(given.shape(slot)[turned if given.attribute(name) else plain] for slot, name, turned, plain in sides)]


def _global_pool(given: _Given) -> Sequence[Dims | None]:
    n, *rest = given.shape(0)
    ones = (1,) * (len(rest) - 1)
    return [(n, *ones, rest[-1]) if given.attribute("channels_last") else (n, rest[0], *ones)]


def _pool(given: _Given) -> Sequence[Dims | None]:
    if given.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        return [None]
    shape, last = given.shape(0), bool(given.attribute("channels_last"))
    space = shape[1:-1] if last else shape[2:]
    count, kernel = len(space), given.attribute("kernel_shape", ())
    strides, pads = given.attribute("strides", [1] * count), given.attribute("pads", [0] * 2 * count)
    made = []
    for i, size in enumerate(space):
        room = size + pads[i] + pads[i + count] - kernel[i]
        made.append((room + (strides[i] - 1 if given.attribute("ceil_mode") else 0)) // strides[i] + 1)
    return [(shape[0], *made, shape[-1]) if last else (*shape[:2], *made)]


def _rows(given: _Given) -> Sequence[Dims | None]:
    columns = given.attribute("N")
    return [(*given.shape(0)[:-1], columns) if columns else None]


def _gather_blocks(given: _Given) -> Sequence[Dims | None]:
    shape = given.shape(0)
    axis = given.attribute("gather_axis") % len(shape)
    packed = given.dtypes.get(given.node.input[0]) == TensorProto.UINT8
    table = (*shape[:-1], shape[-1] * (8 // given.attribute("bits", 4) if packed else 1))
    return [(*table[:axis], *given.shape(1), *table[axis + 1 :])]


_FUSED: Mapping[str, Sizes] = {
    **dict.fromkeys(("QuickGelu", "Gelu", "BiasGelu", "FastGelu", "RotaryEmbedding", "MoE", "QMoE"), _like_first),
    "BiasAdd": _broadcast,
    "BiasSplitGelu": _split_halves,
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip_norm),
    "EmbedLayerNormalization": _embed_norm,
    **dict.fromkeys(("FusedMatMul", "TransposeMatMul", "GemmFastGelu"), _product),
    "NhwcConv": _nhwc_conv,
    "DynamicQuantizeLSTM": _quantized_lstm,
    "Attention": _attention,
    "MultiHeadAttention": _multi_head,
    "GroupQueryAttention": _grouped_query,
}
# Sizes, and the inputs whose type the output has: the first that is given; uint8 where none is.
_QUANTIZED: Mapping[str, tuple[Sizes, tuple[int, ...]]] = {
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"), (_like(0), (0,))),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), (_broadcast_of(0, 3), (0,))),
    "QLinearWhere": (_broadcast_of(0, 1, 4), (1,)),
    "QLinearConcat": (_concat, (2,)),
    "QLinearAveragePool": (_pool, (0,)),
    "QLinearGlobalAveragePool": (_global_pool, (0,)),
    "QGemm": (_gemm, (8, 1)),
    "QuantizeLinear": (_like(0), (2,)),
    "DequantizeLinear": (_like(0), (1,)),
    "DynamicQuantizeMatMul": (_product, (0,)),
    "MatMulIntegerToFloat": (_product, (2,)),
    "MatMulNBits": (_rows, (0,)),
    "GatherBlockQuantized": (_gather_blocks, (2,)),
}
# Operators for which onnx has no shape function: some that it defines by a function, and experimental ones of old
# exporters that ONNX Runtime still runs.
_PLAIN: Mapping[str, Sizes] = {
    **dict.fromkeys(("Affine", "GroupNormalization", "ImageScaler", "MeanVarianceNormalization"), _like_first),
    **dict.fromkeys(("SimplifiedLayerNormalization",), _like_first),
    **dict.fromkeys(_TESTS, _broadcast),
    "Attention": _standard_attention,
    "Crop": _crop,
}
_SIZES: Mapping[tuple[str, str], Sizes] = {
    **{(MICROSOFT, op): sizes for op, sizes in _FUSED.items()},
    **{(MICROSOFT, op): sizes for op, (sizes, _) in _QUANTIZED.items()},
    **{("", op): sizes for op, sizes in _PLAIN.items()},
    **{(domain, op): _broadcast for domain in QUANTIZING for op in QUANTIZERS},
}
