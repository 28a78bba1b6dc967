"""Positions turned into queries and keys, and tensors cut into heads."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.lowering.registry import Inputs, leading, lowering, settings_of
from onnxprune.model.protos import MICROSOFT


def heads_apart(value: Value, heads: int) -> Value:
    """Cut [batch, length, heads * size] into heads."""
    batch, length, width = value.shape
    return value.reshape([batch, length, heads, width // heads]).transpose([0, 2, 1, 3])


def heads_together(value: Value) -> Value:
    """Join heads to [batch, length, heads * size]."""
    batch, heads, length, size = value.shape
    return value.transpose([0, 2, 1, 3]).reshape([batch, length, heads * size])


@lowering("RotaryEmbedding", domain=MICROSOFT)
def _rotary(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    settings = settings_of(node)
    x, positions, cosines, sines = leading(inputs), *inputs[1:4]
    if positions is None or cosines is None or sines is None or settings.get("is_packed_batching"):
        return None
    width = settings.get("rotary_embedding_dim", 0)
    heads = settings.get("num_heads", 0)
    if x.rank == 3:
        heads = heads or x.shape[2] // (2 * cosines.shape[1])
    split = x if x.rank == 4 else heads_apart(x, heads)
    batch, _, length, _ = split.shape
    where = positions
    if positions.size == 1:
        where = graph.constant(np.arange(length, dtype=np.int64)).expand([batch, length]) + positions.reshape([1, 1])
    interleaved = bool(settings.get("interleaved"))
    turned = rotated(split, where, cosines, sines, interleaved=interleaved, width=width)
    return [turned if x.rank == 4 else heads_together(turned)]


def rotated(x: Value, positions: Value, cosines: Value, sines: Value, *, interleaved: bool, width: int = 0) -> Value:
    """Turn pairs of numbers by the angle of their position (Su et al. 2021); what is beyond the tables stays.

    Args:
        x: [batch, heads, length, size].
        positions: [batch, length].
        cosines: table [positions, half of the turned width].
        sines: the same.
        interleaved: pairs are neighbours; otherwise they are half of the width apart.
        width: numbers of each head that are turned; twice the width of the tables if 0.
    """
    batch, heads, length, size = x.shape
    half = (width or 2 * cosines.shape[1]) // 2
    cos, sin = (_looked_up(table, positions, half) for table in (cosines, sines))
    part, rest = x.slice(3, 0, 2 * half), x.slice(3, 2 * half, size) if size > 2 * half else None
    if interleaved:
        pairs = part.reshape([batch, heads, length, half, 2])
        a, b = (pairs.slice(4, i, i + 1).reshape([batch, heads, length, half]) for i in (0, 1))
    else:
        a, b = part.slice(3, 0, half), part.slice(3, half, 2 * half)
    new = a * cos - b * sin, a * sin + b * cos
    if interleaved:
        joined = x.graph.concat([t.reshape([batch, heads, length, half, 1]) for t in new], 4)
        turned = joined.reshape([batch, heads, length, 2 * half])
    else:
        turned = x.graph.concat(list(new), 3)
    return turned if rest is None else x.graph.concat([turned, rest], 3)


def _looked_up(table: Value, positions: Value, half: int) -> Value:
    batch, length = positions.shape
    rows = table.graph.op("Gather", table, positions, shape=[batch, length, table.shape[1]], axis=0)
    return rows.slice(2, 0, half).reshape([batch, 1, length, half])
