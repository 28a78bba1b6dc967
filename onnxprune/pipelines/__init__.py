"""Do what a verb does, from a loaded model to a result."""

from onnxprune.pipelines.sensitivity_report import METRICS, Curve, Point, Sensitivity
from onnxprune.pipelines.user_metric import Evaluation

__all__ = ["Curve", "Evaluation", "METRICS", "Point", "Sensitivity"]
