"""Who makes and reads what, and which tensors are weights: what a graph says before anything is labelled."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from onnxprune.model.traits import operators_where

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
