"""Quantised tensors: what scales and zero points belong to, and the operators that compute on the stored numbers.

A scale or zero point with one entry per channel goes with its channel. What contributes nothing to an integer
contraction is the zero point, which is what the masked reference puts in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.contraction import Slots, convolved, note_heads, product_letters, resize_group
from onnxprune.tracing.rules.layout import concatenated
from onnxprune.tracing.rules.letters import Letters, through
from onnxprune.tracing.rules.node_view import Encoding, Letter, MaskedAxis, NodeView, Stored
from onnxprune.tracing.rules.norm import axis_of
from onnxprune.tracing.rules.registry import rule
from onnxprune.typing import Array

# --- what stored numbers mean ----------------------------------------------------------------------------


def note(
    view: NodeView, slot: int, scales: Sequence[int] | None, zero: int | None, *, axis: int = 0, block: int = 0
) -> None:
    """Note that input `slot` holds (real value / product of the scales) + zero point.

    Args:
        view: the node.
        slot: the input.
        scales: the inputs that are multiplied to its scale; one that is computed at run time counts as 1.
            None if the result is scaled by nodes behind this one.
        zero: the input that holds its zero point.
        axis: the axis that scales and zero points of one axis lie along.
        block: how many positions of `axis` share an entry; 0 where every one has its own.
    """
    if not view.has(slot):
        return

    def zeros(stored: Stored) -> Array:
        value = None if zero is None else stored(zero)
        point = np.zeros((), np.float32) if value is None else value.astype(np.float32)
        return _laid_along(point, view.shape(slot), axis, block)

    def decode(stored: Stored) -> Array:
        value = stored(slot)
        assert value is not None
        real = value.astype(np.float32) - zeros(stored)
        behind = _scales_behind(view, view.shape(slot)[axis]) if scales is None else []
        for factor in (*behind, *map(stored, scales or ())):
            if factor is not None:
                real = real * _laid_along(factor.astype(np.float32), view.shape(slot), axis, block)
        return real

    view.encodings[slot] = Encoding(decode, zeros, (*(scales or ()), *([] if zero is None else [zero])))
    if zero is not None and not _is_single(view, zero) and not view.state.is_weight(view.node.input[slot]):
        _check_moves(view, slot, zero, zeros)


def _check_moves(view: NodeView, slot: int, zero: int, zeros: Callable[[Stored], Array]) -> None:
    """Fix a weight behind nodes that move it where no numbers in it stand for zero, or none are known to."""
    moved = view.state.moved(view.node.input[slot])
    if moved is None:
        return
    name = view.node.input[zero]
    value = view.state.stored_value(name) if view.state.is_weight(name) else None
    if value is None or (value.any() and not moved.can_lay(zeros(lambda _: value))):
        for labels in view.labels(slot):
            view.ledger.fix(labels, view.reason("zero points that differ, behind moves that are not followed"))


def _scales_behind(view: NodeView, count: int) -> list[Array]:
    """What the integer result is multiplied by: a weight of one or `count` entries, or its product with another."""
    state, result = view.state, view.node.output[0]
    casts = [node.output[0] for node in state.consumers(result) if node.op_type == "Cast"]
    factors: list[str] = []
    for name in casts:
        for node in state.consumers(name):
            if node.op_type == "Mul":
                others = [i for i in node.input if i != name]
                producers = [
                    producer
                    for i in others
                    if (producer := state.producer(i)) is not None and producer.op_type == "Mul"
                ]
                factors += [*others, *(i for producer in producers for i in producer.input)]
    values = [state.stored_value(i) for i in factors if state.is_weight(i)]
    return [v.reshape(-1) for v in values if v is not None and v.size in (1, count)]


def _laid_along(value: Array, shape: Sequence[int], axis: int, block: int) -> Array:
    """A scale or zero point, broadcastable to the tensor that it belongs to."""
    if value.size == 1:
        return value.reshape(())
    if block:
        return np.repeat(value, block, axis)[(slice(None),) * axis + (slice(shape[axis]),)]
    return value.reshape([-1 if a == axis else 1 for a in range(len(shape))]) if value.ndim == 1 else value


def _is_single(view: NodeView, slot: int) -> bool:
    return not view.has(slot) or math.prod(view.shape(slot)) == 1


def _single(view: NodeView, *slots: int) -> None:
    """Refuse scales and zero points of an activation that are not one for the whole tensor."""
    if not all(_is_single(view, slot) for slot in slots):
        raise Unsupported("an activation is quantised by more than one scale")


# --- between real and stored numbers ---------------------------------------------------------------------


@rule("QuantizeLinear", "DequantizeLinear")
@rule("QuantizeLinear", "DequantizeLinear", domain=MICROSOFT)
def linear(view: NodeView) -> list[Axes]:
    """Each position on its own; scale and zero point follow their axis, or go with their block."""
    rank, block = len(view.shape(0)), int(view.attrs.get("block_size", 0))
    parameters = [slot for slot in (1, 2) if not _is_single(view, slot)]
    if parameters and not view.node.domain and view.version < 13:
        raise Unsupported("a scale per channel, which this opset does not know")
    axis = axis_of(view, 1) if parameters else 0
    if axis >= max(rank, 1):
        raise Unsupported(f"its axis {axis} is none of the {rank} axes of its input")
    if view.node.op_type == "DequantizeLinear":
        note(view, 0, (1,), 2, axis=axis, block=block)
    else:
        view.encodings[0] = Encoding(lambda stored: stored(0), lambda _: np.zeros(()), (1, 2))  # type: ignore[arg-type, return-value]
    if block and parameters:
        if any(len(view.shape(slot)) != rank for slot in parameters):
            raise Unsupported("its blocks have other axes than its input")
        return [tie_blocks(view, 0, axis, parameters, block)]
    letters: dict[int, Letters] = {0: range(rank), **dict.fromkeys(parameters, (axis,))}
    return through(view, [letters.get(s) for s in range(len(view.node.input))], [range(rank)])


def tie_blocks(view: NodeView, slot: int, axis: int, parameters: Sequence[int], block: int) -> Axes:
    """The labels of an input of which every `block` positions of `axis` share an entry of the parameters."""
    size = view.shape(slot)[axis]
    lines = [view.uniform(labels, a) for a, labels in enumerate(view.labels(slot))]
    for other in parameters:
        for a, labels in enumerate(view.labels(other)):
            line, count = view.uniform(labels, a), view.shape(other)[a]
            if a != axis:
                view.ledger.tie(lines[a], line)
            elif count > 1:
                tie_to_blocks(view, lines[a], size=size, blocks=line, count=count, block=block)
    return tuple(lines)


def tie_to_blocks(view: NodeView, line: Array, size: int, blocks: Array, count: int, block: int) -> None:
    """Tie `size` positions to the `count` blocks that they lie in."""
    if block < 1 or -(-size // block) != count:
        raise Unsupported(f"{size} positions are not {count} blocks of {block}")
    wide = np.broadcast_to(blocks, (count,))[np.arange(size) // block]
    view.ledger.tie(np.broadcast_to(line, (size,)), wide)


def _whole_range(view: NodeView, slot: int) -> None:
    """Its scale comes from the range of all elements, of which 0 is one: what goes must be 0."""
    view.masked_axes.extend(MaskedAxis(slot, axis, False) for axis in range(len(view.shape(slot))))


@rule("DynamicQuantizeLinear")
def dynamic(view: NodeView) -> list[Axes]:
    """Each position on its own; removed positions count as zero, which any range includes."""
    _whole_range(view, 0)
    return [view.labels(0), (), ()][: len(view.node.output)]


# --- contractions ----------------------------------------------------------------------------------------


@rule(
    "QLinearConv",
    resize=lambda edit: resize_group(edit, 3),
    contraction=lambda s: [(None, a) for a in range(len(s.out_shape()))] + [(3, a) for a in range(1, len(s.shape(3)))],
)
def qlinear_conv(view: NodeView) -> list[Axes]:
    """As `Conv`; the weight's scales and zero points follow the output channels."""
    _single(view, 1, 2, 6, 7)
    note(view, 3, (4,), 5)
    note(view, 8, (1, 4), None)
    return convolved(view, Slots(0, 3, (4, 5, 8), 2))


