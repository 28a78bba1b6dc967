"""Which axes of an operator's inputs can lose positions: read from the definitions of ONNX, not from the rules.

An axis can lose positions if the operator's outputs at the remaining positions are what they were: with zeros at the
others where it sums over the axis, over the remaining ones where it takes a mean, a norm or an extremum of it. All
other inputs are constants that may shrink too. Spatial axes of windows, samples and images are positions on a grid,
not channels. What is drawn at random, counted or sorted is not what it was.

Per input (the last entry stands for all further ones), words for axes: `*` all; `2` one; `:2`, `2:`, `:-2` ranges;
`!axis` all but the one that the attribute (or constant input) names, `<axis` those in front of it; nothing for none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tests.graphs.node_cases import NodeCase

Reader = Callable[[NodeCase, int], set[int]]

POINTWISE = """Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast
    CastLike Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish
    Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu
    BitCast Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum SwiGLU Swish Tan Tanh ThresholdedRelu
    Where Xor ai.onnx.ml.Binarizer"""
REDUCTIONS = """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare"""

TABLE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(POINTWISE.split(), ("*",)),
    **dict.fromkeys(REDUCTIONS.split(), ("*", "")),
    "AffineGrid": ("0", ""),
    "ArgMax": ("!axis",),
    "ArgMin": ("!axis",),
    "AveragePool": (":2",),
    "CausalConvWithState": (":2", "0", "0", ":2"),
    "CenterCropPad": ("!axes", ""),
    "Concat": ("*",),
    "ConvTranspose": (":2", ":2", "0"),
    "ConvInteger": (":2", ":2", "", "0"),
    "CumProd": ("*", ""),
    "CumSum": ("*", ""),
    "DeformConv": (":2", ":2", "0", "0", "0"),
    "DepthToSpace": (":2",),
    "DequantizeLinear": ("*",),
    "Det": (":-2",),
    "DynamicQuantizeLinear": ("*",),  # zero is always in its range
    "Expand": ("*", ""),
    "Gemm": ("*",),
    "GlobalAveragePool": (":2",),
    "GlobalLpPool": (":2",),
    "GlobalMaxPool": (":2",),
    "GridSample": (":2", ":-1"),
    "GroupNormalization": (":2", "0", "0"),
    "InstanceNormalization": ("*",),
    "LRN": ("*",),
    "LayerNormalization": ("*",),
    "LinearAttention": ("0 2", "0 2", "0 2", "*", "0 2", "0 2"),  # all but time
    "LpNormalization": ("*",),
    "LpPool": (":2",),
    "MatMul": ("*",),
    "MatMulInteger": ("*",),
    "MaxRoiPool": ("1", "0"),
    "MeanVarianceNormalization": ("*",),
    "OneHot": ("*", "", ""),
    "QLinearMatMul": ("*",),
    "QuantizeLinear": ("*",),
    "RMSNormalization": ("*",),
    "RoiAlign": ("1", "0", "0"),
    "Shape": ("*",),
    "Size": ("*",),
    "SpaceToDepth": (":2",),
    "Split": ("*", ""),
    "Squeeze": ("*", ""),
    "STFT": ("0", "", "", ""),
    "Tile": ("*", ""),
    "Transpose": ("*",),
    "Trilu": (":-2", ""),
    "Unsqueeze": ("*", ""),
    "ai.onnx.ml.ArrayFeatureExtractor": ("*", ""),
    "ai.onnx.ml.LabelEncoder": ("*",),
    "ai.onnx.ml.TreeEnsemble": ("0",),
}


def allowed(case: NodeCase, slot: int) -> set[int]:
    """The axes of an input that can lose positions; none of an operator that is not listed."""
    if not rank_of(case, slot):
        return set()
    reader = READERS.get(case.op)
    if reader is not None:
        return reader(case, slot)
    entry = TABLE.get(case.op, ("",))
    return _axes(entry[min(slot, len(entry) - 1)], case, rank_of(case, slot))


def rank_of(case: NodeCase, slot: int) -> int:
    return np.ndim(case.values[slot])


def option(case: NodeCase, name: str) -> list[int] | None:
    """An attribute by its name, or its default, or the constant input of this name."""
    value = case.attrs.get(name)
    for index, formal in enumerate(case.schema.inputs):
        if value is None and formal.name == name and index < len(case.values):
            value = case.values[index]
    if value is None and name in case.schema.attributes:
        default = case.schema.attributes[name].default_value
        value = {"i": default.i, "ints": list(default.ints)}[_kind(default)] if default.name else None
    return None if value is None else [int(v) for v in np.atleast_1d(value)]


def _kind(default: object) -> str:
    return "ints" if getattr(default, "ints", None) else "i"


def _axes(words: str, case: NodeCase, rank: int) -> set[int]:
    every = list(range(rank))
    found: set[int] = set()
    for word in words.split():
        if word == "*":
            found.update(every)
        elif word[0] in "!<":
            named = option(case, word[1:]) or ([] if word[1:] != "axes" else every)
            places = {a % rank for a in named}
            found.update(a for a in every if a not in places and (word[0] == "!" or a < min(places)))
        elif ":" in word:
            start, stop = re.fullmatch(r"(-?\d*):(-?\d*)", word).groups()  # type: ignore[union-attr]
            found.update(every[int(start) if start else None : int(stop) if stop else None])
        elif int(word) < rank:
            found.add(every[int(word)])
    return found


# --- operators whose axes depend on more than a name ------------------------------------------------------------


def _softmax(case: NodeCase, slot: int) -> set[int]:
    """From opset 13 on along one axis; before, over `axis` and all behind it."""
    return _axes("!axis" if case.version >= 13 else "<axis", case, rank_of(case, slot))


def _conv(case: NodeCase, slot: int) -> set[int]:
    """A grid axis with a kernel of 1, a stride of 1 and no padding is a batch axis. B, and no axis of a kernel."""
    found = _axes((":2", ":2", "0")[slot], case, rank_of(case, slot))
    count = rank_of(case, 0) - 2
    kernel = case.values[1].shape[2:]
    pads = case.attrs.get("pads", [0] * 2 * count)
    strides = case.attrs.get("strides", [1] * count)
    plain = {2 + i for i in range(count) if (kernel[i], strides[i], pads[i], pads[count + i]) == (1, 1, 0, 0)}
    if slot == 1 and case.attrs.get("group", 1) == case.values[0].shape[1]:
        found -= {1}
    return found | (plain if slot == 0 else set())


def _batch_normalization(case: NodeCase, slot: int) -> set[int]:
    return _axes("*", case, rank_of(case, slot))


def _max_pool(case: NodeCase, slot: int) -> set[int]:
    """Indices count through all axes."""
    return set() if len(case.node.output) > 1 else {0, 1}


def _resize(case: NodeCase, slot: int) -> set[int]:
    """Axes that are not resampled."""
    if slot:
        return set()
    rank = rank_of(case, 0)
    axes = [a % rank for a in option(case, "axes") or range(rank)]
    place = 1 if case.op == "Upsample" or case.version < 11 else 2
    found = case.values[place] if place < len(case.values) else None
    given = case.attrs.get("scales", ()) if found is None else found
    if len(given):
        touched = {a for a, s in zip(axes, given, strict=False) if s != 1}
    else:
        touched = {a for a, n in zip(axes, case.values[3], strict=False) if n != case.values[0].shape[a]}
    if case.attrs.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        touched = set(axes)
    return set(range(rank)) - touched


def _gather(case: NodeCase, slot: int) -> set[int]:
    """Positions that a list of indices takes go with the list's; a table of indices has no rows to lose."""
    rank, axis = rank_of(case, 0), (option(case, "axis") or [0])[0]
    if slot:
        return set(range(rank_of(case, 1)))
    return set(range(rank)) - (set() if rank_of(case, 1) < 2 else {axis % rank})


