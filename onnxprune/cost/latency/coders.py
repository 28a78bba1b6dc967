"""The nodes around a contraction that a runtime makes one kernel of whole numbers of, together with it."""

from __future__ import annotations

import onnx

from onnxprune.model.graph import first_output
from onnxprune.model.traits import traits_of
from onnxprune.tracing import TraceResult

ENCODES = "QuantizeLinear"


def decoders_of(tracing: TraceResult, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes that decode what a node reads, perhaps with others behind them that only move elements.

    Args:
        tracing: the traced model.
        node: a contraction.

    Returns:
        The nodes in the order in which they run; none in front of what is not decoded.
    """
    found: dict[str, onnx.NodeProto] = {}
    for name in node.input:
        chain, maker = list[onnx.NodeProto](), tracing.producer(name)
        while maker is not None and not traits_of(maker).decodes and traits_of(maker).moves and len(maker.input) == 1:
            chain.append(maker)
            maker = tracing.producer(maker.input[0])
        if maker is not None and traits_of(maker).decodes:
            found.update((first_output(one), one) for one in [maker, *reversed(chain)])
    return list(found.values())


def coders_of(tracing: TraceResult, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The QuantizeLinear that alone reads what a node makes, perhaps behind an activation.

    Args:
        tracing: the traced model.
        node: a contraction.

    Returns:
        The nodes in the order in which they run; none where the result stays float.
    """
    chain, tensor = list[onnx.NodeProto](), first_output(node)
    while len(consumers := tracing.consumers(tensor)) == 1 and not tracing.is_output(tensor):
        (reader,) = consumers
        is_activation = traits_of(reader).elementwise and len([*filter(tracing.producer, reader.input)]) == 1
        if reader.input[0] != tensor or not (reader.op_type == ENCODES or is_activation):
            break
        chain.append(reader)
        if reader.op_type == ENCODES:
            return chain
        tensor = first_output(reader)
    return []
