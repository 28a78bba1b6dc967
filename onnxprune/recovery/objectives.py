"""Training objectives: samples to train on, samples that judge, and a loss."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.autodiff import Loss, cross_entropy, mse
from onnxprune.calibration import Feeds
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.recovery.augment import augmented
from onnxprune.recovery.distill import (
    ANSWER,
    check_answers,
    distilled,
    part_size,
    probability_axis,
    sample_count,
    to_answers,
)
from onnxprune.recovery.examples import Examples, examples_of
from onnxprune.recovery.intermediate import with_intermediate, with_tensors
from onnxprune.recovery.training_options import CROSS_ENTROPY, DISTIL, MSE, TrainingOptions
from onnxprune.runtime import Session
from onnxprune.typing import Array, Runs


@dataclass(frozen=True, eq=False)
class Objective:
    """What is learned from.

    Attributes:
        fitting: samples to train on: inputs, and all that the loss takes; or what `complete` takes.
        held: samples that judge, as the training graph takes them.
        loss: the loss.
        name: what the loss is called.
        complete: adds what the loss takes to a batch of `fitting`; None where it is there.
        size: what a part of a batch counts for in the mean over parts that the loss of the batch is; where the loss is
            a mean over several outputs, that is the number of samples, and the mean over parts is near the loss.
    """

    fitting: Examples
    held: Examples
    loss: Loss
    name: str
    complete: Callable[[Feeds], Feeds] | None = None
    size: Callable[[Feeds], float] = sample_count

    def held_loss(self, loss: Callable[[Feeds], float]) -> float:
        """The mean loss of all held-out samples, by the loss of a batch."""
        losses = [(loss(feeds), count) for feeds, count in self.held.in_order()]
        return sum(found * count for found, count in losses) / sum(count for _, count in losses)

    def kinds(self) -> Iterator[Feeds]:
        """A batch of every shape, with all that the loss takes."""
        for feeds in self.fitting.kinds():
            yield feeds if self.complete is None else self.complete(feeds)

    def batch(self, number: int, options: TrainingOptions) -> Feeds:
        """The batch of a number, transformed, with all that the loss takes."""
        feeds: Feeds = self.fitting.draw(number, options.seed)
        if options.augment:
            feeds = augmented(feeds, options.augment, np.random.default_rng([options.seed, number, 1]))
        return feeds if self.complete is None else self.complete(feeds)


# The input of a training graph that takes labels.
TARGET = "target"
# Bytes of a teacher's answers that are kept, and of the free disk where they lie; beyond, they are computed again for
# every batch.
MOST_KEPT, MOST_OF_DISK = 8 << 30, 0.5
# Samples of a batch that judges, where the model leaves that open.
_JUDGING = 256


def from_teacher(
    model: Model,
    runs: tuple[Runs, Runs],
    options: TrainingOptions,
    answers: Callable[[Feeds], Mapping[str, Array]],
    *,
    adapt: Callable[[Feeds], Feeds] | None = None,
    inside: Sequence[str] = (),
) -> Objective:
    """Make the objective of imitating another model on unlabelled inputs.

    Args:
        model: the model that learns.
        runs: inputs of the teacher to train on, and others that judge.
        options: how to train.
        answers: the teacher.
        adapt: the model's inputs for the teacher's, where these differ.
        inside: tensors that shall be the teacher's, too; it gives them beside its outputs.

    Returns:
        Samples, a loss, and what the teacher adds.

    Raises:
        UsageError: the outputs of the teacher, or the tensors inside, are not those of the model.
    """

    def complete(feeds: Feeds) -> dict[str, Array]:
        return {**(feeds if adapt is None else adapt(feeds)), **answers(feeds)}

    fitting, judging = examples_of(runs[0], model, options.batch), examples_of(runs[1], model, _JUDGING)
    feeds = fitting.draw(0, options.seed)
    given = feeds if adapt is None else adapt(feeds)
    replies, outputs = answers(feeds), _outputs(with_tensors(model, inside), given)
    _check_padding(options.padding or "", options.loss, given, outputs)
    _check_inside(inside, replies, outputs)
    check_answers(replies, {name: array.shape for name, array in outputs.items()})
    size = sum(replies[f"{ANSWER}{name}"].nbytes for name in outputs) * fitting.count // fitting.per_batch
    replies = {f"{ANSWER}{name}": replies[f"{ANSWER}{name}"] for name in outputs if name not in inside}
    loss: Loss
    counted: Callable[[Feeds], float] = sample_count
    if callable(options.loss):
        loss, name = options.loss, _name(options.loss)
    elif options.loss == MSE:
        loss, name = to_answers(), MSE
    else:
        loss, name = distilled(replies, options.temperature, options.padding or ""), DISTIL
        counted = sample_count if inside else part_size(replies, options.temperature, options.padding or "")
    loss = with_intermediate(loss, {name: f"{ANSWER}{name}" for name in inside})
    held = judging.completed(complete)
    if held is None:
        held, size = _in_whole_runs(runs[1], complete), 0
    kept = None if options.augment or not 0 < size <= _room() else fitting.completed(complete)
    return Objective(kept or fitting, held, loss, name, complete=None if kept else complete, size=counted)


def _room() -> float:
    """Bytes that a teacher's answers may take."""
    return min(MOST_KEPT, MOST_OF_DISK * shutil.disk_usage(tempfile.gettempdir()).free)