@rule(
    "ConvInteger",
    resize=resize_group,
    contraction=lambda s: [(None, a) for a in range(len(s.out_shape()))] + [(1, a) for a in range(1, len(s.shape(1)))],
)
def conv_integer(view: NodeView) -> list[Axes]:
    """As `Conv`; the weight's zero points follow the output channels."""
    _single(view, 2)
    note(view, 1, None, 3)
    return convolved(view, Slots(0, 1, (3,), 2))


def _product(
    view: NodeView,
    factors: tuple[int, int],
    per_tensor: Sequence[int],
    per_column: Sequence[int],
    zeros: tuple[int | None, int | None],
) -> list[Axes]:
    """A matrix product: parameters of the second factor (and a bias) follow its columns."""
    _single(view, *per_tensor)
    first, second = factors
    a, b, out, batch = product_letters(view, first, second)
    letters: dict[int, Letters] = {first: a, second: b}
    for slot in per_column:
        if not _is_single(view, slot):
            letters[slot] = b[len(b) - len(view.shape(slot)) :]
    inputs = [letters.get(s) for s in range(len(view.node.input))]
    known = {s: z for s, z in zip(factors, zeros, strict=True) if z is not None}
    results = through(view, inputs, [out], zeros=known)
    note_heads(view, [x if s in factors else None for s, x in enumerate(inputs)], batch)
    return results


def _contraction(view: NodeView) -> list[tuple[int | None, int]]:
    return [(None, a) for a in range(len(view.out_shape()))] + [(0, len(view.shape(0)) - 1)]


@rule("QLinearMatMul", contraction=_contraction)
def qlinear_matmul(view: NodeView) -> list[Axes]:
    """As `MatMul`; scales and zero points of the second factor follow its columns."""
    note(view, 0, (1,), 2)
    note(view, 3, (4,), 5, axis=len(view.shape(3)) - 1)
    return _product(view, (0, 3), (1, 2, 6, 7), (4, 5), (2, 5))


