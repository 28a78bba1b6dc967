"""Scores as text and as plain data."""

from __future__ import annotations

import json
import math

from onnxprune.pipelines.evaluate import ClassChanges, Evaluated, ModelScores
from onnxprune.report.charts import BarPlot, charts_of
from onnxprune.report.evaluation import evaluation_data, evaluation_lines
from onnxprune.runtime import Agreement
from onnxprune.runtime.label_metrics import label_metric

AGREED = Agreement(0.02, 17.0, 0.9, 0.95, kl=0.1)
FOUND = Evaluated(
    [
        ModelScores({"accuracy": 0.75, "auc": 0.9}),
        ModelScores({"accuracy": 0.7, "auc": math.nan}, AGREED, ClassChanges(60, 15, 10, 15)),
    ],
    [label_metric("accuracy"), label_metric("auc")],
    100,
)


def test_lines() -> None:
    lines = evaluation_lines(FOUND, ["a.onnx", "b.onnx"])
    assert [line.split() for line in lines[1:3]] == [["accuracy", "75.00", "%", "70.00", "%"], ["auc", "0.9", "-"]]
    assert "same class             -   95.00 %" in lines
    assert "labels   100, standard error of an accuracy 4.33 %" in lines  # sqrt(0.75 * 0.25 / 100)
    assert lines[-1] == "changed  b.onnx: 15 labels lost, 10 gained; 60 found by both, 15 by neither"


def test_chart() -> None:
    charts = charts_of(evaluation_data(FOUND, ["a.onnx", "b.onnx"]))
    bars = [[(bar.name, bar.before, bar.after) for bar in chart.bars] for chart in charts if isinstance(chart, BarPlot)]
    assert bars == [[("a.onnx", 0.75, 0.75), ("b.onnx", 0.75, 0.7)], [("a.onnx", 0.9, 0.9)]]


def test_data() -> None:
    plain = json.loads(json.dumps(evaluation_data(FOUND, ["a.onnx", "b.onnx"]), allow_nan=False))
    assert plain["labels"] == 100 and plain["models"][0] == {
        "model": "a.onnx",
        "metrics": {"accuracy": 0.75, "auc": 0.9},
    }
    assert plain["models"][1]["metrics"]["auc"] is None and plain["models"][1]["agreement"]["sqnr"] == 17.0
    assert plain["models"][1]["changes"] == {"both": 60, "lost": 15, "gained": 10, "neither": 15}
