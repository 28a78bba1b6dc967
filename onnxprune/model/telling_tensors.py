"""The last tensors of floats before outputs that are ids or truths: they tell how good the outputs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto

from onnxprune.model.run_order import reads
from onnxprune.model.traits import operators_where

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
# What leaves little of a difference between large numbers; shapes and types are those of its input.
SQUEEZING = operators_where(lambda traits: traits.squeezes, "")
# What is computed of a tensor by these is no matter of its values.
TELLS_SIZES = operators_where(lambda traits: traits.tells_sizes, "")


def last_floats(graph: onnx.GraphProto, dtypes: Mapping[str, int]) -> list[str]:
    """Find the last tensors of floats before outputs that are ids, counts or truths: ArgMax, TopK, thresholds.

    Args:
        graph: the graph, flat if it has bodies.
        dtypes: the element types of its tensors, as far as they are known.

    Returns:
        Names of tensors.
    """
    ids = [o.name for o in graph.output if dtypes.get(o.name, FLOATS[0]) not in FLOATS]
    producers = _producers(graph)
    found: dict[str, None] = {}
    met, pending = set(ids), list(ids)
    while pending:
        node = producers.get(pending.pop())
        for name in reads(node) if node is not None and node.op_type not in TELLS_SIZES else ():
            if dtypes.get(name) in FLOATS and name in producers and producers[name].input:
                found[name] = None
            elif name not in met and dtypes.get(name) not in FLOATS:
                met.add(name)
                pending.append(name)
    return list(found)


def unsqueezed(graph: onnx.GraphProto, names: Sequence[str]) -> list[str]:
    """Replace tensors that come from a Softmax, or the like, by what enters it.

    Args:
        graph: the graph, flat if it has bodies.
        names: names of tensors.

    Returns:
        Names of tensors, each once.
    """
    producers = _producers(graph)
    found: dict[str, None] = {}
    for name in names:
        producer = producers.get(name)
        inner = producer is not None and producer.op_type in SQUEEZING and producer.input[0] in producers
        found[producer.input[0] if inner and producer is not None else name] = None
    return list(found)


def _producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {o: node for node in graph.node for o in node.output if o}
