"""Weights of a few bits, packed into bytes and scaled block by block: rows go one by one, columns in whole blocks."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.node_view import Encoding, MaskedAxis, NodeView, Stored
from onnxprune.tracing.rules.quantized import note, tie_blocks, tie_to_blocks
from onnxprune.tracing.rules.registry import rule
from onnxprune.typing import Array

PACKED = "packed along with others"


def unpacked(value: Array, bits: int) -> Array:
    """Every byte along the last axis as 8 / `bits` numbers, the lowest bits first."""
    parts = [(value >> (bits * i)) & ((1 << bits) - 1) for i in range(8 // bits)]
    return np.stack(parts, -1).reshape(*value.shape[:-1], -1)


def packed(value: Array, bits: int) -> Array:
    """The inverse of `unpacked`; a byte that is not full is filled with zeros."""
    count = 8 // bits
    wide = np.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, -value.shape[-1] % count)])
    parts = wide.reshape(*value.shape[:-1], -1, count)
    return np.bitwise_or.reduce(parts << (bits * np.arange(count, dtype=np.uint8)), axis=-1).astype(np.uint8)


def _bits(view: NodeView) -> int:
    bits = int(view.attrs.get("bits", 4))
    if bits not in (2, 4, 8):
        raise Unsupported(f"numbers of {bits} bits")
    return bits


def _resize_product(edit: Edit) -> None:
    """`K` and `N` follow, and so do scales and zero points that are not laid out in rows and blocks."""
    rows, blocks = edit.kept(1, 0), edit.kept(1, 1)
    edit.set_attribute("N", int(rows.sum()))
    edit.set_attribute("K", (edit.new_in[0] or ())[-1])
    for slot in (2, 3):
        if edit.view.has(slot) and edit.view.shape(slot) != edit.view.shape(1)[:2]:
            value = edit.view.state.stored_value(edit.view.node.input[slot])
            assert value is not None
            table = _table(edit.view, slot, value)[rows][:, blocks]
            small = packed(table, _bits(edit.view)) if _is_packed(edit.view, slot) else table
            edit.set_input(slot, small.reshape(-1) if value.ndim == 1 else small, "blocks")


def _is_packed(view: NodeView, slot: int) -> bool:
    return slot == 3 and view.static.dtypes[view.node.input[slot]] == TensorProto.UINT8


def _table(view: NodeView, slot: int, value: Array) -> Array:
    """Scales or zero points as rows x blocks."""
    count, blocks = view.shape(1)[:2]
    rows = value.reshape(count, -1)
    return unpacked(rows, _bits(view))[:, :blocks] if _is_packed(view, slot) else rows


@rule(
    "MatMulNBits",
    domain=MICROSOFT,
    resize=_resize_product,
    contraction=lambda s: [(None, a) for a in range(len(s.out_shape()))] + [(0, len(s.shape(0)) - 1)],
)
def matmul_nbits(view: NodeView) -> list[Axes]:
    """As `MatMul` with a packed weight: its rows are made, its blocks of columns are contracted."""
    ledger, rank, block = view.ledger, len(view.shape(0)), int(view.attrs.get("block_size", 0))
    rows, blocks, inner = _rows_and_blocks(view)
    ledger.fix(inner, view.reason(PACKED, inherent=True))
    lines = [view.uniform(labels, a) for a, labels in enumerate(view.labels(0))]
    size, count = view.shape(0)[-1], view.shape(1)[1]
    if view.has(4):
        ledger.fix(lines[-1], view.reason("columns belong to groups by an index"))
    tie_to_blocks(view, lines[-1], size=size, blocks=blocks, count=count, block=block)
    for slot in (2, 3):
        if view.has(slot):
            _parameters(view, slot, rows, blocks)
    if view.has(5):
        ledger.tie(view.labels(5)[0], rows)
    bits = _bits(view)
    view.encodings[1] = Encoding(
        lambda stored: _product_values(view, stored),
        lambda stored: _zero_bytes(view, stored),
        (2, 3),
        bits=bits if bits < 8 else 0,
    )
    view.masked_axes.append(MaskedAxis(0, rank - 1, False, factors=(0, 1)))
    return [(*lines[:-1], rows)]


def _rows_and_blocks(view: NodeView) -> tuple[Array, Array, Array]:
    axes = view.labels(1)
    if len(axes) != 3 or not view.is_weight(1):
        raise Unsupported("its weight is not stored as rows x blocks x bytes")
    return axes[0], axes[1], axes[2]


def _parameters(view: NodeView, slot: int, rows: Array, blocks: Array) -> None:
    axes = view.labels(slot)
    if view.shape(slot) == view.shape(1)[:2]:
        for labels, other in zip(axes, (rows, blocks), strict=True):
            view.ledger.tie(labels, other)
        return
    if not view.is_weight(slot) or view.state.is_overridable(view.node.input[slot]):
        raise Unsupported("its scales or zero points are computed at run time")
    for labels in axes:  # the node brings its own when it follows
        view.ledger.fix(labels, view.reason(PACKED, inherent=True))


def _zeros(view: NodeView, stored: Stored) -> Array:
    value = stored(3)
    count, blocks = view.shape(1)[:2]
    if value is None:
        return np.full((count, blocks), 1 << (_bits(view) - 1), np.uint8)
    return _table(view, 3, value)


def _product_values(view: NodeView, stored: Stored) -> Array:
    weight, scales = stored(1), stored(2)
    assert weight is not None
    real = unpacked(weight, _bits(view)).astype(np.float32) - _zeros(view, stored)[..., None].astype(np.float32)
    return real if scales is None else real * _table(view, 2, scales)[..., None].astype(np.float32)


def _zero_bytes(view: NodeView, stored: Stored) -> Array:
    bits = _bits(view)
    return packed(np.repeat(np.round(_zeros(view, stored)).astype(np.uint8)[..., None], 8 // bits, -1), bits)


@rule("GatherBlockQuantized", domain=MICROSOFT)
def gather_blocks(view: NodeView) -> list[Axes]:
    """As `Gather` from a table that is scaled block by block: what is not looked up goes in whole blocks."""
    rank, block = len(view.shape(0)), int(view.attrs.get("block_size", 128))
    axis, along = (int(view.attrs.get(n, d)) % rank for n, d in (("gather_axis", 0), ("quantize_axis", 1)))
    if axis == along or not block:
        raise Unsupported("looked up along the axis of its blocks, or of one block only")
    if any(len(view.shape(slot)) != rank for slot in (2, 3) if view.has(slot)):
        raise Unsupported("its blocks have other axes than its table")
    if _bits(view) < 8 and view.static.dtypes[view.node.input[0]] == TensorProto.UINT8:
        raise Unsupported(PACKED)
    lines = tie_blocks(view, 0, along, [slot for slot in (2, 3) if view.has(slot)], block)
    view.ledger.fix(lines[axis], view.reason("positions are looked up"))
    note(view, 0, (2,), 3, axis=along, block=block)
    made = (view.barrier("axis made by the operator"),) * len(view.shape(1))
    return [(*lines[:axis], *(made if view.constant[1] else view.labels(1)), *lines[axis + 1 :])]
