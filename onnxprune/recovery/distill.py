"""Distillation: the outputs of a teacher, and the loss that draws a model's outputs to them.

Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015; on logits as they are: Ba and
Caruana, "Do deep nets really need to be deep?", 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxprune.autodiff import GraphBuilder, Loss, Value, distillation, relative_squares
from onnxprune.calibration import Feeds, fixed_batch, is_batched
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.recovery.intermediate import with_tensors
from onnxprune.runtime import CPU_PROVIDER, Deployed, Session, Setting
from onnxprune.typing import Array

# Largest difference from 1 of what still are probabilities of all classes.
_ROUNDING = 1e-3
# How an input of the training graph is called that takes an output of the teacher.
ANSWER = "teacher/"
Answers = Callable[[Feeds], Mapping[str, Array]]


class Teacher:
    """A model that answers what another one is to learn; closes its temporary files on exit."""

    def __init__(
        self,
        model: Model,
        *,
        setting: Setting | None = None,
        answers: Callable[[Session, Feeds], Sequence[Array]] | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        """Prepare a teacher.

        Args:
            model: the model that answers.
            setting: what it runs on; all cores of the CPU if None.
            inside: tensors that it gives beside its outputs.
            answers: from its session and feeds to its outputs, where they are not simply those of a run.
        """
        whole, setting = with_tensors(model, inside), setting or Setting()
        is_cpu = setting.provider == CPU_PROVIDER
        self._session = Session(whole, threads=setting.threads) if is_cpu else Deployed(whole, setting)
        self._model, self._fixed = model, fixed_batch(model)
        self._answers = answers or (lambda session, feeds: session.run(feeds))

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        """Float outputs for these inputs, as inputs `teacher/NAME` of a training graph.

        Raises:
            UsageError: the teacher has an input that is not there.
        """
        if missing := self._session.inputs - feeds.keys():
            raise UsageError(
                f"the teacher has an input {min(missing)!r}, which the model does not have",
                hint="--teacher is the model that this one was made from",
            )
        feeds = {name: array for name, array in feeds.items() if name in self._session.inputs}
        parts = [self._answers(self._session, part) for part in self._parts(feeds)]
        found = zip(self._session.outputs, *parts, strict=True)
        count = len(next(iter(feeds.values()))) if len(parts) > 1 else None
        return {
            f"{ANSWER}{name}": np.concatenate(arrays)[:count] if len(arrays) > 1 else arrays[0]
            for name, *arrays in found
            if isinstance(arrays[0], np.ndarray) and arrays[0].dtype.kind == "f"
        }

    def _parts(self, feeds: Feeds) -> list[Feeds]:
        """The feeds in batches that the model takes; the last one is filled up by its first sample."""
        total = len(next(iter(feeds.values()))) if is_batched(self._model, [feeds]) else None
        if self._fixed is None or total is None or total == self._fixed:
            return [feeds]
        starts = range(0, total, self._fixed)
        rows = [np.minimum(np.arange(s, s + self._fixed), total - 1) for s in starts]
        return [{name: a[r] for name, a in feeds.items()} for r in rows]

    def close(self) -> None:
        """Remove temporary files."""
        self._session.close()


def distilled(answers: Mapping[str, Array], temperature: float | None = None, padding: str = "") -> Loss:
    """Choose the loss that draws outputs to a teacher's.

    Outputs that are probabilities, or logarithms of them, get the divergence of the distributions. All others get the
    squared error relative to the teacher's outputs: whether numbers are logits, which may be shifted, a graph does not
    tell. With a temperature, outputs with two axes and more are taken for logits.

    Args:
        answers: `teacher/NAME` -> a teacher's outputs for some inputs.
        temperature: divides logits; outputs are no logits if None.
        padding: an input of the model that is zero where positions do not count; none if empty.
    """
    parts: list[Loss] = []
    squares: list[str] = []
    for key, array in answers.items():
        name = key.removeprefix(ANSWER)
        axis = probability_axis(array)
        if axis is not None:
            parts.append(_divergence(name, axis, padding, are_logs=bool(array.min() < 0)))
        elif temperature is not None and _has_classes(array):
            parts.append(_at_temperature(name, temperature, padding))
        else:
            squares.append(name)
    if squares:
        parts.append(_relative_squares(squares, padding))

    def loss(graph: GraphBuilder, outputs: Mapping[str, Value]) -> Value:
        return graph.total([part(graph, outputs).reshape([]) for part in parts])

    return loss


def sample_count(feeds: Feeds) -> float:
    """How many samples there are."""
    return float(len(next(iter(feeds.values()))))


def part_size(answers: Mapping[str, Array], temperature: float | None, padding: str) -> Callable[[Feeds], float]:
    """Choose what a part of a batch counts for in the mean that `distilled` is: its rows, or the size of its answers.

    Args:
        answers: `teacher/NAME` -> a teacher's outputs for some inputs.
        temperature: as for `distilled`.
        padding: as for `distilled`.

    Returns:
        A function of a part with its answers; the number of samples where there are several outputs.
    """
    if len(answers) != 1:
        return sample_count
    ((key, array),) = answers.items()
    is_rows = probability_axis(array) is not None or (temperature is not None and _has_classes(array))

    def size(feeds: Feeds) -> float:
        answer, mask = feeds[key], feeds.get(padding)
        if mask is None or mask.shape != answer.shape[: mask.ndim]:
            mask = np.ones(answer.shape[:1])
        counts = mask > 0
        if is_rows:
            return float(counts.sum())
        squares = np.square(answer, dtype=np.float64)
        return float((squares * counts.reshape(*counts.shape, *[1] * (squares.ndim - counts.ndim))).sum())

    return size


def _has_classes(array: Array) -> bool:
    return array.ndim > 1 and array.shape[-1] > 1


def not_padding(graph: GraphBuilder, y: Value, padding: str) -> Value | None:
    """Ones and zeros, broadcastable to an output, where it counts; None if all of it does.

    Args:
        graph: the training graph.
        y: the output.
        padding: an input whose axes are the first ones of the output; the output counts whole if they are not.
    """
    mask = graph.values.get(padding)
    if mask is None or mask.shape != y.shape[: mask.rank]:
        return None
    return mask.cast(y.dtype).mask("Greater", 0).reshape([*mask.shape, *[1] * (y.rank - mask.rank)])


def probability_axis(array: Array) -> int | None:
    """The axis along which elements, or their exponentials, are probabilities; None if there is none."""
    if array.ndim < 2 or not array.size or not np.isfinite(array).all():
        return None
    values = array.astype(np.float64)
    for axis in dict.fromkeys((array.ndim - 1, 1)):
        if array.shape[axis] > 1:
            for shares in (values, np.exp(np.minimum(values, 1))):
                if (shares >= 0).all() and np.allclose(shares.sum(axis=axis), 1, atol=_ROUNDING):
                    return axis
    return None


def _divergence(name: str, axis: int, padding: str, *, are_logs: bool) -> Loss:
    """Kullback-Leibler divergence of an output that holds probabilities from the teacher's."""

    def loss(graph: GraphBuilder, outputs: Mapping[str, Value]) -> Value:
        y = outputs[name]
        teacher = graph.input(f"{ANSWER}{name}", y.shape, y.dtype)
        logs, wanted = (v if are_logs else (v + 1e-12).map("Log") for v in (y, teacher))
        shares = teacher.map("Exp") if are_logs else teacher
        return _mean_of_rows(graph, shares * (wanted - logs), axis, padding)

    return loss


