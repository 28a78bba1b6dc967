"""Weights of a few bits, packed into bytes and scaled block by block: rows go one by one, columns in whole blocks."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.quantized import note, tie_blocks, tie_to_blocks
from onnxprune.tracing.rules.registry import rule
from onnxprune.tracing.rules.site import Encoding, MaskedAxis, Site, Stored
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


def _bits(site: Site) -> int:
    bits = int(site.attrs.get("bits", 4))
    if bits not in (2, 4, 8):
        raise Unsupported(f"numbers of {bits} bits")
    return bits


def _follow_product(edit: Edit) -> None:
    """`K` and `N` follow, and so do scales and zero points that are not laid out in rows and blocks."""
    rows, blocks = edit.kept(1, 0), edit.kept(1, 1)
    edit.set_attribute("N", int(rows.sum()))
    edit.set_attribute("K", (edit.new_in[0] or ())[-1])
    for slot in (2, 3):
        if edit.site.has(slot) and edit.site.shape(slot) != edit.site.shape(1)[:2]:
            value = edit.site.state.stored_value(edit.site.node.input[slot])
            assert value is not None
            table = _table(edit.site, slot, value)[rows][:, blocks]
            small = packed(table, _bits(edit.site)) if _is_packed(edit.site, slot) else table
            edit.set_input(slot, small.reshape(-1) if value.ndim == 1 else small, "blocks")


def _is_packed(site: Site, slot: int) -> bool:
    return slot == 3 and site.facts.dtypes[site.node.input[slot]] == TensorProto.UINT8


def _table(site: Site, slot: int, value: Array) -> Array:
    """Scales or zero points as rows x blocks."""
    count, blocks = site.shape(1)[:2]
    rows = value.reshape(count, -1)
    return unpacked(rows, _bits(site))[:, :blocks] if _is_packed(site, slot) else rows


@rule(
    "MatMulNBits",
    domain=MICROSOFT,
    follow=_follow_product,
    work=lambda s: [(None, a) for a in range(len(s.out_shape()))] + [(0, len(s.shape(0)) - 1)],
)
def matmul_nbits(site: Site) -> list[Axes]:
    """As `MatMul` with a packed weight: its rows are made, its blocks of columns are contracted."""
    ledger, rank, block = site.ledger, len(site.shape(0)), int(site.attrs.get("block_size", 0))
    rows, blocks, inner = _rows_and_blocks(site)
    ledger.fix(inner, site.reason(PACKED, inherent=True))
    lines = [site.uniform(labels, a) for a, labels in enumerate(site.labels(0))]
    size, count = site.shape(0)[-1], site.shape(1)[1]
    if site.has(4):
        ledger.fix(lines[-1], site.reason("columns belong to groups by an index"))
    tie_to_blocks(site, lines[-1], size, blocks, count, block)
    for slot in (2, 3):
        if site.has(slot):
            _parameters(site, slot, rows, blocks)
    if site.has(5):
        ledger.tie(site.labels(5)[0], rows)
    site.encodings[1] = Encoding(lambda stored: _product_values(site, stored), lambda s: _zero_bytes(site, s), (2, 3))
    site.readings.append(MaskedAxis(0, rank - 1, False, factors=(0, 1)))
    return [(*lines[:-1], rows)]


def _rows_and_blocks(site: Site) -> tuple[Array, Array, Array]:
    axes = site.labels(1)
    if len(axes) != 3 or not site.is_weight(1):
        raise Unsupported("its weight is not stored as rows x blocks x bytes")
    return axes[0], axes[1], axes[2]


def _parameters(site: Site, slot: int, rows: Array, blocks: Array) -> None:
    axes = site.labels(slot)
    if site.shape(slot) == site.shape(1)[:2]:
        for labels, other in zip(axes, (rows, blocks), strict=True):
            site.ledger.tie(labels, other)
        return
    if not site.is_weight(slot) or site.state.is_overridable(site.node.input[slot]):
        raise Unsupported("its scales or zero points are computed at run time")
    for labels in axes:  # the node brings its own when it follows
        site.ledger.fix(labels, site.reason(PACKED, inherent=True))


def _zeros(site: Site, stored: Stored) -> Array:
    value = stored(3)
    count, blocks = site.shape(1)[:2]
    if value is None:
        return np.full((count, blocks), 1 << (_bits(site) - 1), np.uint8)
    return _table(site, 3, value)


def _product_values(site: Site, stored: Stored) -> Array:
    weight, scales = stored(1), stored(2)
    assert weight is not None
    real = unpacked(weight, _bits(site)).astype(np.float32) - _zeros(site, stored)[..., None].astype(np.float32)
    return real if scales is None else real * _table(site, 2, scales)[..., None].astype(np.float32)


def _zero_bytes(site: Site, stored: Stored) -> Array:
    bits = _bits(site)
    return packed(np.repeat(np.round(_zeros(site, stored)).astype(np.uint8)[..., None], 8 // bits, -1), bits)


@rule("GatherBlockQuantized", domain=MICROSOFT)
def gather_blocks(site: Site) -> list[Axes]:
    """As `Gather` from a table that is scaled block by block: what is not looked up goes in whole blocks."""
    rank, block = len(site.shape(0)), int(site.attrs.get("block_size", 128))
    axis, along = (int(site.attrs.get(n, d)) % rank for n, d in (("gather_axis", 0), ("quantize_axis", 1)))
    if axis == along or not block:
        raise Unsupported("looked up along the axis of its blocks, or of one block only")
    if any(len(site.shape(slot)) != rank for slot in (2, 3) if site.has(slot)):
        raise Unsupported("its blocks have other axes than its table")
    if _bits(site) < 8 and site.facts.dtypes[site.node.input[0]] == TensorProto.UINT8:
        raise Unsupported(PACKED)
    lines = tie_blocks(site, 0, along, [slot for slot in (2, 3) if site.has(slot)], block)
    site.ledger.fix(lines[axis], site.reason("positions are looked up"))
    note(site, 0, (2,), 3, axis=along, block=block)
    made = (site.barrier("axis made by the operator"),) * len(site.shape(1))
    return [(*lines[:axis], *(made if site.constant[1] else site.labels(1)), *lines[axis + 1 :])]
