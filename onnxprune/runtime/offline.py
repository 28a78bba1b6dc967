"""The graph that ONNX Runtime's basic optimisations make of a model, as a model again."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import onnx

from onnxprune.errors import RunError
from onnxprune.model import Model
from onnxprune.runtime.session import CPU_PROVIDER, LARGEST_TIDIED, Session

# The optimisation that computes what depends on constants alone.
CONSTANT_FOLDING = "ConstantFolding"


class _Offline(Session):
    """A session that writes down the graph that it would run."""

    def __init__(self, model: Model, target: Path, without: Collection[str]) -> None:
        options = self.options(0, tidied=True)
        options.optimized_model_filepath = str(target)
        self._open(model, options, [CPU_PROVIDER], without=without)


def optimised_offline(model: Model, without: Collection[str] = ()) -> onnx.ModelProto | None:
    """Let ONNX Runtime simplify a graph: no-ops, repeated expressions, what depends on constants alone.

    Args:
        model: the model.
        without: names of the runtime's optimisations that are left out.

    Returns:
        The runtime's graph; it may hold operators of the runtime's own. Weights whose data lies in another file are
        without it, and have the names that they came with. None where the runtime refuses the model, or the graph is
        too long for it.
    """
    if len(model.proto.graph.node) > LARGEST_TIDIED:
        return None
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        target = Path(folder) / "model.onnx"
        try:
            with _Offline(model, target, without):
                return onnx.load(target, load_external_data=False)
        except (RunError, OSError):
            return None
