"""Attention, ONNX's and ONNX Runtime's, written out in products and a softmax.

Every kind comes down to queries, keys and values [batch, heads, length, size], what is added to the scores, and which
keys a query may see.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.lowering.registry import Inputs, leading, lowering, optional, settings_of
from onnxprune.autodiff.lowering.rotary import heads_apart, heads_together, rotated
from onnxprune.model.protos import MICROSOFT

_INT64 = np.dtype(np.int64)


@dataclass(frozen=True, eq=False)
class _Scores:
    """Products of queries with keys on their way to weights.

    Attributes:
        raw: the scaled products, [batch, heads, queries, keys].
        capped: after the soft cap.
        biased: with everything added, hidden keys at a very low number.
        hidden: whether a query may not see a key; None where it may see all.
    """

    raw: Value
    capped: Value
    biased: Value
    hidden: Value | None = None

    def plus(self, added: Value | None) -> _Scores:
        """Add numbers that broadcast against the scores."""
        return self if added is None else replace(self, biased=self.biased + added)

    def without(self, hidden: Value | None) -> _Scores:
        """Hide keys from queries: true where a key is out of sight."""
        if hidden is None:
            return self
        whole = hidden.expand(np.broadcast_shapes(hidden.shape, self.raw.shape))
        low = self.biased.like(float(np.finfo(self.biased.dtype).min))
        known = whole if self.hidden is None else _either(self.hidden, whole)
        return replace(self, biased=whole.where(low, self.biased), hidden=known)

    def weights(self) -> Value:
        """The share of each key; zeros for a query that sees none."""
        shares = self.biased.map("Softmax", axis=-1)
        if self.hidden is None:
            return shares
        return self.hidden.where(shares.like(0.0), shares)


def _scores(q: Value, k: Value, *, scale: float | None = None, softcap: float = 0.0) -> _Scores:
    """Multiply queries with keys; keys have as many heads as queries, or a divisor of that."""
    k = _repeated(k, q.shape[1])
    raw = q @ k.mT * float(scale or 1 / math.sqrt(q.shape[3]))
    capped = raw if not softcap else (raw * (1 / softcap)).map("Tanh") * float(softcap)
    return _Scores(raw, capped, capped)


def _repeated(value: Value, heads: int) -> Value:
    """Let groups of heads share a head of keys or values."""
    batch, own, length, size = value.shape
    if own == heads:
        return value
    apart = value.reshape([batch, own, 1, length, size]).expand([batch, own, heads // own, length, size])
    return apart.reshape([batch, heads, length, size])


def _either(a: Value, b: Value) -> Value:
    return a.graph.op("Or", a, b, shape=np.broadcast_shapes(a.shape, b.shape))


def _both(a: Value | None, b: Value | None) -> Value | None:
    return a if b is None else b if a is None else _either(a, b)


def _places(graph: GraphBuilder, count: int) -> Value:
    return graph.constant(np.arange(count, dtype=np.int64))


def _offset_places(graph: GraphBuilder, queries: int, offset: Value | int) -> Value:
    """The place of each query among the keys, [queries, 1] or [batch, 1, queries, 1]."""
    places = _places(graph, queries).reshape([queries, 1])
    if isinstance(offset, int):
        return places + offset
    return offset.cast(_INT64).reshape([offset.size, 1, 1, 1]) + places


def _window(place: Value, keys: int, *, causal: bool, left: int = -1, right: int = -1) -> Value | None:
    """Keys that lie outside of the window around a query's place."""
    key, hidden = _places(place.graph, keys), None
    if causal or right >= 0:
        hidden = key.compare("Greater", place + (0 if causal else right))
    if left >= 0:
        hidden = _both(hidden, key.compare("Less", place - left))
    return hidden


# --- ONNX's own --------------------------------------------------------------------------------------------


@lowering("Attention")
def _attention(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value | None]:
    settings = settings_of(node)
    q, k, v = (_split_heads(inputs[s], settings, "q" if s == 0 else "kv") for s in range(3))
    past_key, past_value, valid = (optional(inputs, s) for s in (4, 5, 6))
    offset: Value | int = 0
    if past_key is not None and past_value is not None:
        offset = past_key.shape[2]
        k, v = graph.concat([past_key, k], 2), graph.concat([past_value, v], 2)
    elif valid is not None:
        offset = valid.cast(_INT64) - q.shape[2]
    found = _scores(q, k, scale=settings.get("scale"), softcap=settings.get("softcap", 0.0))
    keys = k.shape[2]
    mask = optional(inputs, 3)
    if mask is not None:
        found = _masked(found, mask, keys)
    left, right = settings.get("left_window_size", -1), settings.get("right_window_size", -1)
    causal = bool(settings.get("is_causal"))
    found = found.without(
        _window(_offset_places(graph, q.shape[2], offset), keys, causal=causal, left=left, right=right)
    )
    if valid is not None:
        behind = _places(graph, keys).compare("GreaterOrEqual", valid.cast(_INT64).reshape([valid.size, 1, 1, 1]))
        found = found.without(behind)
    weights = found.weights()
    y = weights @ _repeated(v, q.shape[1])
    extra = [found.raw, found.capped, found.biased, weights][settings.get("qk_matmul_output_mode", 0)]
    return [heads_together(y) if leading(inputs).rank == 3 else y, k, v, extra]


