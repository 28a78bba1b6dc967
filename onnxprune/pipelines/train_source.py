"""Train any source of a model, and give back the same kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from onnxprune.keywords import TrainingKeywords, accepts_synonyms, check_keywords
from onnxprune.model import load, same_kind
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.progress import Progress, shown
from onnxprune.recovery import Training, TrainingOptions
from onnxprune.shown import Shown
from onnxprune.typing import Array


@dataclass(frozen=True, repr=False)
class TrainResult(Shown):
    """What `train` returns.

    Attributes:
        model: the trained model, of the kind that was given (a ModelProto for a path or bytes).
        report: losses before and after, the learning rate, and the course of the run.

    Example:
        >>> import onnxprune
        >>> small = onnxprune.prune("models/digits.onnx", 0.5).model
        >>> data = "models/digits_calibration.npz"
        >>> result = onnxprune.train(small, data, 2, teacher="models/digits.onnx", samples=64)
        >>> type(result.model).__name__
        'ModelProto'
    """

    model: Any
    report: Training


@accepts_synonyms(TrainingKeywords)
def train(
    source: Any,
    data: Any,
    steps: int,
    *,
    teacher: Any = None,
    labels: str | None = None,
    samples: int = 256,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    masks: Mapping[str, Array] | None = None,
    progress: Progress | bool = False,
    **options: Unpack[TrainingKeywords],
) -> TrainResult:
    """Train a model by gradient steps; on held-out samples it never ends worse than it began.

    Args:
        source: a path, bytes, a ModelProto, or what else `model.load` takes.
        data: inputs (see `calibration.read`), with labels unless there is a teacher.
        steps: changes of the weights.
        teacher: the model whose outputs are learned, usually the original; any source of a model.
        labels: name of the labels in the data, for cross-entropy or a squared error.
        samples: how many samples to use; a tenth of them judges.
        shapes: of inputs, as for `prune`.
        masks: initializer -> boolean array, false for elements that are zero and stay so.
        progress: True shows a bar with the time that is left; a function is told every stage.
        options: the other fields of `TrainingOptions`: loss, rate, augment, batch, freeze, ...

    Returns:
        The trained model and the report.

    Raises:
        UsageError: an option is out of range, or data, teacher or labels do not fit the model.
        ModelError: no weight can be trained, or an operator has no gradient.
        RunError: the loss is not finite.

    Example:
        >>> import onnxprune
        >>> small = onnxprune.prune("models/digits.onnx", 0.5).model
        >>> data = "models/digits_calibration.npz"
        >>> result = onnxprune.train(small, data, 5, teacher="models/digits.onnx", samples=64, rate=1e-3)
        >>> result.report.after <= result.report.before
        True
    """
    check_keywords(options, TrainingKeywords, "teacher", "labels", "samples", "shapes", "masks")
    examples = TrainingData(
        data, samples, labels=labels, teacher=None if teacher is None else load(teacher, shapes=shapes)
    )
    chosen = TrainingOptions(steps, **options)
    with shown(progress) as told:
        tell = {} if told is None else {"progress": told}
        model, report = learn(load(source, shapes=shapes), examples, chosen, masks=masks, **tell)
    return TrainResult(same_kind(model, source), report)
