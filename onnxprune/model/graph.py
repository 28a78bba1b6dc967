"""Producers, consumers and weights of a graph, before anything is labelled."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from onnxprune.model.protos import bodies, keep
from onnxprune.model.traits import operators_where

if TYPE_CHECKING:
    from onnxprune.model.model import Model

# Operators whose output holds the numbers of their first input, in the same type or another one.
MOVES = operators_where(lambda traits: traits.moves or traits.retypes, "")
# Floats and what is quantised; wider integers and booleans are sizes, indices and masks (or a quantised bias, which
# is a weight to the rule that reads it).
WEIGHT_TYPES = frozenset(onnx.TensorProto.DataType.values()) - {
    onnx.TensorProto.UNDEFINED,
    onnx.TensorProto.BOOL,
    onnx.TensorProto.INT32,
    onnx.TensorProto.UINT32,
    onnx.TensorProto.INT64,
    onnx.TensorProto.UINT64,
    onnx.TensorProto.STRING,
    onnx.TensorProto.COMPLEX64,
    onnx.TensorProto.COMPLEX128,
}


def first_output(node: onnx.NodeProto) -> str:
    """What identifies a node: its first output that is asked for (the first of all may be left out)."""
    made = node.output
    return made[0] if made and made[0] else next(filter(None, made), "")


def captured(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the subgraphs of `node` mention; a superset of what they take from outside."""
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            for inner in graph.node:
                yield from (i for i in inner.input if i)
                yield from captured(inner)
            yield from (o.name for o in graph.output)


def constant_value(model: Model, node: onnx.NodeProto) -> np.ndarray | None:
    """The value of a `Constant` node; None for strings and sparse values."""
    attribute = node.attribute[0] if node.attribute else onnx.AttributeProto()
    if attribute.name == "value":
        return model.array(attribute.t)
    if attribute.name in ("value_int", "value_ints"):
        return np.array(helper.get_attribute_value(attribute), np.int64)
    if attribute.name in ("value_float", "value_floats"):
        return np.array(helper.get_attribute_value(attribute), np.float32)
    return None


def remove_dead(graph: onnx.GraphProto, kept: AbstractSet[str] = frozenset()) -> None:
    """Remove nodes, initializers and notes that no output depends on, but for the tensors `kept`."""
    for body in (body for node in graph.node for body in bodies(node)):
        remove_dead(body)
    needed = {o.name for o in graph.output} | kept
    for index in range(len(graph.node) - 1, -1, -1):
        node = graph.node[index]
        if any(o in needed for o in node.output):
            needed.update(i for i in node.input if i)
            needed.update(captured(node))
        else:
            del graph.node[index]
    listed = {t.name for t in graph.initializer}
    keep(graph.initializer, lambda tensor: tensor.name in needed)
    keep(graph.sparse_initializer, lambda sparse: sparse.values.name in needed)
    keep(graph.input, lambda value: value.name in needed or value.name not in listed)
    made = {o for n in graph.node for o in n.output}
    keep(graph.value_info, lambda info: info.name in made or info.name in needed)
