"""Model-local functions: inlined where the graph calls them, so that labels can go through their bodies."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx
from onnx import inliner

from onnxprune.errors import ModelError
from onnxprune.model.model import Model
from onnxprune.model.protos import skeleton
from onnxprune.model.tensors import nodes

# Functions that call others twice, twelve levels deep, are small in a file and millions of nodes in a graph.
LARGEST_EXPANSION = 1 << 20


def inlined(model: Model) -> Model:
    """Write out the local functions that a graph calls.

    Args:
        model: the model.

    Returns:
        A model without calls; the same object if there are none.

    Raises:
        ModelError: the functions call each other so often that the graph would be too long.
    """
    proto = model.proto
    known = {(f.domain, f.name) for f in proto.functions}
    if not known or not any((n.domain, n.op_type) in known for n in proto.graph.node):
        return model
    if _expanded(proto) > LARGEST_EXPANSION:
        raise ModelError(
            f"the functions of {model.name} call each other: written out, they are more than {LARGEST_EXPANSION} nodes",
            hint="export it without local functions",
        )
    # The inliner sees names only, those of the weights among them, which it must not give to others.
    light = skeleton(proto)
    light.graph.initializer.extend(onnx.TensorProto(name=tensor.name) for tensor in proto.graph.initializer)
    expanded = inliner.inline_local_functions(light)
    del expanded.graph.initializer[:]
    expanded.graph.initializer.extend(proto.graph.initializer)
    return replace(model, proto=expanded)


def _expanded(proto: onnx.ModelProto) -> float:
    """How many nodes the graph has when all local functions are written out; infinite if one calls itself."""
    bodies = {(f.domain, f.name): [(n.domain, n.op_type) for n in nodes(f)] for f in proto.functions}
    sizes: dict[tuple[str, str], float] = {}
    pending = list(bodies)
    entered: set[tuple[str, str]] = set()
    while pending:
        key = pending[-1]
        calls = [c for c in bodies[key] if c in bodies]
        waiting = [c for c in calls if c not in sizes]
        if key in sizes or not waiting or key in entered:
            sizes.setdefault(key, len(bodies[key]) + sum(sizes.get(c, math.inf) for c in calls))
            pending.pop()
        else:
            entered.add(key)
            pending.extend(waiting)
    return sum(sizes.get((n.domain, n.op_type), 1.0) for n in nodes(proto.graph))