@rule("MatMulInteger", contraction=_contraction)
def matmul_integer(view: NodeView) -> list[Axes]:
    """As `MatMul`; zero points of the second factor follow its columns."""
    note(view, 0, (), 2)
    note(view, 1, None, 3, axis=len(view.shape(1)) - 1)
    return _product(view, (0, 1), (2,), (3,), (2, 3))


@rule("MatMulIntegerToFloat", domain=MICROSOFT, contraction=_contraction)
def matmul_integer_to_float(view: NodeView) -> list[Axes]:
    """As `MatMul`; scales and zero points of the second factor and the bias follow its columns."""
    note(view, 0, (2,), 4)
    note(view, 1, (3,), 5, axis=len(view.shape(1)) - 1)
    return _product(view, (0, 1), (2, 4), (3, 5, 6), (4, 5))


@rule("DynamicQuantizeMatMul", domain=MICROSOFT, contraction=_contraction)
def dynamic_matmul(view: NodeView) -> list[Axes]:
    """As `MatMul`; the first factor is quantised by the range of all its elements."""
    note(view, 1, (2,), 3, axis=len(view.shape(1)) - 1)
    _whole_range(view, 0)
    return _product(view, (0, 1), (), (2, 3, 4), (None, 3))


@rule("QGemm", domain=MICROSOFT, contraction=lambda s: [(None, 0), (None, 1), (0, 0 if s.attrs.get("transA") else 1)])
def qgemm(view: NodeView) -> list[Axes]:
    """As `Gemm`; scales and zero points of the second factor follow its columns."""
    _single(view, 1, 2, 7, 8)
    a = ("k", "m") if view.attrs.get("transA") else ("m", "k")
    b = ("n", "k") if view.attrs.get("transB") else ("k", "n")
    note(view, 0, (1,), 2)
    note(view, 3, (4,), 5, axis=b.index("n"))
    letters: dict[int, Letters] = {0: a, 3: b}
    letters.update((slot, ("n",)) for slot in (4, 5) if not _is_single(view, slot))
    if view.has(6):
        rank = len(view.shape(6))
        note(view, 6, (1, 4), None, axis=rank - 1)
        letters[6] = ("m", "n")[2 - rank :]
    inputs = [letters.get(s) for s in range(len(view.node.input))]
    return through(view, inputs, [("m", "n")], zeros={0: 2, 3: 5})


# --- position by position --------------------------------------------------------------------------------


@rule("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def qlinear_binary(view: NodeView) -> list[Axes]:
    """Inputs tied position by position, broadcast from the right."""
    return _broadcast(view, {0: (1, 2), 3: (4, 5)})


@rule("QLinearWhere", domain=MICROSOFT)
def qlinear_where(view: NodeView) -> list[Axes]:
    """Inputs tied position by position, broadcast from the right."""
    return _broadcast(view, {0: None, 1: (2, 3), 4: (5, 6)})


def _broadcast(view: NodeView, operands: dict[int, tuple[int, int] | None]) -> list[Axes]:
    rank = len(view.out_shape())
    _single(view, *(s for s in range(len(view.node.input)) if s not in operands))
    for slot, encoding in operands.items():
        if encoding:
            note(view, slot, encoding[:1], encoding[1])
    letters = {slot: range(rank - len(view.shape(slot)), rank) for slot in operands}
    return through(view, [letters.get(s) for s in range(len(view.node.input))], [range(rank)])


@rule("QLinearLeakyRelu", "QLinearSigmoid", domain=MICROSOFT)
def qlinear_unary(view: NodeView) -> list[Axes]:
    """Each position on its own."""
    _single(view, 1, 2, 3, 4)
    return [view.labels(0)]


@rule("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(view: NodeView) -> list[Axes]:
    """Each position on its own across `axis`, which must stay whole (before opset 13 all behind it too)."""
    rank, axis = len(view.shape(0)), axis_of(view, -1)
    along = range(axis, rank) if int(view.attrs.get("opset", 13)) < 13 else [axis]
    return through(view, [range(rank)], [range(rank)], fixes=dict.fromkeys(along, "softmax axis"))


@rule("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(view: NodeView) -> list[Axes]:
    """Joined along `axis`; the other axes are tied."""
    slots = range(2, len(view.node.input), 3)
    _single(view, *(s for s in range(len(view.node.input)) if s not in slots))
    for slot in slots:
        note(view, slot, (slot + 1,), slot + 2)
    return concatenated(view, slots)


@rule("QLinearAveragePool", "QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_pool(view: NodeView) -> list[Axes]:
    """Per channel; spatial axes must stay whole."""
    _single(view, 1, 2, 3, 4)
    space: list[Letter] = list(range(len(view.shape(0)) - 2))
    made: list[Letter] = [f"o{a}" for a in space]
    last = bool(view.attrs.get("channels_last"))
    before, after = (["n", *x, "c"] if last else ["n", "c", *x] for x in (space, made))
    return through(view, [before], [after], fixes=dict.fromkeys(space, "pooled over"))
