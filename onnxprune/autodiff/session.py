"""Runs of a training graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import onnx

from onnxprune.autodiff.forward import single
from onnxprune.autodiff.straight_line import body_weights
from onnxprune.autodiff.training_graph import TrainingGraph, forward_only
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.runtime import Deployed, Setting
from onnxprune.typing import Array


@dataclass(frozen=True)
class StepResult:
    """What one run of a training graph gives.

    Attributes:
        loss: the loss.
        gradients: parameter -> gradient, of the parameter's shape.
        taps: tensor -> sums of activation times gradient, [batch, channels].
    """

    loss: float
    gradients: Mapping[str, Array]
    taps: Mapping[str, Array]


class GradientSession:
    """A training graph that is ready to run; closes its temporary files on exit."""

    def __init__(self, graph: TrainingGraph, setting: Setting | None = None) -> None:
        """Prepare a training graph.

        Args:
            graph: the training graph.
            setting: what it runs on; all cores of the CPU if None.

        Raises:
            RunError: the runtime refuses the graph.
        """
        self.graph, self._setting = graph, setting or Setting()
        self._forward: Deployed | None = None
        # Freed memory is worth more than the two percent of time that a fixed plan of it saves.
        self._session = Deployed(Model(graph.model), self._setting, memory_pattern=False)

    def evaluate(self, feeds: Mapping[str, Array], parameters: Mapping[str, Array]) -> StepResult:
        """Run forward and backward.

        Args:
            feeds: inputs of the model and of the loss.
            parameters: name -> present elements of every trainable initializer.

        Raises:
            UsageError: an input is missing.
            RunError: the runtime fails.
        """
        graph = self.graph
        names = [graph.loss, *graph.gradients.values(), *graph.taps.values()]
        results = self._session.run(self._fed(self._session, feeds, parameters), names)
        gradients = dict(zip(graph.gradients, results[1:], strict=False))
        taps = dict(zip(graph.taps, results[1 + len(gradients) :], strict=True))
        return StepResult(float(results[0]), gradients, taps)

    def vjp(
        self, feeds: Mapping[str, Array], gradients: Mapping[str, Array], parameters: Mapping[str, Array]
    ) -> Mapping[str, Array]:
        """Take gradients of the outputs back to the parameters; the graph is one of `build_vjp`.

        Args:
            feeds: inputs of the model.
            gradients: output of the model -> gradient of a loss by it; zeros for outputs that are left out.
            parameters: name -> present elements of the trainable initializers; those of the model for others.

        Returns:
            Parameter -> gradient, of the parameter's shape.

        Raises:
            UsageError: an input is missing, or a gradient is of no float output or of another shape.
            RunError: the runtime fails.
        """
        given = {f"gradient/{name}": np.asarray(array) for name, array in gradients.items()}
        for name, array in given.items():
            output = name.removeprefix("gradient/")
            if name not in self.graph.targets:
                raise UsageError(f"{output!r} is no float output of the graph", hint="name outputs of the model")
            shape = self.graph.targets[name][0]
            if array.shape != shape:
                message = f"the gradient of {output!r} has shape {list(array.shape)}, and the output {list(shape)}"
                raise UsageError(message, hint="give one number for each element of the output")
        zeros = {n: np.zeros(shape, kind) for n, (shape, kind) in self.graph.targets.items()}
        cast = {n: array.astype(self.graph.targets[n][1]) for n, array in given.items()}
        return self.evaluate({**feeds, **zeros, **cast}, parameters).gradients

    def loss(self, feeds: Mapping[str, Array], parameters: Mapping[str, Array]) -> float:
        """Run forward alone.

        Args:
            feeds: inputs of the model and of the loss.
            parameters: name -> present elements of every trainable initializer.

        Raises:
            UsageError: an input is missing.
            RunError: the runtime fails.
        """
        if self._forward is None:
            self._forward = Deployed(Model(forward_only(self.graph)), self._setting, memory_pattern=False)
        return float(self._forward.run(self._fed(self._forward, feeds, parameters))[0])

    def _fed(self, session: Deployed, feeds: Mapping[str, Array], parameters: Mapping[str, Array]) -> dict[str, Array]:
        """All inputs of a graph."""
        given = {**{k: single(np.asarray(v)) for k, v in feeds.items()}, **self.graph.parameters, **parameters}
        missing = session.inputs - given.keys()
        if missing:
            raise UsageError(f"input {min(missing)!r} is not fed", hint="feed the inputs of the model and of the loss")
        return {name: given[name] for name in session.inputs}

    def close(self) -> None:
        """Remove temporary files."""
        for session in (self._session, self._forward):
            if session is not None:
                session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def write_back(model: Model, parameters: Mapping[str, Array]) -> Model:
    """Return a model with other elements in its initializers and Constant nodes; everything else stays as it is.

    Args:
        model: the model.
        parameters: name -> elements, of the shape that the model has; converted to the type that it has.

    Returns:
        A model that shares everything else with the one that was given.

    Raises:
        UsageError: the model has no tensor of a name, or one of another shape.
    """
    values: dict[str, Any] = dict(model.values)
    left = dict(parameters)
    for tensor in model.proto.graph.initializer:
        if tensor.name in left:
            elements = _fitting(left.pop(tensor.name), tuple(tensor.dims), tensor)
            values[tensor.name] = lambda array=elements: array
    proto = model.proto
    if left:
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        stored = {name: weight.tensor for name, weight in body_weights(proto.graph).items()}
        for node in proto.graph.node:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                stored[node.output[0]] = node.attribute[0].t
        for name in left.keys() & stored.keys():
            tensor = stored[name]
            elements = _fitting(left.pop(name), tuple(tensor.dims), tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(elements, tensor.name))
    if left:
        raise UsageError(f"the model has no weight {next(iter(left))!r}", hint="the parameters are of another model")
    return replace(model, proto=proto, values=values)


def _fitting(array: Array, shape: tuple[int, ...], tensor: onnx.TensorProto) -> Array:
    if array.shape != shape:
        message = f"weight {tensor.name!r} has shape {list(shape)}, not {list(array.shape)}"
        raise UsageError(message, hint="the parameters are of another model")
    return np.ascontiguousarray(array.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))).reshape(shape)
