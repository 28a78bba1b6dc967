"""The user's own training: a shell command or a function that gets the smaller model, and whose weights are taken."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.autodiff import write_back
from onnxprune.calibration import script
from onnxprune.errors import OnnxPruneError, RunError, UsageError
from onnxprune.model import Model, load, save, to_proto
from onnxprune.typing import Array

MODEL, OUTPUT = "{model}", "{output}"
# A shell command, or a function from a ModelProto to the trained model.
OwnTrainer = str | Callable[[onnx.ModelProto], Any]
# File descriptor of the standard error: the standard output belongs to the report.
_STDERR = 2


@dataclass(frozen=True)
class UserTraining:
    """What trains a smaller model in place of our own steps.

    Attributes:
        spec: a shell command with `{model}` and `{output}` in it, which reads the one file and writes the other; or a
            function from a ModelProto to the trained model (anything that `load` takes).
    """

    spec: OwnTrainer

    def __post_init__(self) -> None:
        if isinstance(self.spec, str) and not (MODEL in self.spec and OUTPUT in self.spec):
            raise UsageError(
                f"--fine-tune-command {self.spec!r} does not say where {MODEL} and {OUTPUT} go",
                hint=f"write --fine-tune-command 'python ft.py {MODEL} {OUTPUT}'",
            )

    @property
    def name(self) -> str:
        """What people call it."""
        return self.spec if isinstance(self.spec, str) else getattr(self.spec, "__qualname__", repr(self.spec))

    def __call__(self, model: Model) -> Model:
        """Train a model.

        Args:
            model: the model; it is not changed.

        Returns:
            The same graph with the weights that came back.

        Raises:
            RunError: the command or the function fails.
            UsageError: what came back is another graph, or its weights have other shapes or are not finite.
        """
        if isinstance(self.spec, str):
            with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
                given, made = Path(folder) / "model.onnx", Path(folder) / "trained.onnx"
                save(model, given)
                self._run(self.spec, given, made)
                return self._taken(model, str(made))
        proto = onnx.ModelProto()
        proto.CopyFrom(to_proto(model))
        with script.guarded(self.name):
            found = self.spec(proto)
        if found is None:
            raise UsageError(f"{self.name} returned nothing", hint="return the trained model")
        return self._taken(model, found)

    def _run(self, command: str, given: Path, made: Path) -> None:
        words = command.replace(MODEL, shlex.quote(str(given))).replace(OUTPUT, shlex.quote(str(made)))
        code = subprocess.run(words, shell=True, stdout=_STDERR, check=False).returncode
        if code:
            raise RunError(f"{command}: exit code {code}", hint="what it printed says why")
        if not made.exists():
            raise RunError(f"{command}: it wrote no model", hint=f"it must write the trained model to {OUTPUT}")

    def _taken(self, model: Model, source: Any) -> Model:
        """The model with the weights of what came back."""
        try:
            found = load(source)
        except OnnxPruneError as error:
            raise UsageError(f"{self.name}: what came back is no model: {error.message}", hint=error.hint) from error
        if problem := graph_difference(model, found):
            raise UsageError(
                f"{self.name}: what came back is another model: {problem}",
                hint="change the values of weights, and leave names, shapes and nodes as they are",
            )
        values = _floats(found)
        odd = next((name for name, array in values.items() if not np.isfinite(array).all()), None)
        if odd is not None:
            raise UsageError(f"{self.name}: weight {odd!r} is not finite", hint="train with a lower rate")
        return write_back(model, values)


def graph_difference(one: Model, other: Model) -> str:
    """Say in what two models differ, but for the values of weights.

    Args:
        one: the model as it was.
        other: what may be the same model with other weights.

    Returns:
        The first difference; empty if there is none.
    """
    for what, first, second in (("inputs", _ends(one), _ends(other)), ("weights", _shapes(one), _shapes(other))):
        for name in dict.fromkeys((*first, *second)):
            was, now = first.get(name, "not there"), second.get(name, "missing")
            if was != now:
                return f"of its {what}, {name!r} is {now}, and was {was}"
    nodes, others = one.proto.graph.node, other.proto.graph.node
    if len(nodes) != len(others):
        return f"it has {len(others)} nodes, and had {len(nodes)}"
    for number, (node, changed) in enumerate(zip(nodes, others, strict=True)):
        if _plain(node) != _plain(changed):
            return f"node {number} is {changed.op_type} {changed.name!r}, and was {node.op_type} {node.name!r}"
    return ""


def _ends(model: Model) -> Mapping[str, str]:
    graph = model.proto.graph
    values = [*(v for v in graph.input if v.name not in model.initializers), *graph.output]
    return {v.name: TensorProto.DataType.Name(v.type.tensor_type.elem_type).lower() for v in values}


def _shapes(model: Model) -> Mapping[str, str]:
    kinds = TensorProto.DataType.Name
    return {n: f"{kinds(t.data_type).lower()} {list(t.dims)}" for n, t in model.initializers.items()}


def _plain(node: onnx.NodeProto) -> bytes:
    """A node without what says nothing; a constant of floats without its values."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.ClearField("doc_string")
    copy.ClearField("name")
    attributes = sorted(copy.attribute, key=lambda attribute: attribute.name)
    del copy.attribute[:]
    copy.attribute.extend(attributes)
    if _is_weight(copy):
        tensor = copy.attribute[0].t
        like = TensorProto(dims=tensor.dims, data_type=tensor.data_type)
        tensor.CopyFrom(like)
    return bytes(copy.SerializeToString(deterministic=True))


def _is_weight(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and node.attribute[0].HasField("t") and _is_float(node.attribute[0].t)


def _is_float(tensor: TensorProto) -> bool:
    return tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def _floats(model: Model) -> dict[str, Array]:
    """Weights in floats, in initializers and constants."""
    found = {name: model.array(tensor) for name, tensor in model.initializers.items() if _is_float(tensor)}
    constants = (n for n in model.proto.graph.node if not n.domain and _is_weight(n))
    return found | {node.output[0]: model.array(node.attribute[0].t) for node in constants}
