"""Measures of outputs against labels, added up over runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.typing import Array

# The number after the name is k.
TOP = "top"


class ClassTally:
    """Counts of predicted classes against labels.

    Attributes:
        confusion: int64 [label, predicted class], as large as the largest class yet.
        ranks: int64 [rank]: how many labels were the rank-th largest score; empty where outputs are class numbers.
        keep: whether all scores are kept, which the area under the curve needs.
    """

    def __init__(self, *, keep: bool = False) -> None:
        """Prepare.

        Args:
            keep: keep all scores, for the area under the curve.
        """
        self.confusion = np.zeros((0, 0), np.int64)
        self.ranks = np.zeros(0, np.int64)
        self.keep = keep
        self._scores: list[Array] = []
        self._labels: list[Array] = []

    def add(self, scores: Array, labels: Array) -> Array:
        """Judge the outputs of one run.

        Args:
            scores: class numbers like the labels, or floats with one more axis, the last: the classes.
            labels: class numbers; those below zero do not count.

        Returns:
            bool [labels that count]: the class is right.
        """
        counted = labels >= 0
        labels = labels[counted]
        if scores.dtype.kind == "f":
            scores = scores[counted]
            classes = scores.argmax(axis=-1)
            if self.keep:
                self._scores.append(scores)
                self._labels.append(labels)
            self._rank(scores, labels)
        else:
            classes = scores[counted].astype(np.int64)
        self._count(labels, classes)
        return np.asarray(labels == classes)

    def _rank(self, scores: Array, labels: Array) -> None:
        own = np.take_along_axis(scores, labels[:, None], axis=1)
        found = np.bincount((scores > own).sum(axis=1), minlength=scores.shape[1])
        self.ranks = found if not len(self.ranks) else self.ranks + found

    def _count(self, labels: Array, classes: Array) -> None:
        largest = int(max(labels.max(initial=-1), classes.max(initial=-1))) + 1
        if largest > len(self.confusion):
            self.confusion = np.pad(self.confusion, (0, largest - len(self.confusion)))
        size = len(self.confusion)
        self.confusion += np.bincount(labels * size + classes, minlength=size * size).reshape(size, size)

    @property
    def count(self) -> int:
        """Labels that count."""
        return int(self.confusion.sum())

    @property
    def kept(self) -> tuple[Array, Array]:
        """All scores and their labels."""
        return np.concatenate(self._scores), np.concatenate(self._labels)


class NumberTally:
    """Sums of the differences between numbers and labels.

    Attributes:
        count: numbers.
        absolute: sum of absolute differences.
        squared: sum of squared differences.
    """

    def __init__(self) -> None:
        """Prepare."""
        self.count = 0
        self.absolute = self.squared = 0.0
        self._sum = self._squares = 0.0

    def add(self, found: Array, labels: Array) -> None:
        """Compare arrays of one shape."""
        apart = found.astype(np.float64) - labels
        self.count += apart.size
        self.absolute += float(np.abs(apart).sum())
        self.squared += float(np.square(apart).sum())
        self._sum += float(labels.sum(dtype=np.float64))
        self._squares += float(np.square(labels, dtype=np.float64).sum())

    @property
    def deviation(self) -> float:
        """Sum of squared differences between the labels and their mean."""
        return self._squares - self._sum**2 / self.count


@dataclass(frozen=True)
class LabelMetric:
    """A measure of outputs against labels.

    Attributes:
        name: what it is called.
        summary: what it is.
        value: from the tally of all runs to the number; NaN where it is not defined.
        rises: whether higher is better.
        of_numbers: labels are numbers, not classes.
        needs_scores: outputs that are class numbers do not do.
    """

    name: str
    summary: str
    value: Callable[[Any], float]
    rises: bool = True
    of_numbers: bool = False
    needs_scores: bool = False


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _accuracy(tally: ClassTally) -> float:
    return _share(int(np.trace(tally.confusion)), tally.count)


def _top(k: int, tally: ClassTally) -> float:
    return _share(int(tally.ranks[:k].sum()), int(tally.ranks.sum()))


def _by_class(confusion: Array, *, doubled: bool) -> float:
    """The mean over classes that occur of overlap over union, or twice the overlap over both sizes."""
    hits, sizes = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
    occur = sizes > 0
    if not occur.any():
        return math.nan
    both = sizes[occur] if doubled else (sizes - hits)[occur]
    return float(((1 + doubled) * hits[occur] / both).mean())


def _auc(tally: ClassTally) -> float:
    """Of two classes, or the mean over classes of each against the rest."""
    scores, labels = tally.kept
    classes = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    found = [area_under_curve(scores[:, c] - (scores[:, 0] if len(classes) == 1 else 0), labels == c) for c in classes]
    known = [area for area in found if not math.isnan(area)]
    return float(np.mean(known)) if known else math.nan


def area_under_curve(scores: Array, positive: Array) -> float:
    """Return the area under the receiver operating characteristic: how often a positive scores above a negative.

    Args:
        scores: float [samples].
        positive: bool [samples].

    Returns:
        0 to 1, ties count half; NaN where either kind is missing (Mann and Whitney 1947).
    """
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return math.nan
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    return float((middle[place][positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


_ALL = (
    LabelMetric("accuracy", "share of labels whose class is found", _accuracy),
    LabelMetric(
        "f1", "harmonic mean of precision and recall, mean over classes", lambda t: _by_class(t.confusion, doubled=True)
    ),
    LabelMetric("iou", "intersection over union, mean over classes", lambda t: _by_class(t.confusion, doubled=False)),
    LabelMetric("auc", "area under the ROC curve, mean over classes of each against the rest", _auc, needs_scores=True),
    LabelMetric("mae", "mean absolute difference", lambda t: _share(t.absolute, t.count), rises=False, of_numbers=True),
    LabelMetric(
        "rmse",
        "root of the mean squared difference",
        lambda t: math.sqrt(_share(t.squared, t.count)),
        rises=False,
        of_numbers=True,
    ),
    LabelMetric(
        "r2",
        "share of the labels' variance that is explained",
        lambda t: 1 - _share(t.squared, t.deviation),
        of_numbers=True,
    ),
)
LABEL_METRICS: Mapping[str, LabelMetric] = {metric.name: metric for metric in _ALL}


def label_metric(name: str) -> LabelMetric:
    """Find a measure by its name.

    Args:
        name: one of `LABEL_METRICS`, or `top` with a number behind it.

    Returns:
        The measure.

    Raises:
        UsageError: there is none of this name.
    """
    if name in LABEL_METRICS:
        return LABEL_METRICS[name]
    k = name.removeprefix(TOP)
    if name.startswith(TOP) and k.isdecimal() and int(k):
        summary = f"share of labels among the {int(k)} largest scores"
        return LabelMetric(name, summary, partial(_top, int(k)), needs_scores=True)
    raise UsageError(
        f"no metric is called {name!r}", hint=f"known: {', '.join(LABEL_METRICS)}, and top5 for any number"
    )