def _by_elements(case: NodeCase, slot: int) -> set[int]:
    """Axes other than `axis` along which indices stand beside all of the data."""
    axis = (option(case, "axis") or [0])[0] % rank_of(case, 0)
    same = {a for a, (m, n) in enumerate(zip(case.values[0].shape, case.values[1].shape, strict=True)) if m == n}
    return same - {axis}


def _gather_nd(case: NodeCase, slot: int) -> set[int]:
    """All but what the last axis of the indices points into."""
    rank, batch = rank_of(case, 0), (option(case, "batch_dims") or [0])[0]
    if slot:
        return set(range(rank_of(case, 1) - 1))
    return {*range(batch), *range(batch + case.values[1].shape[-1], rank)}


def _scatter_nd(case: NodeCase, slot: int) -> set[int]:
    """Whole slices are put in: their own axes go with those of the data."""
    depth, head = case.values[1].shape[-1], rank_of(case, 1) - 1
    return [set(range(depth, rank_of(case, 0))), set(), set(range(head, rank_of(case, slot)))][slot]


def _slice(case: NodeCase, slot: int) -> set[int]:
    return set() if slot else set(range(rank_of(case, 0)))


def _pad(case: NodeCase, slot: int) -> set[int]:
    """With a constant anywhere; with neighbours only where nothing is added."""
    rank = rank_of(case, 0)
    if slot:
        return set()
    axes = [int(a) % rank for a in case.values[3]] if len(case.values) > 3 else list(range(rank))
    pads = case.attrs.get("pads", case.values[1] if len(case.values) > 1 else ())
    padded = {a for i, a in enumerate(axes) if pads[i] or pads[i + len(axes)]}
    return set(range(rank)) - (set() if case.attrs.get("mode", b"constant") == b"constant" else padded)


