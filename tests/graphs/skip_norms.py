"""Streams whose sums and norms are one operator, as ONNX Runtime's tools write them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.model.protos import MICROSOFT
from tests.graphs.net import Net

WIDTH, INNER = 8, 12
PLAIN, SIMPLE = "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"


def stream(kind: str = SIMPLE, *, bias: bool = False, layers: int = 3) -> onnx.ModelProto:
    """Feed-forward layers on a stream: every one adds to it, and is normalised with the sum for the next."""
    net = Net(17)
    x = net.input(("batch", 4, WIDTH), "x", TensorProto.FLOAT)
    scales = [net.weight(WIDTH, name=f"norm{i}.scale") for i in range(layers + 1)]
    norm, given = ("LayerNormalization", 2) if kind == PLAIN else ("SimplifiedLayerNormalization", 1)
    shifts = [[net.weight(WIDTH, name=f"norm{i}.shift")] if given == 2 else [] for i in range(layers + 1)]
    total, normed = x, net.add(norm, x, scales[0], *shifts[0], axis=-1, epsilon=1e-5)
    for layer in range(layers):
        inner = net.add("Relu", net.add("MatMul", normed, net.weight(WIDTH, INNER, name=f"layers.{layer}.up")))
        made = net.add("MatMul", inner, net.weight(INNER, WIDTH, name=f"layers.{layer}.down"))
        parts = [total, made, scales[layer + 1], *shifts[layer + 1]]
        parts += [net.weight(WIDTH, name=f"layers.{layer}.bias")] if bias else []
        named = f"layers.{layer}.norm"
        normed, _, _, total = net.add(kind, *parts, outputs=4, domain=MICROSOFT, name=named, epsilon=1e-5)
        node = net.nodes[-1]
        node.output[:] = [normed, "", "", total] if layer + 1 < layers else [normed]
    net.output(net.add("MatMul", normed, net.weight(WIDTH, 5, name="head"), name="y"), ("batch", 4, 5))
    return net.proto()


def without(proto: onnx.ModelProto, layer: int) -> onnx.ModelProto:
    """The same with zeros for what a layer adds."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for tensor in made.graph.initializer:
        if tensor.name in (f"layers.{layer}.down", f"layers.{layer}.bias"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    return made
