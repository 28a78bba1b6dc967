"""Profiles: the time of every node of a whole model, by the tensors of the graph as it was written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from onnxprune.cost.latency.profiler import profiled
from onnxprune.model import Model
from onnxprune.model.graph import first_output
from onnxprune.runtime import Setting

# A model that is larger is not written once more for the sake of its optimised graph.
LARGEST_OPTIMISED = 1 << 30
# What ONNX Runtime calls a node whose channels are in blocks: the tensor that it made before.
_BLOCKED = "_nchwc"
# ... and one that it runs in float32 instead of float16.
_CAST = "InsertedPrecisionFreeCast_"
# ... and what is behind the name of a node that it has made of others, or whose channels it has put last.
_TOKEN = re.compile(r"_token_\d+$")

# Tensor of the original graph -> seconds of the node that makes it now; "" for all nodes that are not known.
Profile = Mapping[str, float]


def profile(model: Model, feeds: Mapping[str, np.ndarray], setting: Setting) -> Profile:
    """Run a model, optimised, and time its nodes.

    Raises:
        RunError: the model does not run.
    """
    model = _named(model)
    with TemporaryDirectory(prefix="onnxprune-") as folder:
        path = Path(folder) / "optimised.onnx" if model.nbytes < LARGEST_OPTIMISED else None
        times = profiled(model, feeds, setting, optimised_to=str(path or ""))
        made = onnx.load(path, load_external_data=False).graph.node if path else model.proto.graph.node
    tensor_of = {node.name: first_output(node) for node in made}
    before = {node.name: first_output(node) for node in model.proto.graph.node}
    known = {name for node in model.proto.graph.node for name in node.output}
    found: dict[str, float] = {}
    for name, seconds in times.items():
        names = tensor_of.get(name, ""), name.removeprefix(_CAST).removesuffix(_BLOCKED)
        tensor = next((t for t in (*names, before.get(_TOKEN.sub("", name), "")) if t in known), "")
        found[tensor] = found.get(tensor, 0.0) + seconds
    return found


def _named(model: Model) -> Model:
    """The model with a name for every node, by which its time is known again."""
    taken = Counter(node.name for node in model.proto.graph.node)
    if "" not in taken and max(taken.values(), default=1) == 1:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for node in proto.graph.node:
        if not node.name or taken[node.name] > 1:
            node.name = f"node of {first_output(node)}"
    return replace(model, proto=proto)
