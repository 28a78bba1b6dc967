"""Gates against numbers by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from onnxprune.allocation.amount import Amount
from onnxprune.errors import UsageError
from onnxprune.pipelines.evaluate import Evaluated, ModelScores
from onnxprune.pipelines.gates import Gates, failed_gates
from onnxprune.pipelines.search_targets import QualityConstraint, divergence_constraint
from onnxprune.runtime import Agreement, label_metric
from onnxprune.runtime.bench import Place
from onnxprune.runtime.paired_timing import TimeRatio
from onnxprune.sparsity import Speed

NAMES = ("a.onnx", "b.onnx")


def scored(metric: str, first: float, other: float) -> Evaluated:
    known = () if metric == "value" else (label_metric(metric),)
    return Evaluated([ModelScores({metric: first}), ModelScores({metric: other})], metrics=known)


def apart(error: float, kl: float | None = None) -> Evaluated:
    agreement = Agreement(error, 0.0, 1.0, None, kl)
    return Evaluated([ModelScores({}), ModelScores({}, agreement)])


def took(ratio: float, high: float) -> Speed:
    return Speed(0.01, 0.01 * ratio, TimeRatio(ratio, 2 * ratio - high, high), Place())


@pytest.mark.parametrize(
    ("metric", "first", "other", "limit", "relative", "passes"),
    [
        ("accuracy", 0.9, 0.892, 0.01, True, True),
        ("accuracy", 0.9, 0.890, 0.01, True, False),
        ("accuracy", 0.9, 0.891, 0.01, False, True),
        ("accuracy", 0.9, 0.95, 0.01, True, True),
        ("mae", 2.0, 2.1, 0.05, True, True),
        ("mae", 2.0, 2.2, 0.05, True, False),
        ("mae", 2.0, 1.0, 0.05, True, True),
        ("value", -2.0, -2.15, 0.1, True, True),
        ("value", -2.0, -2.25, 0.1, True, False),
        ("accuracy", 0.9, math.nan, 0.5, False, False),
    ],
)
def test_a_drop(metric, first, other, limit, relative, passes):
    gates = Gates(drop=QualityConstraint("value", limit, relative))
    failed = failed_gates(scored(metric, first, other), NAMES, gates)
    assert (failed == []) is passes and all(text.startswith(f"b.onnx: {metric} is ") for text in failed)


def test_a_divergence():
    assert failed_gates(apart(0.01), NAMES, Gates(divergence=divergence_constraint("1%"))) == []
    (failed,) = failed_gates(apart(0.011), NAMES, Gates(divergence=divergence_constraint("error=0.01")))
    assert failed == "b.onnx: its outputs diverge by error=0.011: more than 0.01"
    assert failed_gates(apart(9.0, 0.05), NAMES, Gates(divergence=divergence_constraint("kl=0.05"))) == []
    assert failed_gates(apart(math.nan), NAMES, Gates(divergence=divergence_constraint("1%")))
    with pytest.raises(UsageError, match="'kl' does not apply"):
        failed_gates(apart(0.0), NAMES, Gates(divergence=divergence_constraint("kl=1")))


@pytest.mark.parametrize(
    ("most", "ratio", "high", "passes"),
    [
        (Amount(0.75, relative=True), 0.7, 0.74, True),
        (Amount(0.75, relative=True), 0.7, 0.76, False),
        (Amount(0.0075), 0.7, 0.75, True),
        (Amount(0.007), 0.7, 0.75, False),
    ],
)
def test_a_time_with_its_noise(most, ratio, high, passes):
    failed = failed_gates(apart(0.0), NAMES, Gates(latency=most), [took(ratio, high)])
    assert (failed == []) is passes
    assert passes or failed[0].startswith(f"b.onnx: it takes 70 % of the first's time (to {100 * high:.3g} %), not at")


def test_all_that_fails_is_told():
    gates = Gates(divergence=divergence_constraint("1%"), latency=Amount(0.75, relative=True))
    several: Any = SimpleNamespace(models=[*apart(0.5).models, apart(0.0).models[1]], metrics=())
    told = failed_gates(several, [*NAMES, "c.onnx"], gates, [took(1.0, 1.1), took(0.9, 0.95)])
    assert [text.partition(":")[0] for text in told] == ["b.onnx", "b.onnx", "c.onnx"]
    with pytest.raises(UsageError, match="--max-drop needs a measure"):
        failed_gates(apart(0.0), NAMES, Gates(drop=QualityConstraint("value", 0.1)))