def _at_temperature(name: str, temperature: float, padding: str) -> Loss:
    """Kullback-Leibler divergence from a teacher's logits at a temperature (see `autodiff.distillation`)."""
    if not padding:
        return distillation(name, temperature=temperature, teacher=f"{ANSWER}{name}")

    def loss(graph: GraphBuilder, outputs: Mapping[str, Value]) -> Value:
        y, scale = outputs[name], 1 / temperature
        logits = graph.input(f"{ANSWER}{name}", y.shape, y.dtype) * scale
        difference = logits.map("LogSoftmax", axis=-1) - (y * scale).map("LogSoftmax", axis=-1)
        mean = _mean_of_rows(graph, logits.map("Softmax", axis=-1) * difference, y.rank - 1, padding)
        return mean * temperature**2

    return loss


def _relative_squares(names: Sequence[str], padding: str) -> Loss:
    """Squared error over the squared size of the teacher's outputs; the mean over outputs."""
    if not padding:
        return relative_squares({name: f"{ANSWER}{name}" for name in names})

    def loss(graph: GraphBuilder, outputs: Mapping[str, Value]) -> Value:
        parts = []
        for name in names:
            y = outputs[name]
            teacher, counts = graph.input(f"{ANSWER}{name}", y.shape, y.dtype), not_padding(graph, y, padding)
            error = y - teacher if counts is None else (y - teacher) * counts
            size = teacher if counts is None else teacher * counts
            whole = (size * size).sum(range(y.rank)) + float(np.finfo(np.float32).tiny)
            parts.append(((error * error).sum(range(y.rank)) / whole).reshape([]))
        return graph.total(parts) * (1 / len(parts))

    return loss


def _mean_of_rows(graph: GraphBuilder, terms: Value, axis: int, padding: str) -> Value:
    """The sums of terms along an axis; their mean over all rows that count."""
    counts, rows = not_padding(graph, terms, padding), terms.size // terms.shape[axis]
    if counts is None:
        return terms.sum(range(terms.rank)) * (1 / rows)
    number = counts.sum(range(counts.rank)) * (rows / counts.size)
    return (terms * counts).sum(range(terms.rank)) / graph.op("Max", number, number.like(1.0), shape=number.shape)


def to_answers() -> Loss:
    """Mean squared error of all outputs to a teacher's, as they are."""

    def loss(graph: GraphBuilder, outputs: Mapping[str, Value]) -> Value:
        errors = [y - graph.input(f"{ANSWER}{n}", y.shape, y.dtype) for n, y in outputs.items() if y.dtype.kind == "f"]
        means = [(e * e).mean(range(e.rank)) if e.rank else e * e for e in errors]
        return graph.total([m.reshape([]) for m in means]) * (1 / len(means))

    return loss


def check_answers(answers: Mapping[str, Array], outputs: Mapping[str, Sequence[int]]) -> None:
    """Refuse a teacher whose outputs are not those of the model.

    Args:
        answers: `teacher/NAME` -> array.
        outputs: float output of the model -> its shape for the same inputs.

    Raises:
        UsageError: an output is missing, or has another shape.
    """
    known = {key.removeprefix(ANSWER): list(array.shape) for key, array in answers.items()}
    for name, shape in outputs.items():
        if name not in known:
            raise UsageError(
                f"the teacher has no output {name!r}: it has {', '.join(map(repr, known)) or 'no float outputs'}",
                hint="--teacher is the model that this one was made from",
            )
        if known[name] != list(shape):
            raise UsageError(
                f"output {name!r} has shape {list(shape)}, the teacher's has {known[name]}",
                hint="--teacher is the model that this one was made from",
            )
    if not outputs:
        raise UsageError("the model has no float output to learn", hint="an output that is an id has no gradient")
