"""Ranks of inputs that declare no shape, as far as the nodes that read them leave no doubt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx
from onnx import GraphProto, NodeProto

from onnxprune.model.traits import operators_where

# Sizes of a tensor; None is an axis that may have any.
Dims = tuple[int | None, ...]
# Operators whose output 0 has the shape of input 0.
_ALIKE = operators_where(lambda traits: traits.same_shape, "")
_RECURRENT = frozenset(("GRU", "LSTM", "RNN"))


def shape_by_consumers(graph: GraphProto, name: str) -> Dims | None:
    """The shape that the consumers of `name` fix, by their weights or by what is declared behind them; else None."""
    weights = {t.name: tuple(t.dims) for t in graph.initializer}
    declared = {v.name: _dims(v) for v in (*graph.value_info, *graph.output) if v.type.tensor_type.HasField("shape")}
    consumers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        if node.input and not node.domain and len(node.output):
            consumers.setdefault(node.input[0], []).append(node)
    back: list[Callable[[Dims], Dims | None]] = []
    seen = set()
    while name not in declared and name not in seen:
        seen.add(name)
        found = next((dims for node in consumers.get(name, ()) if (dims := _by_weight(node, weights))), None)
        if found is not None:
            return _followed(found, back)
        way = next(((node, step) for node in consumers.get(name, ()) if (step := _backward(node, weights))), None)
        if way is None:
            return None
        name = way[0].output[0]
        back.append(way[1])
    return _followed(declared[name], back) if name in declared else None


def _dims(value: onnx.ValueInfoProto) -> Dims:
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in dims)


def _followed(dims: Dims, back: Sequence[Callable[[Dims], Dims | None]]) -> Dims | None:
    found: Dims | None = dims
    for step in reversed(back):
        found = step(found) if found is not None else None
    return found


def _by_weight(node: NodeProto, weights: Mapping[str, tuple[int, ...]]) -> Dims | None:
    """The shape of input 0 of an operator whose weight says its rank."""
    weight = weights.get(node.input[1], ()) if len(node.input) > 1 else ()
    numbers = {a.name: a.i for a in node.attribute}
    if node.op_type == "Conv" and len(weight) > 2:
        return (None, weight[1] * numbers.get("group", 1), *(None,) * (len(weight) - 2))
    if node.op_type == "ConvTranspose" and len(weight) > 2:
        return (None, weight[0], *(None,) * (len(weight) - 2))
    if node.op_type == "Gemm" and len(weight) == 2:
        inner = weight[1 if numbers.get("transB", 0) else 0]
        return (inner, None) if numbers.get("transA", 0) else (None, inner)
    if node.op_type in _RECURRENT and len(weight) == 3:
        return (None, None, weight[2])
    return None


def _backward(node: NodeProto, weights: Mapping[str, tuple[int, ...]]) -> Callable[[Dims], Dims | None] | None:
    """The shape of input 0 from that of output 0, where the operator lets it be told."""
    if node.op_type in _ALIKE:
        return lambda dims: dims
    other = weights.get(node.input[1]) if len(node.input) == 2 else None
    if node.op_type == "MatMul" and other is not None and len(other) == 2:
        inner = other[0]
        # Of a vector by a matrix comes a vector; of anything else the same rank.
        return lambda dims: (*dims[:-1], inner) if dims else None
    if node.op_type in ("Add", "Div", "Mul", "Sub", "Pow") and other is not None and all(n == 1 for n in other):
        rank = len(other)
        return lambda dims: dims if len(dims) > rank else None
    return None
