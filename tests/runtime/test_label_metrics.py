"""Measures against labels, held against their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.runtime.label_metrics import (
    LABEL_METRICS,
    ClassTally,
    NumberTally,
    area_under_curve,
    label_metric,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 60)
SCORES = RNG.standard_normal((60, 4)).astype(np.float32) + 2 * np.eye(4, dtype=np.float32)[LABELS]


def tallied() -> ClassTally:
    """The labels in three runs."""
    tally = ClassTally(keep=True)
    for part in np.split(np.arange(60), 3):
        tally.add(SCORES[part], LABELS[part])
    return tally


def test_shares_of_labels() -> None:
    tally, order = tallied(), SCORES.argsort(axis=1)[:, ::-1]
    assert label_metric("accuracy").value(tally) == pytest.approx(np.mean(order[:, 0] == LABELS))
    for k in (1, 2, 3):
        wanted = np.mean([label in row[:k] for label, row in zip(LABELS, order, strict=True)])
        assert label_metric(f"top{k}").value(tally) == pytest.approx(wanted)
    assert label_metric("top4").value(tally) == 1


def test_means_over_classes() -> None:
    found, f1, iou = SCORES.argmax(axis=1), [], []
    for c in range(4):
        both, either = ((found == c) & (c == LABELS)).sum(), ((found == c) | (c == LABELS)).sum()
        precision, recall = both / (found == c).sum(), both / (c == LABELS).sum()
        f1.append(2 * precision * recall / (precision + recall))
        iou.append(both / either)
    assert label_metric("f1").value(tallied()) == pytest.approx(np.mean(f1))
    assert label_metric("iou").value(tallied()) == pytest.approx(np.mean(iou))


def test_classes_that_never_occur_do_not_count() -> None:
    tally = ClassTally()
    tally.add(np.array([0, 5, 5]), np.array([0, 5, 0]))
    assert label_metric("iou").value(tally) == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_area_under_the_curve_counts_pairs() -> None:
    scores = RNG.integers(0, 5, 40).astype(np.float32)  # ties
    positive = RNG.random(40) < 0.4
    pairs = itertools.product(scores[positive], scores[~positive])
    wanted = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])
    assert area_under_curve(scores, positive) == pytest.approx(wanted)
    assert math.isnan(area_under_curve(scores, np.ones(40, bool)))
    each = [area_under_curve(SCORES[:, c], c == LABELS) for c in range(4)]
    assert label_metric("auc").value(tallied()) == pytest.approx(np.mean(each))


def test_labels_below_zero_do_not_count() -> None:
    tally = ClassTally()
    assert tally.add(SCORES, np.where(np.arange(60) < 50, -1, LABELS)).shape == (10,)
    wanted = np.mean(SCORES[50:].argmax(axis=1) == LABELS[50:])
    assert tally.count == 10 and label_metric("accuracy").value(tally) == pytest.approx(wanted)


def test_numbers() -> None:
    wanted, found = RNG.standard_normal(50).astype(np.float32) * 3 + 7, RNG.standard_normal(50).astype(np.float32) + 7
    tally = NumberTally()
    for part in np.split(np.arange(50), 5):
        tally.add(found[part], wanted[part])
    apart = found.astype(float) - wanted
    assert label_metric("mae").value(tally) == pytest.approx(np.abs(apart).mean())
    assert label_metric("rmse").value(tally) == pytest.approx(np.sqrt(np.square(apart).mean()))
    explained = 1 - np.square(apart).sum() / np.square(wanted - wanted.mean()).sum()
    assert label_metric("r2").value(tally) == pytest.approx(explained, rel=1e-4)


def test_names() -> None:
    assert all(label_metric(name).name == name and metric.summary for name, metric in LABEL_METRICS.items())
    for name in ("top0", "top", "topx", "best", ""):
        with pytest.raises(UsageError, match="no metric is called"):
            label_metric(name)