def _check_inside(inside: Sequence[str], replies: Mapping[str, Array], made: Mapping[str, Array]) -> None:
    for name in inside:
        reply = replies.get(f"{ANSWER}{name}")
        if name not in made or reply is None:
            raise UsageError(f"--intermediate: tensor {name!r} does not hold floats", hint="name one that does")
        if reply.shape != made[name].shape:
            raise UsageError(
                f"--intermediate: tensor {name!r} is {list(made[name].shape)}, the teacher's {list(reply.shape)}",
                hint="name one that was not cut, or train with `prune --train`, which knows what was cut",
            )


def _in_whole_runs(runs: Runs, complete: Callable[[Feeds], Feeds]) -> Examples:
    """Runs that judge, each as it is: what the teacher answers cannot be cut into samples."""
    return Examples.whole([complete(run) for run in runs])


def from_labels(model: Model, runs: tuple[Runs, Runs], options: TrainingOptions, labels: str) -> Objective:
    """Make the objective of giving the outputs that the data names.

    Args:
        model: the model that learns.
        runs: inputs with labels to train on, and others that judge.
        options: how to train.
        labels: what the labels are called in the data.

    Returns:
        Samples and a loss.

    Raises:
        UsageError: a label is no class, or labels have other shapes than the outputs; or samples are blended.
    """
    if "mixup" in options.augment:
        raise UsageError(
            "mixup needs a teacher: a blend of two samples has no label", hint="add --teacher, or leave it out"
        )
    parts = tuple([_renamed(run, labels, options.padding or "") for run in part] for part in runs)
    first = {name: array for name, array in parts[0][0].items() if name != TARGET}
    output, array = next(iter(_outputs(model, first).items()), ("", np.zeros(0)))
    if not output:
        raise UsageError("the model has no float output to learn", hint="an output that is an id has no gradient")
    loss: Loss
    if callable(options.loss):
        loss, name = options.loss, _name(options.loss)
    elif options.loss == MSE:
        loss, name = mse(output), MSE
    else:
        axis = class_axis(array.ndim)
        for run in (*parts[0], *parts[1]):
            _check_labels(run[TARGET], array.shape[axis], labels)
        _check_shape(parts[0][0][TARGET], [n for a, n in enumerate(array.shape) if a != axis % array.ndim], labels)
        is_probability = probability_axis(array) is not None and bool(array.min() >= 0)
        loss, name = cross_entropy(output, axis=axis, from_logits=not is_probability), CROSS_ENTROPY
    size = sample_count if name != CROSS_ENTROPY else _label_count
    fitting, judging = examples_of(parts[0], model, options.batch), examples_of(parts[1], model, _JUDGING)
    return Objective(fitting, judging, loss, name, size=size)


def _label_count(feeds: Feeds) -> float:
    """How many labels count."""
    return float((feeds[TARGET] >= 0).sum())


def class_axis(rank: int) -> int:
    """Find the axis of the classes in an output of so many axes.

    Returns:
        1 for maps of pixels, whose channels come first; else the last.
    """
    return 1 if rank > 3 else -1


def _renamed(run: Feeds, labels: str, padding: str) -> dict[str, Array]:
    """The run with its labels as a target; -1, which does not count, where positions are padding."""
    found = {TARGET if name == labels else name: array for name, array in run.items()}
    if padding:
        mask, target = run.get(padding), found[TARGET]
        if mask is None or mask.shape != target.shape or target.dtype.kind != "i":
            raise UsageError(
                f"--padding-mask: {padding!r} is no input with the axes of the class numbers", hint="leave it out"
            )
        found[TARGET] = np.where(mask > 0, target, -1)
    return found


def _check_padding(padding: str, loss: object, feeds: Feeds, outputs: Mapping[str, Array]) -> None:
    if not padding:
        return
    if loss == MSE:
        raise UsageError("--padding-mask: mse to a teacher takes outputs as they are", hint="take --loss distil")
    if padding not in feeds:
        raise UsageError(
            f"--padding-mask: the model has no input {padding!r}", hint=f"its inputs: {', '.join(sorted(feeds))}"
        )
    shape = np.shape(feeds[padding])
    if not any(array.shape[: len(shape)] == shape for array in outputs.values()):
        raise UsageError(
            f"--padding-mask: no output begins with the axes of {padding!r}, {list(shape)}",
            hint="outputs for whole samples have no padding: leave it out",
        )


def _check_labels(found: Array, classes: int, name: str) -> None:
    low, high = (int(found.min()), int(found.max())) if found.size else (0, 0)
    if low < -1 or high >= classes:
        raise UsageError(
            f"labels {name!r} go from {low} to {high}, the model has {classes} classes",
            hint=f"labels are class numbers from 0 to {classes - 1}, or -1 for what does not count",
        )


def _check_shape(found: Array, wanted: Sequence[int], name: str) -> None:
    if list(found.shape) != list(wanted):
        raise UsageError(
            f"labels {name!r} have shape {list(found.shape)} where the output wants {list(wanted)}",
            hint="one class number for each row of classes",
        )


def _outputs(model: Model, feeds: Feeds) -> dict[str, Array]:
    """Float outputs of a model."""
    with Session(model) as session:
        found = zip(session.outputs, session.run(feeds), strict=True)
        return {n: a for n, a in found if isinstance(a, np.ndarray) and a.dtype.kind == "f"}


def _name(loss: Loss) -> str:
    return str(getattr(loss, "__qualname__", type(loss).__qualname__))
