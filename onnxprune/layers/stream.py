"""The axis along which a stream of activations has its channels."""

from __future__ import annotations

from onnxprune.layers.convolution import CONVOLUTIONS
from onnxprune.layers.parameters import NORMS
from onnxprune.tracing import Groups


def channel_axis(groups: Groups, tensor: str) -> int:
    """Find the axis of the channels: that of the first norm, convolution or product that reads a stream.

    Args:
        groups: the traced model.
        tensor: an activation of known rank.

    Returns:
        The axis, counted from the front. Where nothing tells, 1 of four axes, else the last.
    """
    shapes = groups.static.shapes
    rank, stream = len(shapes[tensor]), {tensor}
    for node in groups.tracing.model.proto.graph.node:
        if stream.isdisjoint(node.input):
            continue
        if node.op_type in NORMS:
            return NORMS[node.op_type].axis % rank
        if node.op_type in CONVOLUTIONS:
            return 1
        if node.op_type in ("MatMul", "Gemm"):
            return rank - 1
        stream.update(name for name in node.output if len(shapes.get(name, ())) == rank)
    return 1 if rank == 4 else rank - 1