def _reshape(case: NodeCase, slot: int) -> set[int]:
    """Axes of runs that stay, merge into one, or come out of one; else those that begin as in the new shape."""
    if slot or case.values[0].size == 0:
        return set()
    old = case.values[0].shape
    new = _new_shape(case)
    found: set[int] = set()
    i = j = 0
    while i < len(old) and j < len(new):
        ins, outs, left, right = [i], [j], old[i], new[j]
        while left != right:
            if left < right:
                i += 1
                ins.append(i)
                left *= old[i]
            else:
                j += 1
                outs.append(j)
                right *= new[j]
        i, j = i + 1, j + 1
        ins, outs = [a for a in ins if old[a] > 1], [a for a in outs if new[a] > 1]
        if min(len(ins), len(outs)) < 2:
            found.update(ins)
        else:
            # Several become several: the outermost and the innermost keep their order, in units of what they share.
            found.update(ins[e] for e in (0, -1) if np.gcd(old[ins[e]], new[outs[e]]) > 1)
    return found


def _new_shape(case: NodeCase) -> Sequence[int]:
    old = case.values[0].shape
    if case.op == "Flatten":
        axis = (option(case, "axis") or [1])[0] % (len(old) + 1)
        return int(np.prod(old[:axis])), int(np.prod(old[axis:]))
    target = [int(t) for t in case.values[1]]
    if not case.attrs.get("allowzero"):
        target = [old[i] if t == 0 else t for i, t in enumerate(target)]
    known = int(np.prod([t for t in target if t != -1]))
    return [case.values[0].size // known if t == -1 else t for t in target]


def _compress(case: NodeCase, slot: int) -> set[int]:
    """All but the axis; of a flattened input, which rows the positions lie in is lost."""
    return set() if slot or "axis" not in case.attrs else _axes("!axis", case, rank_of(case, 0))


def _dropout(case: NodeCase, slot: int) -> set[int]:
    """While training, positions are drawn at random."""
    return set() if slot or (len(case.values) > 2 and case.values[2]) else set(range(rank_of(case, 0)))


def _dft(case: NodeCase, slot: int) -> set[int]:
    """All but the signal axis and the pair of a complex number."""
    rank = rank_of(case, slot)
    axis = (option(case, "axis") or [-2 if case.version >= 20 else 1])[0] % rank
    return set() if slot else set(range(rank - 1)) - {axis}


def _einsum(case: NodeCase, slot: int) -> set[int]:
    """A letter that a term repeats names two axes, which lose positions together only."""
    term = case.attrs["equation"].decode().replace(" ", "").split("->")[0].split(",")[slot]
    head, dots, tail = term.partition("...")
    rank = rank_of(case, slot)
    letters = [*head, *range(rank - len(head) - len(tail) if dots else 0), *tail]
    return {a for a, letter in enumerate(letters) if letters.count(letter) == 1}


def _loss(case: NodeCase, slot: int) -> set[int]:
    """All but the classes."""
    axes = set(range(rank_of(case, slot)))
    return (axes - {1}, axes, set())[slot]


def _reverse_sequence(case: NodeCase, slot: int) -> set[int]:
    """Each batch position has its own length."""
    return {0} if slot else set(range(rank_of(case, 0))) - set(option(case, "time_axis") or [0])


def _col2im(case: NodeCase, slot: int) -> set[int]:
    return set() if slot else {0, 1} if case.values[0].shape[1] > np.prod(case.values[2]) else {0}


def _tensor_scatter(case: NodeCase, slot: int) -> set[int]:
    """All but the axis that is written along."""
    rank = rank_of(case, 0)
    axis = (option(case, "axis") or [-2])[0] % rank
    return {0} if slot == 2 else set(range(rank)) - {axis}


def _qlinear_conv(case: NodeCase, slot: int) -> set[int]:
    """That of the convolution, its scales and zero points set apart; those of the weight are one per output."""
    inner = {0: 0, 3: 1, 8: 2}
    if slot in inner:
        plain = replace(case, values=[v for i, v in enumerate(case.values) if i in inner])
        return _conv(plain, inner[slot])
    return {0} if slot in (4, 5) else set()


def _attention(case: NodeCase, slot: int) -> set[int]:
    """Samples, whole heads, and what is summed over or passed on within a head; queries whose place does not matter.

    What is attended over goes through a softmax. Tensors of three axes have the heads in the last one.
    """
    placed = case.attrs.get("is_causal") or {-1} != {case.attrs.get(f"{s}_window_size", -1) for s in ("left", "right")}
    rank, queries = rank_of(case, slot), set[int]() if placed else {1}
    if slot in (0, 1, 2):
        inner = {0, 1, 3} if rank == 4 else {0, 2}
        return inner | ({q + rank - 3 for q in queries} if slot == 0 else set())
    if slot in (4, 5):
        return {0, 1, 3}
    if slot == 3:  # [..., queries, what is attended over]
        return set(range(rank - 2)) | {rank - 2 for _ in queries}
    return {0}


def _rotary(case: NodeCase, slot: int) -> set[int]:
    """Pairs that are turned go together; rows of a table that positions index stay."""
    return {1} if slot in (1, 2) and rank_of(case, slot) == 2 else set(range(rank_of(case, slot)))


def _recurrent(case: NodeCase, slot: int) -> set[int]:
    """Samples, features and units, which stand in every gate; not steps and directions.

    The units of R lie on two of its axes, of which a contraction in front can make one only.
    """
    batch = 0 if case.attrs.get("layout") else 1
    by_slot = ({batch, 2}, {1, 2}, set[int](), {1}, {0}, {batch, 2}, {batch, 2}, {1})
    return by_slot[slot]


def _scan(case: NodeCase, slot: int) -> set[int]:
    """All but the axis that is scanned."""
    scanned = slot >= len(case.node.input) - int(case.attrs["num_scan_inputs"])
    return set(range(rank_of(case, slot))) - ({0} if scanned else set())


READERS: dict[str, Reader] = {
    "Attention": _attention,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "QLinearConv": _qlinear_conv,
    "RNN": _recurrent,
    "RotaryEmbedding": _rotary,
    "Scan": _scan,
    "BatchNormalization": _batch_normalization,
    "Col2Im": _col2im,
    "Compress": _compress,
    "Conv": _conv,
    "DFT": _dft,
    "Dropout": _dropout,
    "Einsum": _einsum,
    "Flatten": _reshape,
    "Gather": _gather,
    "GatherElements": _by_elements,
    "GatherND": _gather_nd,
    "Hardmax": _softmax,
    "LogSoftmax": _softmax,
    "MaxPool": _max_pool,
    "NegativeLogLikelihoodLoss": _loss,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "ReverseSequence": _reverse_sequence,
    "Scatter": _by_elements,
    "ScatterElements": _by_elements,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "Softmax": _softmax,
    "SoftmaxCrossEntropyLoss": _loss,
    "TensorScatter": _tensor_scatter,
    "TopK": lambda case, slot: set() if slot else _axes("!axis", case, rank_of(case, 0)),
    "Upsample": _resize,
}
