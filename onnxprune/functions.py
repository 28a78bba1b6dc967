"""Model-local functions: inlined where the graph calls them, so that labels can go through their bodies."""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import inliner

from onnxprune.model import Model
from onnxprune.protos import copy_except


def inlined(model: Model) -> Model:
    """`model` with the local functions that its graph calls written out; the same object if it calls none."""
    proto = model.proto
    known = {(f.domain, f.name) for f in proto.functions}
    if not known or not any((n.domain, n.op_type) in known for n in proto.graph.node):
        return model
    light = onnx.ModelProto()
    # The inliner sees names only; the weights stay out of its copies.
    copy_except(proto, light, "graph")
    copy_except(proto.graph, light.graph, "initializer")
    expanded = inliner.inline_local_functions(light)
    expanded.graph.initializer.extend(proto.graph.initializer)
    return replace(model, proto=expanded)
