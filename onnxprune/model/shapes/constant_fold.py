"""Numpy evaluation of the operators that exporters compute shapes and indices with.

Each entry takes the node's attributes, its input values (None where omitted) and the number of outputs, and
returns the output values. Semantics are those of the ONNX operator of the same name; what an entry cannot
express raises ValueError, which leaves the value unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Attributes = Mapping[str, Any]
Evaluator = Callable[..., Sequence[np.ndarray]]


def _plain(function: Callable[..., Any]) -> Evaluator:
    def run(attrs: Attributes, *inputs: np.ndarray, outputs: int) -> Sequence[np.ndarray]:
        _bounded(np.broadcast_shapes(*(x.shape for x in inputs)))
        return [function(*inputs)]

    return run


def _listed(attrs: Attributes, name: str, given: np.ndarray | None) -> list[int] | None:
    """A list that is an attribute in old opsets and an input in new ones."""
    if given is not None:
        return [int(i) for i in np.atleast_1d(given)]
    return [int(i) for i in attrs[name]] if name in attrs else None


def _cast(attrs: Attributes, x: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    return [x.astype(helper.tensor_dtype_to_np_dtype(attrs["to"]))]


def _div(attrs: Attributes, x: np.ndarray, y: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    if x.dtype.kind in "iu":  # ONNX integer division truncates towards zero
        quotient = np.abs(x) // np.abs(y)
        return [(np.sign(x) * np.sign(y) * quotient).astype(x.dtype)]
    return [x / y]


def _mod(attrs: Attributes, x: np.ndarray, y: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    return [np.fmod(x, y) if attrs.get("fmod") else np.mod(x, y)]


def _gather(attrs: Attributes, x: np.ndarray, index: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    axis = attrs.get("axis", 0)
    _bounded((index.size, x.size // max(1, x.shape[axis])))
    return [np.take(x, index, axis=axis, mode="raise")]


def _concat(attrs: Attributes, *inputs: np.ndarray, outputs: int) -> Sequence[np.ndarray]:
    return [np.concatenate(inputs, axis=attrs["axis"])]


def _squeeze(attrs: Attributes, x: np.ndarray, axes: np.ndarray | None = None, *, outputs: int) -> Sequence[np.ndarray]:
    listed = _listed(attrs, "axes", axes)
    return [np.squeeze(x, None if listed is None else tuple(listed))]


def _unsqueeze(
    attrs: Attributes, x: np.ndarray, axes: np.ndarray | None = None, *, outputs: int
) -> Sequence[np.ndarray]:
    return [np.expand_dims(x, tuple(_listed(attrs, "axes", axes) or ()))]


def _slice(attrs: Attributes, x: np.ndarray, *bounds: np.ndarray | None, outputs: int) -> Sequence[np.ndarray]:
    given = [*bounds, None, None, None, None][:4]
    starts, ends = _listed(attrs, "starts", given[0]) or [], _listed(attrs, "ends", given[1]) or []
    axes = _listed(attrs, "axes", given[2]) or list(range(len(starts)))
    steps = _listed(attrs, "steps", given[3]) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = np.take(x, slice_positions(x.shape[axis], start, end, step), axis=axis)
    return [x]


def sliced_range(size: int, start: int, end: int, step: int) -> range:
    """The positions that `Slice` takes from an axis of `size`, in its order (ONNX clamps; negatives count back)."""
    if step == 0:
        raise ValueError("Slice step 0")
    low, high = (0, size) if step > 0 else (-1, size - 1)
    start = min(max(start + size if start < 0 else start, 0), high)
    end = end + size if end < 0 else end
    return range(start, min(max(end, low), size), step)


def slice_positions(size: int, start: int, end: int, step: int) -> np.ndarray:
    """`sliced_range` as an array."""
    taken = sliced_range(size, start, end, step)
    return np.arange(taken.start, taken.stop, taken.step)


def _range(attrs: Attributes, *bounds: np.ndarray, outputs: int) -> Sequence[np.ndarray]:
    start, limit, delta = (b.item() for b in bounds)
    if abs((limit - start) / delta) > 1 << 20:
        raise ValueError("Range is too long to follow")
    return [np.arange(start, limit, delta, dtype=bounds[0].dtype)]


def _fill(attrs: Attributes, shape: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    _bounded(shape)
    value = attrs.get("value")
    one = np.zeros((), np.float32) if value is None else numpy_helper.to_array(value).reshape(())
    return [np.full(tuple(shape), one, one.dtype)]


def fill_value(node: onnx.NodeProto) -> np.ndarray:
    """The scalar that a `ConstantOfShape` node fills its output with."""
    for attribute in node.attribute:
        if attribute.name == "value":
            return np.asarray(numpy_helper.to_array(attribute.t)).reshape(())
    return np.zeros((), np.float32)


def _bounded(shape: np.ndarray | Sequence[int]) -> None:
    if np.prod(np.asarray(shape, np.float64)) > 1 << 20:
        raise ValueError("too large to follow")


def _expand(attrs: Attributes, x: np.ndarray, shape: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    target = np.broadcast_shapes(x.shape, tuple(int(s) for s in shape))
    _bounded(target)
    return [np.array(np.broadcast_to(x, target))]


def _tile(attrs: Attributes, x: np.ndarray, repeats: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    _bounded(np.asarray(x.shape, np.float64) * repeats)
    return [np.tile(x, tuple(int(r) for r in repeats))]


def _reshape(
    attrs: Attributes, x: np.ndarray, shape: np.ndarray | None = None, *, outputs: int
) -> Sequence[np.ndarray]:
    target = _listed(attrs, "shape", shape) or []
    if not attrs.get("allowzero"):
        target = [x.shape[i] if s == 0 else s for i, s in enumerate(target)]
    return [x.reshape(target)]


def _transpose(attrs: Attributes, x: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    return [np.transpose(x, attrs.get("perm"))]


def _split(attrs: Attributes, x: np.ndarray, split: np.ndarray | None = None, *, outputs: int) -> Sequence[np.ndarray]:
    axis = attrs.get("axis", 0)
    sizes = _listed(attrs, "split", split) or split_sizes(x.shape[axis], outputs)
    return list(np.split(x, np.cumsum(sizes)[:-1], axis))


def split_sizes(size: int, outputs: int) -> list[int]:
    """The sizes of a `Split` without explicit sizes: equal chunks, the last one smaller."""
    chunk = -(-size // outputs)
    return [min(chunk, size - i * chunk) for i in range(outputs)]


def _reduce(function: Callable[..., Any]) -> Evaluator:
    def run(attrs: Attributes, x: np.ndarray, axes: np.ndarray | None = None, *, outputs: int) -> list[np.ndarray]:
        listed = _listed(attrs, "axes", axes)
        if not listed and attrs.get("noop_with_empty_axes"):
            return [x]
        kept = bool(attrs.get("keepdims", 1))
        return [np.asarray(function(x, axis=tuple(listed) if listed else None, keepdims=kept)).astype(x.dtype)]

    return run


def _cumsum(attrs: Attributes, x: np.ndarray, axis: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    if attrs.get("exclusive") or attrs.get("reverse"):
        raise ValueError("exclusive or reverse CumSum")
    return [np.cumsum(x, int(axis.item()), dtype=x.dtype)]


def _clip(
    attrs: Attributes,
    x: np.ndarray,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    *,
    outputs: int,
) -> Sequence[np.ndarray]:
    bounds = [attrs.get("min") if low is None else low, attrs.get("max") if high is None else high]
    return [x if bounds == [None, None] else np.clip(x, bounds[0], bounds[1]).astype(x.dtype)]


def _flatten(attrs: Attributes, x: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    axis = attrs.get("axis", 1)
    return [x.reshape(int(np.prod(x.shape[:axis])), -1)]


def _many(function: Callable[[Any, Any], Any]) -> Evaluator:
    def run(attrs: Attributes, *inputs: np.ndarray, outputs: int) -> Sequence[np.ndarray]:
        _bounded(np.broadcast_shapes(*(x.shape for x in inputs)))
        result = inputs[0]
        for other in inputs[1:]:
            result = function(result, other)
        return [result]

    return run


def _non_zero(attrs: Attributes, x: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    return [np.array(np.nonzero(np.atleast_1d(x)), np.int64).reshape(max(1, x.ndim), -1)]


def _trilu(attrs: Attributes, x: np.ndarray, k: np.ndarray | None = None, *, outputs: int) -> Sequence[np.ndarray]:
    kept = np.tri(
        x.shape[-2], x.shape[-1], (0 if k is None else int(k.item())) - (1 if attrs.get("upper", 1) else 0), bool
    )
    return [np.where(kept ^ bool(attrs.get("upper", 1)), x, np.zeros((), x.dtype))]


def _compress(attrs: Attributes, x: np.ndarray, condition: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    return [np.compress(condition, x, attrs.get("axis"))]


def _eye(attrs: Attributes, x: np.ndarray, *, outputs: int) -> Sequence[np.ndarray]:
    dtype = helper.tensor_dtype_to_np_dtype(attrs["dtype"]) if "dtype" in attrs else x.dtype
    return [np.eye(x.shape[0], x.shape[1], attrs.get("k", 0), dtype=dtype)]


EVALUATORS: Mapping[str, Evaluator] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "Cast": _cast,
    "Ceil": _plain(np.ceil),
    "Clip": _clip,
    "Compress": _compress,
    "Concat": _concat,
    "ConstantOfShape": _fill,
    "CumSum": _cumsum,
    "Div": _div,
    "Equal": _plain(np.equal),
    "Expand": _expand,
    "EyeLike": _eye,
    "Flatten": _flatten,
    "Floor": _plain(np.floor),
    "Gather": _gather,
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Identity": _plain(lambda x: x),
    "IsNaN": _plain(np.isnan),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Max": _many(np.maximum),
    "Min": _many(np.minimum),
    "Mod": _mod,
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "NonZero": _non_zero,
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Pow": _plain(lambda x, y: np.power(x, y).astype(x.dtype)),
    "Range": _range,
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reciprocal": _plain(lambda x: (1 / x).astype(x.dtype)),
    "Reshape": _reshape,
    "Round": _plain(np.round),
    "Sign": _plain(np.sign),
    "Size": _plain(lambda x: np.array(x.size, np.int64)),
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
    "Xor": _plain(np.logical_xor),
}