def _split_heads(value: Value | None, settings: Mapping[str, Any], kind: str) -> Value:
    assert value is not None
    return value if value.rank == 4 else heads_apart(value, settings[f"{kind}_num_heads"])


def _masked(found: _Scores, mask: Value, keys: int) -> _Scores:
    """Apply a mask of booleans or of numbers; keys behind its end are hidden."""
    missing = keys - mask.shape[-1]
    if mask.dtype.kind == "b":
        hidden = mask.graph.op("Not", mask, shape=mask.shape)
        return found.without(_lengthened(hidden, missing))
    found = found.plus(mask.pad([0] * mask.rank, [*[0] * (mask.rank - 1), missing]))
    if missing:
        found = found.without(mask.graph.constant(np.arange(keys) >= mask.shape[-1]))
    return found


def _lengthened(hidden: Value, missing: int) -> Value:
    if not missing:
        return hidden
    rest = hidden.graph.constant(np.ones((*hidden.shape[:-1], missing), bool))
    return hidden.graph.concat([hidden, rest], hidden.rank - 1)


# --- ONNX Runtime's ----------------------------------------------------------------------------------------


@lowering("Attention", domain=MICROSOFT)
def _packed_attention(
    graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs
) -> list[Value | None] | None:
    """Self-attention with its projections in one weight."""
    settings = settings_of(node)
    x, weight, bias, mask, past = leading(inputs), inputs[1], *(optional(inputs, s) for s in (2, 3, 4))
    if weight is None or settings.get("do_rotary") or settings.get("past_present_share_buffer"):
        return None
    packed = x @ weight
    packed = packed if bias is None else packed + bias
    widths = settings.get("qkv_hidden_sizes") or [packed.shape[-1] // 3] * 3
    ends = np.cumsum(widths)
    parts = [packed.slice(2, int(end - n), int(end)) for end, n in zip(ends, widths, strict=True)]
    q, k, v = (heads_apart(part, settings["num_heads"]) for part in parts)
    before = 0
    if past is not None:
        before = past.shape[3]
        k, v = (graph.concat([past.slice(0, i, i + 1).reshape(past.shape[1:]), t], 2) for i, t in enumerate((k, v)))
    found = _filtered(_scores(q, k, scale=settings.get("scale")), mask, settings, optional(inputs, 5), before)
    if found is None:
        return None
    present = graph.concat([k.reshape([1, *k.shape]), v.reshape([1, *v.shape])], 0) if len(outputs) > 1 else None
    return [heads_together(found.weights() @ v), present]


@lowering("MultiHeadAttention", domain=MICROSOFT)
def _multi_head(
    graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs
) -> list[Value | None] | None:
    """Attention over separate inputs, with a cache if there is one."""
    settings = settings_of(node)
    parts = _separate(inputs, settings["num_heads"])
    past_key, past_value = optional(inputs, 6), optional(inputs, 7)
    if parts is None or any(optional(inputs, s) is not None for s in (8, 9)):
        return None
    q, k, v = parts
    before = 0
    if past_key is not None and past_value is not None:
        before = past_key.shape[2]
        k, v = graph.concat([past_key, k], 2), graph.concat([past_value, v], 2)
    found = _filtered(
        _scores(q, k, scale=settings.get("scale")), optional(inputs, 4), settings, optional(inputs, 5), before
    )
    if found is None:
        return None
    return [heads_together(found.weights() @ v), k, v, found.biased]


def _separate(inputs: Inputs, heads: int) -> list[Value] | None:
    """Queries, keys and values as heads; the bias of all three is one tensor. None where they are packed in one."""
    q, k, v, bias = leading(inputs), *(optional(inputs, s) for s in (1, 2, 3))
    if k is None or v is None or q.rank != 3:
        return None
    separate = [q, k, v]
    if bias is not None:
        widths = [t.shape[2] if t.rank == 3 else t.shape[1] * t.shape[3] for t in separate]
        ends = np.cumsum(widths)
        shifts = [bias.slice(0, int(e - n), int(e)) for e, n in zip(ends, widths, strict=True)]
        separate = [t + s if t.rank == 3 else t for t, s in zip(separate, shifts, strict=True)]
    return [heads_apart(t, heads) if t.rank == 3 else t for t in separate]


def _filtered(
    found: _Scores, mask: Value | None, settings: Mapping[str, Any], bias: Value | None, before: int
) -> _Scores | None:
    """_Scores with a mask of one of the runtime's kinds, a bias, and the future hidden where `unidirectional`."""
    if mask is not None:
        added = _added_mask(mask, found.raw, float(settings.get("mask_filter_value", -10000.0)))
        if added is None:
            return None
        found = found.plus(added)
    found = found.plus(bias)
    if settings.get("unidirectional"):
        place = _offset_places(found.raw.graph, found.raw.shape[2], before)
        found = found.without(_window(place, found.raw.shape[3], causal=True))
    return found


def _added_mask(mask: Value, like: Value, low: float) -> Value | None:
    """What a mask adds to the scores; None for kinds that are not known.

    A mask has ones for what is seen: [batch, keys], [batch, queries, keys], or [batch, 1, largest, largest]. One axis
    gives the number of keys of each sample, and behind these, the first key of each.
    """
    batch, _, queries, keys = like.shape
    graph = like.graph
    if mask.rank == 1 and mask.size in (batch, 2 * batch):
        ends = mask.slice(0, 0, batch).cast(_INT64).reshape([batch, 1, 1, 1])
        hidden = _places(graph, keys).compare("GreaterOrEqual", ends)
        if mask.size == 2 * batch:
            starts = mask.slice(0, batch, 2 * batch).cast(_INT64).reshape([batch, 1, 1, 1])
            hidden = _either(hidden, _places(graph, keys).compare("Less", starts))
        return hidden.cast(like.dtype) * low
    shape = {2: [batch, 1, 1, keys], 3: [batch, 1, queries, keys]}.get(mask.rank)
    if shape is None or mask.size != math.prod(shape):
        return None
    seen = mask.reshape(shape).cast(_INT64).compare("Greater", 0).cast(like.dtype)
    return (1.0 - seen) * low


@lowering("GroupQueryAttention", domain=MICROSOFT)
def _group_query(
    graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs
) -> list[Value | None] | None:
    """Causal attention with shared keys, a cache, and positions turned in."""
    settings = settings_of(node)
    lengths, total = optional(inputs, 5), optional(inputs, 6)
    unknown = settings.get("smooth_softmax") or settings.get("k_quant_type", "NONE") != "NONE"
    if (
        lengths is None
        or total is None
        or unknown
        or any(optional(inputs, s) is not None for s in range(9, len(inputs)))
    ):
        return None
    q, k, v = _grouped(inputs, settings)
    past_key, past_value = optional(inputs, 3), optional(inputs, 4)
    before = lengths.cast(_INT64).reshape([lengths.size]) + (1 - q.shape[2])
    known = total.constant
    if past_key is None or not past_key.shape[2] or (known is not None and int(known.reshape(-1)[0]) == q.shape[2]):
        before = graph.constant(np.zeros(q.shape[0], np.int64))
    place = _offset_places(graph, q.shape[2], before)
    if settings.get("do_rotary"):
        tables = optional(inputs, 7), optional(inputs, 8)
        if tables[0] is None or tables[1] is None:
            return None
        positions = place.reshape([q.shape[0], q.shape[2]])
        interleaved = bool(settings.get("rotary_interleaved"))
        q, k = (rotated(t, positions, tables[0], tables[1], interleaved=interleaved) for t in (q, k))
    k, v = (
        _with_past(new, past, before, output)
        for new, past, output in ((k, past_key, optional(outputs, 1)), (v, past_value, optional(outputs, 2)))
    )
    found = _scores(q, k, scale=settings.get("scale"), softcap=settings.get("softcap", 0.0))
    window = settings.get("local_window_size", -1)
    found = found.without(_window(place, k.shape[2], causal=True, left=window - 1 if window > 0 else -1))
    return [heads_together(found.weights() @ _repeated(v, q.shape[1])), k, v]


def _grouped(inputs: Inputs, settings: Mapping[str, Any]) -> list[Value]:
    heads, shared = settings["num_heads"], settings["kv_num_heads"]
    q, k, v = leading(inputs), optional(inputs, 1), optional(inputs, 2)
    if k is None or v is None:
        size = q.shape[2] // (heads + 2 * shared)
        ends = np.cumsum([0, heads * size, shared * size, shared * size])
        parts = [q.slice(2, int(a), int(b)) for a, b in itertools.pairwise(ends)]
    else:
        parts = [q, k, v]
    return [heads_apart(part, n) for part, n in zip(parts, (heads, shared, shared), strict=True)]


def _with_past(new: Value, past: Value | None, before: Value, output: Value | None) -> Value:
    """New positions behind the filled part of a cache, which may be another one for every sample."""
    if past is None or not past.shape[2]:
        return new
    batch, heads, length, size = new.shape
    slots = output.shape[2] if output is not None else past.shape[2] + length
    both = new.graph.concat([past, new], 2)
    slot, filled = _places(new.graph, slots), before.reshape([batch, 1])
    source = slot.compare("Less", filled).where(slot.expand([batch, slots]), slot - filled + past.shape[2])
    source = new.graph.op("Clip", source, source.like(0), source.like(past.shape[2] + length - 1), shape=source.shape)
    index = source.reshape([batch, 1, slots, 1]).expand([batch, heads, slots, size])
    return new.graph.op("GatherElements", both, index, shape=index.shape, axis=2)
