"""Judge models on data: by labels, by the user's own measure, and by how far they agree with the first of them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import ValueInfoProto

from onnxprune import calibration
from onnxprune.calibration import InputSpec, LabelSource, Run, is_random, wanted_by
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.pipelines.user_metric import Evaluation
from onnxprune.pipelines.wanted_labels import wanted_labels
from onnxprune.progress import WorkPart
from onnxprune.recovery import class_axis
from onnxprune.runtime import (
    Agreement,
    AgreementAccumulator,
    ClassTally,
    LabelMetric,
    NumberTally,
    Session,
    label_metric,
)
from onnxprune.shown import Shown
from onnxprune.typing import Array

logger = logging.getLogger(__name__)
# All samples of a source; where it never ends, random ones, so many.
ALL, OF_RANDOM = (1 << 31) - 1, 256
# Outputs of more classes than these are judged by `top5`, too.
MANY_CLASSES = 10
# Scores of one number are probabilities where all lie between 0 and 1, and logits elsewhere.
PROBABILITY, LOGIT = 0.5, 0.0


@dataclass(frozen=True)
class EvaluationData:
    """What models are judged by.

    Attributes:
        data: inputs (see `calibration.read`), with labels if there are any.
        labels: name of the labels in the data, "folder", or FILE.csv:COLUMN (.jsonl, too); there are none if None.
        metrics: names of measures of labels; if none, those that suit the output.
        output: name of the output that labels belong to; the first of every model if None.
        samples: how many samples to use; all if None.
        sizes: numbers for symbolic dims.
        evaluation: the user's own measure.
    """

    data: Any = None
    labels: str | None = None
    metrics: Sequence[str] = ()
    output: str | None = None
    samples: int | None = None
    sizes: Mapping[str, int] | None = None
    evaluation: Evaluation | None = None

    def __post_init__(self) -> None:
        for name in self.metrics:
            label_metric(name)
        if self.metrics and self.labels is None:
            raise UsageError("metrics need labels", hint="add --labels KEY, the name of the labels in the data")
        if len({label_metric(name).of_numbers for name in self.metrics}) > 1:
            raise UsageError(
                f"{', '.join(self.metrics)}: labels are classes or numbers, not both", hint="measure them one by one"
            )
        if self.data is None and self.evaluation is None:
            raise UsageError("there is nothing to judge by", hint="add --data SOURCE, or --eval WHAT")

    @property
    def most(self) -> int:
        """How many samples to use."""
        most = OF_RANDOM if is_random(self.data) else ALL
        return most if self.samples is None else min(self.samples, most)

    @property
    def of_numbers(self) -> bool:
        """Whether labels are numbers."""
        return any(label_metric(name).of_numbers for name in self.metrics)

    def output_of(self, model: Model) -> ValueInfoProto:
        """The output that labels belong to.

        Raises:
            UsageError: the model has no such output.
        """
        known = {value.name: value for value in model.proto.graph.output}
        if self.output is None:
            return model.proto.graph.output[0]
        if self.output not in known:
            raise UsageError(f"no output is called {self.output!r}", hint=f"outputs: {', '.join(known)}")
        return known[self.output]

    def label_source(self, model: Model, output: ValueInfoProto) -> list[InputSpec | LabelSource]:
        """What is to be read beside the inputs."""
        if self.labels is None:
            return []
        return [wanted_labels(model, self.labels, self.data, of_numbers=self.of_numbers, output=output)]


@dataclass(frozen=True)
class ClassChanges:
    """Labels by whether the first model, and another, find them.

    Attributes:
        both: found by both.
        lost: found by the first alone.
        gained: found by the other alone.
        neither: found by neither.
    """

    both: int = 0
    lost: int = 0
    gained: int = 0
    neither: int = 0

    def plus(self, first: Array, other: Array) -> ClassChanges:
        """Count further labels: bool arrays of what each finds."""
        return ClassChanges(
            self.both + int((first & other).sum()),
            self.lost + int((first & ~other).sum()),
            self.gained + int((~first & other).sum()),
            self.neither + int((~first & ~other).sum()),
        )


@dataclass(frozen=True)
class ModelScores:
    """How good a model is.

    Attributes:
        metrics: measure -> number; NaN where it is not defined. That of the user is called "value".
        agreement: with the outputs of the first model; None for the first itself, and without data.
        changes: labels that it lost and gained against the first model; None without classes.
    """

    metrics: Mapping[str, float]
    agreement: Agreement | None = None
    changes: ClassChanges | None = None


@dataclass(frozen=True, repr=False)
class Evaluated(Shown):
    """What `evaluate` returns.

    Attributes:
        models: scores of every model, in the order that they were given in.
        metrics: the measures of labels.
        labels: labels that were judged by; 0 without.
    """

    models: Sequence[ModelScores]
    metrics: Sequence[LabelMetric] = ()
    labels: int = 0


def evaluate_models(
    models: Sequence[Model], wanted: EvaluationData, *, progress: Callable[[str], None] = logger.info
) -> Evaluated:
    """Judge models; all of them see the same inputs.

    Args:
        models: the first is what the others are compared with.
        wanted: what they are judged by.
        progress: is told about every stage.

    Returns:
        Scores of every model.

    Raises:
        UsageError: the models take other inputs, or the data or labels do not fit.
        RunError: a model does not run, or the user's own measure fails.
    """
    own: list[dict[str, float]] = [{} for _ in models]
    if wanted.evaluation is not None:
        for place, model in enumerate(models):
            progress(WorkPart.of("--eval on model", place + 1, len(models)))
            own[place]["value"] = wanted.evaluation.of(model)
    if wanted.data is None:
        return Evaluated([ModelScores(found) for found in own])
    _check_inputs(models)
    progress("reading the data")
    runs = calibration.read(
        wanted.data,
        models[0],
        samples=wanted.most,
        sizes=wanted.sizes,
        also=wanted.label_source(models[0], wanted.output_of(models[0])),
    )
    found = judge_runs(models, runs, wanted, progress=progress)
    scores = [replace(of, metrics={**of.metrics, **value}) for of, value in zip(found.models, own, strict=True)]
    return replace(found, models=scores)


def judge_runs(
    models: Sequence[Model],
    runs: Sequence[Run],
    wanted: EvaluationData,
    *,
    fused: bool = False,
    progress: Callable[[str], None] = logger.info,
) -> Evaluated:
    """Judge models on inputs that are read, with their labels.

    Args:
        models: the first is what the others are compared with.
        runs: the inputs of every run, and its labels.
        wanted: what they are judged by, but for the user's own measure.
        fused: run them by the kernels that they have where they are deployed, which may saturate.
        progress: is told about every run.

    Returns:
        Scores of every model.

    Raises:
        UsageError: the labels do not fit an output.
        RunError: a model does not run.
    """
    outputs = [wanted.output_of(model) for model in models]
    judge = None if wanted.labels is None else _judge(len(models), wanted)
    agreements = [AgreementAccumulator() for _ in models]
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(Session(model, fused=fused)) for model in models]
        for number, run in enumerate(runs, 1):
            progress(WorkPart.of("run", number, len(runs)))
            feeds = {name: array for name, array in run.items() if name != wanted.labels}
            found = [dict(zip(session.outputs, session.run(feeds), strict=True)) for session in sessions]
            for agreement, other in zip(agreements[1:], found[1:], strict=True):
                same = [name for name in found[0] if name in other]
                agreement.add([found[0][name] for name in same], [other[name] for name in same])
            if judge is not None:
                judged = [np.asarray(of[output.name]) for of, output in zip(found, outputs, strict=True)]
                judge.add(judged, np.asarray(run[str(wanted.labels)]))
    return _evaluated(judge, agreements)


def _check_inputs(models: Sequence[Model]) -> None:
    first, *others = (wanted_by(model) for model in models)
    for place, other in enumerate(others, 2):
        if {n: s.dtype for n, s in other.items()} != {n: s.dtype for n, s in first.items()}:
            own, asked = (", ".join(map(str, specs.values())) for specs in (other, first))
            raise UsageError(
                f"model {place} takes {own}, the first {asked}", hint="judge models that take the same inputs"
            )


class _NumberJudge:
    """Compares outputs with numbers."""

    def __init__(self, count: int, names: Sequence[str]) -> None:
        self.metrics = [label_metric(name) for name in names]
        self.tallies = [NumberTally() for _ in range(count)]
        self.changes: list[ClassChanges | None] = [None] * count

    def add(self, outputs: Sequence[Array], labels: Array) -> None:
        """Judge a run of all models."""
        for tally, found in zip(self.tallies, outputs, strict=True):
            if found.size != labels.size:
                raise UsageError(f"labels are {list(labels.shape)}, the output is {list(found.shape)}")
            tally.add(found.reshape(labels.shape), labels)

    def finish(self) -> None:
        """Nothing is left to do."""


class _ClassJudge:
    """Compares outputs with classes."""

    def __init__(self, count: int, names: Sequence[str]) -> None:
        self.metrics = [label_metric(name) for name in names]
        self.tallies = [ClassTally(keep=any(m.name == "auc" for m in self.metrics)) for _ in range(count)]
        self.changes: list[ClassChanges | None] = [ClassChanges() for _ in range(count)]
        # Outputs of one score for a label: what threshold cuts them is known when all are there.
        self._single: list[tuple[Sequence[Array], Array]] = []

    def add(self, outputs: Sequence[Array], labels: Array) -> None:
        """Judge a run of all models."""
        if outputs[0].dtype.kind == "f" and outputs[0].size == labels.size:
            self._single.append(([found.reshape(labels.shape) for found in outputs], labels))
        else:
            self._judge([_classes_last(found, labels) for found in outputs], labels)

    def finish(self) -> None:
        """Judge outputs of one score."""
        if self._single:
            labels = np.concatenate([labels for _, labels in self._single])
            scores = [np.concatenate(found) for found in zip(*(found for found, _ in self._single), strict=True)]
            self._judge([_two_classes(of) for of in scores], labels)

    def _judge(self, outputs: Sequence[Array], labels: Array) -> None:
        if not self.metrics:
            self.metrics = _suitable(outputs[0], labels)
            for tally in self.tallies:
                tally.keep = any(metric.name == "auc" for metric in self.metrics)
        if any(metric.needs_scores for metric in self.metrics) and outputs[0].dtype.kind != "f":
            names = ", ".join(metric.name for metric in self.metrics if metric.needs_scores)
            raise UsageError(f"{names} needs scores, and the output is class numbers", hint="leave it out")
        right = [tally.add(found, labels) for tally, found in zip(self.tallies, outputs, strict=True)]
        self.changes = [
            None if before is None else before.plus(right[0], of)
            for before, of in zip(self.changes, right, strict=True)
        ]


_Judge = _ClassJudge | _NumberJudge


def _judge(count: int, wanted: EvaluationData) -> _Judge:
    return (_NumberJudge if wanted.of_numbers else _ClassJudge)(count, wanted.metrics)


def _suitable(scores: Array, labels: Array) -> list[LabelMetric]:
    """The measures for outputs like these."""
    names = ["accuracy", "f1"]
    if scores.dtype.kind == "f":
        classes = scores.shape[-1]
        names += ["auc"] if classes == 2 else ["top5"] if classes > MANY_CLASSES else []
    return [label_metric(name) for name in names + ["iou"] * (labels.ndim > 2)]


def _classes_last(found: Array, labels: Array) -> Array:
    """Scores with the axis of the classes last, or class numbers; refused where neither fits the labels."""
    if found.dtype.kind != "f":
        if found.size == labels.size:
            return found.reshape(labels.shape)
    elif found.ndim == labels.ndim + 1:
        moved = np.moveaxis(found, class_axis(found.ndim), -1)
        if moved.shape[:-1] == labels.shape:
            _check_classes(labels, moved.shape[-1])
            return moved
    raise UsageError(
        f"labels are {list(labels.shape)}, the output is {list(found.shape)}",
        hint="a class number for every sample or pixel; --metric mae for labels that are numbers",
    )


def _check_classes(labels: Array, classes: int) -> None:
    if labels.max(initial=-1) >= classes:
        raise UsageError(
            f"a label is {labels.max()}, and there are {classes} classes",
            hint="classes are counted from 0; a label below 0 does not count",
        )


def _two_classes(scores: Array) -> Array:
    """Scores of both classes: the threshold, and the score."""
    threshold = PROBABILITY if scores.min() >= 0 and scores.max() <= 1 else LOGIT
    return np.stack([np.full_like(scores, threshold), scores], axis=-1)


def _evaluated(judge: _Judge | None, agreements: Sequence[AgreementAccumulator]) -> Evaluated:
    """What was added up."""
    agreed = [None, *(agreement.agreement() for agreement in agreements[1:])]
    if judge is None:
        return Evaluated([ModelScores({}, agreement) for agreement in agreed])
    judge.finish()
    scores = [
        ModelScores({metric.name: metric.value(tally) for metric in judge.metrics}, agreement, changes)
        for tally, agreement, changes in zip(judge.tallies, agreed, judge.changes, strict=True)
    ]
    first, *others = scores
    return Evaluated([replace(first, changes=None), *others], judge.metrics, judge.tallies[0].count)
