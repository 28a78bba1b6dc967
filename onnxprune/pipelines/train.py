"""Train a loaded model: read the data, make the objective, take gradient steps."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune import calibration
from onnxprune.calibration import Feeds, digest, wanted_by
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.pipelines.wanted_labels import wanted_labels
from onnxprune.recovery import (
    CROSS_ENTROPY,
    DISTIL,
    MSE,
    Masks,
    Objective,
    RecoveryOptions,
    Teacher,
    Thinning,
    Training,
    TrainingOptions,
    fine_tune_model,
    from_labels,
    from_teacher,
    held_out,
    matching_tensors,
    with_masters,
)
from onnxprune.rewriting import Removal, io_changes
from onnxprune.runtime import Session
from onnxprune.typing import Array

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """What a model learns from.

    Attributes:
        data: inputs (see `calibration.read`), with labels if there is no teacher.
        samples: how many of them to use.
        sizes: numbers for symbolic dims.
        labels: name of the labels in the data, "folder" for the folders that pictures lie in, or FILE.csv:COLUMN
            (.jsonl, too); there are none if None.
        teacher: the model whose outputs are learned; none if None.
    """

    data: Any
    samples: int = 256
    sizes: Mapping[str, int] | None = None
    labels: str | None = None
    teacher: Model | None = None

    def loss_of(self, options: TrainingOptions) -> str:
        """The name of the loss, or "" for one of the user's own.

        Raises:
            UsageError: there is nothing to learn from, or not what the loss needs.
        """
        if self.teacher is None and self.labels is None:
            raise UsageError(
                "there is nothing to learn from: neither a teacher nor labels",
                hint="add --teacher ORIGINAL (no labels are needed), or --labels KEY",
            )
        if callable(options.loss):
            return ""
        loss = options.loss or (DISTIL if self.teacher is not None else CROSS_ENTROPY)
        if options.intermediate and (self.teacher is None or loss == CROSS_ENTROPY):
            raise UsageError("--intermediate: tensors are a teacher's", hint="add --teacher ORIGINAL, and no --labels")
        if loss == DISTIL and self.teacher is None:
            raise UsageError("distillation needs a teacher", hint="add --teacher ORIGINAL")
        if loss == CROSS_ENTROPY and self.labels is None:
            raise UsageError("cross-entropy needs labels", hint="add --labels KEY, the name of the labels in the data")
        if options.temperature is not None and loss != DISTIL:
            raise UsageError(f"--temperature has no effect: {loss} takes outputs as they are", hint="leave it out")
        if self.teacher is not None and self.labels is not None and loss != CROSS_ENTROPY:
            raise UsageError(f"{loss} learns from labels or from a teacher, not both", hint="leave one of them out")
        return loss


def learn(
    model: Model,
    data: TrainingData,
    options: TrainingOptions,
    *,
    masks: Mapping[str, Array] | None = None,
    progress: Callable[[str], None] = logger.info,
) -> tuple[Model, Training]:
    """Train a model; it never ends worse on held-out samples than it began.

    Args:
        model: the model; it is not changed.
        data: what it learns from.
        options: how to train.
        masks: initializer -> boolean array, false for elements that are zero and stay so.
        progress: is told about every stage.

    Returns:
        The model with other weights, and what was done.

    Raises:
        ModelError: no weight can be trained, or an operator has no gradient.
        RunError: the loss is not finite, or the runtime fails.
        UsageError: the data, the teacher or the labels do not fit the model.
    """
    if options.while_training:
        raise UsageError(f"{options.while_training} is for `prune` and `sparsify`: training alone removes nothing")
    loss = data.loss_of(options)
    if data.teacher is not None:
        _check_teacher(model, data.teacher)
    progress("reading the data")
    also = (
        []
        if data.labels is None or loss == DISTIL
        else [wanted_labels(model, data.labels, data.data, of_numbers=loss == MSE)]
    )
    runs = calibration.read(data.data, model, samples=data.samples, sizes=data.sizes, also=also)
    _check_count(runs)
    parts = held_out(runs)
    if options.saving is not None:
        learned = "" if data.teacher is None else data.teacher.digest
        options = options.belonging_to(f"{model.digest} {learned} {digest(runs)}")
    with contextlib.ExitStack() as stack:
        if data.teacher is not None and loss != CROSS_ENTROPY:
            inside = matching_tensors(model, data.teacher, options.intermediate)
            teacher = Teacher(data.teacher, setting=options.setting, inside=inside)
            stack.callback(teacher.close)
            objective: Objective = from_teacher(model, parts, options, teacher, inside=inside)
        else:
            assert data.labels is not None
            objective = from_labels(model, parts, options, data.labels)
        return fine_tune_model(model, objective, options, masks=masks, progress=progress)


def learn_after(
    removal: Removal,
    small: Model,
    runs: Sequence[Feeds],
    options: TrainingOptions,
    *,
    masks: Masks | Thinning | None = None,
    progress: Callable[[str], None] = logger.info,
) -> tuple[Model, Training]:
    """Train a smaller model towards the outputs of the original that it was cut from.

    Args:
        removal: what was removed, with the traced original.
        small: the smaller model.
        runs: inputs of the original; those that judge a recovery are not trained on.
        options: how to train.
        masks: elements that stay zero, or what makes the model sparser while it trains.
        progress: is told about every judgement.

    Returns:
        The smaller model with other weights, and what was done.

    Raises:
        ModelError: no weight can be trained, or an operator has no gradient.
        RunError: the loss is not finite.
        UsageError: there are fewer than two runs.
    """
    _check_count(runs)

    def answers(session: Session, feeds: Feeds) -> Sequence[Array]:
        return io_changes.outputs(removal, session.outputs, session.run(feeds))

    original = removal.groups.model
    inside = matching_tensors(small, original, options.intermediate)
    with contextlib.closing(Teacher(original, setting=options.setting, answers=answers, inside=inside)) as teacher:
        parts = held_out(runs)
        objective = from_teacher(
            small, parts, options, teacher, adapt=lambda feeds: io_changes.feeds(removal, feeds), inside=inside
        )
        return fine_tune_model(small, objective, options, masks=masks, progress=progress)


def train_after(
    removal: Removal,
    small: Model,
    runs: Sequence[Feeds],
    recovery: RecoveryOptions,
    *,
    progress: Callable[[str], None] = logger.info,
) -> tuple[Model, Training | None]:
    """Train a smaller model by our steps, or by the user's own training.

    Args:
        removal: what was removed, with the traced original.
        small: the smaller model.
        runs: inputs of the original; the user's own training needs none.
        recovery: how to train.
        progress: is told about every judgement.

    Returns:
        The smaller model with other weights, and what our steps did; None if there were none.
    """
    if recovery.tune is not None:
        progress("training by your own command or function")
        return recovery.tune(small), None
    if recovery.train is None:
        return small, None
    return learn_after(removal, small, runs, recovery.train, progress=progress)


def _check_count(runs: Sequence[Feeds]) -> None:
    if len(runs) < 2:
        raise UsageError("the data is one batch, which cannot train and judge", hint="give more samples")


def _check_teacher(model: Model, teacher: Model) -> None:
    """Refuse a teacher that takes other inputs; those that the model lacks are refused where they are fed.

    Raises:
        UsageError: the type, the number of axes, or a fixed axis behind the batch of an input differs.
    """
    wanted = wanted_by(model)
    for name, asked in wanted_by(teacher).items():
        own = wanted.get(name, asked)
        axes = zip(own.dims[1:], asked.dims[1:], strict=False)
        differs = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in axes)
        if own.dtype != asked.dtype or len(own.dims) != len(asked.dims) or differs:
            raise UsageError(
                f"the teacher wants {asked}, the model {own}", hint="--teacher is the model that this one was made from"
            )


def zero_masks(model: Model) -> dict[str, Array]:
    """Masks of all weights that have zeros, false where an element is zero; of whole numbers, at the zero point."""
    model = with_masters(model).model
    arrays = {name: model.array(tensor) for name, tensor in model.initializers.items()}
    return {name: array != 0 for name, array in arrays.items() if array.dtype.kind == "f" and not array.all()}
