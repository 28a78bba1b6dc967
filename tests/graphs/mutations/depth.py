"""Graphs that are too deep to be walked by recursion."""

from __future__ import annotations

import random

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from tests.graphs.mutations.registry import mutation

CHAIN = 50_000


@mutation
def deep_chains(rng: random.Random, model: ModelProto, other: ModelProto) -> None:
    """Fifty thousand nodes one after the other: behind the model, on a weight, or between two shapes."""
    graph, count = model.graph, rng.choice([1000, CHAIN])
    kind = rng.choice(["Relu", "Identity", "Add", "weight", "shape"])
    names = [f"deep{i}" for i in range(count)]
    if kind == "weight" and graph.initializer:
        tensor = rng.choice(graph.initializer)
        names[-1], tensor.name = tensor.name, "deepest"
        chain = [
            NodeProto(op_type="Identity", input=[a], output=[b])
            for a, b in zip(["deepest", *names], names, strict=False)
        ]
    elif kind == "shape":
        graph.initializer.append(numpy_helper.from_array(np.array([1, -1], np.int64), "sizes"))
        graph.node.add(op_type="Shape", input=[graph.output[0].name], output=["size"])
        chain = [
            NodeProto(op_type="Add", input=[a, a], output=[b]) for a, b in zip(["size", *names], names, strict=False)
        ]
        graph.node.extend(chain)
        chain = [NodeProto(op_type="Reshape", input=[graph.output[0].name, names[-1]], output=["end"])]
    else:
        op, times = ("Relu", 1) if kind == "weight" else (kind, 1 + (kind == "Add"))
        first = graph.output[0].name
        chain = [
            NodeProto(op_type=op, input=[a] * times, output=[b]) for a, b in zip([first, *names], names, strict=False)
        ]
        graph.output[0].name = names[-1]
    nodes = [*chain, *graph.node] if kind == "weight" else [*graph.node, *chain]
    del graph.node[:]
    graph.node.extend(nodes)
