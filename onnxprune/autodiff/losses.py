"""Losses as nodes of the training graph. A loss takes the builder and the outputs, and returns one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.errors import ModelError

Loss = Callable[[GraphBuilder, Mapping[str, Value]], Value]


def _first(outputs: Mapping[str, Value], name: str | None) -> Value:
    return outputs[name] if name is not None else next(iter(outputs.values()))


def _average(value: Value) -> Value:
    return value.mean(range(value.rank)) if value.rank else value


def mse(output: str | None = None) -> Loss:
    """Mean squared error to the input `target` of the training graph.

    Args:
        output: name of the output; the first one if None.

    Returns:
        The loss.
    """

    def loss(graph: GraphBuilder, outputs: Mapping[str, Value]) -> Value:
        y = _first(outputs, output)
        error = y - graph.input("target", y.shape, y.dtype)
        return _average(error * error)

    return loss


def cross_entropy(output: str | None = None, *, axis: int = -1, from_logits: bool = True) -> Loss:
    """Cross-entropy to class numbers, the input `target` (int64, the output's shape without the class axis).

    A label of -1 is ignored (padding).

    Args:
        output: name of the output; the first one if None.
        axis: the axis of the classes.
        from_logits: whether the output holds logits; probabilities if not.

    Returns:
        The loss.
    """

    def loss(graph: GraphBuilder, outputs: Mapping[str, Value]) -> Value:
        y = _first(outputs, output)
        along = axis % y.rank
        classes = y.shape[along]
        target = graph.input("target", y.reduced_shape([along], keepdims=False), np.dtype(np.int64))
        kept = target.mask("GreaterOrEqual", 0).cast(y.dtype)
        logs = y.map("LogSoftmax", axis=along) if from_logits else (y + 1e-12).map("Log")
        order = [*(a for a in range(y.rank) if a != along), along]
        rows = logs.transpose(order).reshape([y.size // classes, classes])
        index = target.reshape([y.size // classes, 1])
        index = index.compare("Less", 0).where(index.like(0), index)
        picked = graph.op("GatherElements", rows, index, shape=[y.size // classes, 1], axis=1)
        weights = kept.reshape([y.size // classes, 1])
        count = weights.sum([0, 1])
        return -((picked * weights).sum([0, 1]) / count.graph.op("Max", count, count.like(1.0), shape=count.shape))

    return loss


def distillation(
    output: str | None = None, *, temperature: float = 1.0, axis: int = -1, teacher: str = "teacher"
) -> Loss:
    """Kullback-Leibler divergence from a teacher's logits at a temperature (Hinton et al. 2015).

    The loss is multiplied by the square of the temperature, so that gradients keep their size.

    Args:
        output: name of the output with the logits; the first one if None.
        temperature: divides both logits.
        axis: the axis of the classes.
        teacher: the input of the training graph that takes the teacher's logits.

    Returns:
        The loss.
    """

    def loss(graph: GraphBuilder, outputs: Mapping[str, Value]) -> Value:
        y = _first(outputs, output)
        along = axis % y.rank
        scale = 1 / temperature
        logits = graph.input(teacher, y.shape, y.dtype) * scale
        wanted = logits.map("Softmax", axis=along)
        difference = logits.map("LogSoftmax", axis=along) - (y * scale).map("LogSoftmax", axis=along)
        rows = y.size // y.shape[along]
        return (wanted * difference).sum(range(y.rank)) * (temperature**2 / rows)

    return loss


def relative_squares(names: Mapping[str, str] | None = None) -> Loss:
    """Squared error over the squared size of the teacher's outputs, the inputs `teacher/NAME`; the mean over outputs.

    Args:
        names: output -> what its teacher input is called; every output if None.

    Returns:
        The loss.
    """

    def loss(graph: GraphBuilder, outputs: Mapping[str, Value]) -> Value:
        wanted = dict(names) if names is not None else {name: f"teacher/{name}" for name in outputs}
        parts = []
        for name, source in wanted.items():
            y = outputs[name]
            teacher = graph.input(source, y.shape, y.dtype)
            error = y - teacher
            size = (teacher * teacher).sum(range(y.rank)) + float(np.finfo(np.float32).tiny)
            parts.append((error * error).sum(range(y.rank)) / size)
        return graph.total([p.reshape([]) for p in parts]) * (1 / len(parts))

    return loss


def projection() -> Loss:
    """Sum of every float output times an input `gradient/NAME`: its gradient is the vector-Jacobian product."""

    def loss(graph: GraphBuilder, outputs: Mapping[str, Value]) -> Value:
        parts = []
        for name, y in outputs.items():
            if y.dtype.kind == "f":
                weight = graph.input(f"gradient/{name}", y.shape, y.dtype)
                parts.append((y * weight).sum(range(y.rank)).reshape([]) if y.rank else y * weight)
        if not parts:
            raise ModelError("the model has no float output, so there is no gradient", hint="an id has no gradient")
        return graph.total([p.cast(parts[0].dtype) for p in parts])

    return loss
