"""Normalisation by the statistics of the batch, in plain arithmetic."""

from __future__ import annotations

import onnx

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.lowering.registry import Inputs, lowering, settings_of


@lowering("BatchNormalization")
def _batch_norm(graph: GraphBuilder, node: onnx.NodeProto, inputs: Inputs, outputs: Inputs) -> list[Value] | None:
    """Statistics of the batch in training mode; frozen ones stay one node.

    ONNX Runtime writes the running statistics into its own constants, so that no two runs of the node are alike.
    """
    settings = settings_of(node)
    x, scale, shift, mean, variance = inputs
    if not settings.get("training_mode") or x is None or scale is None or shift is None:
        return None
    assert mean is not None and variance is not None
    axes, along = [0, *range(2, x.rank)], [1, x.shape[1], *[1] * (x.rank - 2)]
    centre = x.mean(axes, keepdims=True)
    centred = x - centre
    spread = (centred * centred).mean(axes, keepdims=True)
    inverse = (spread + float(settings.get("epsilon", 1e-5))).map("Sqrt").map("Reciprocal")
    y = centred * inverse * scale.reshape(along) + shift.reshape(along)
    momentum = float(settings.get("momentum", 0.9))
    old_and_new = ((mean, centre), (variance, spread))
    running = [old * momentum + new.reshape(old.shape) * (1 - momentum) for old, new in old_and_new]
    return [y, *running]
