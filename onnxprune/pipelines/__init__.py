"""Do what a verb does, from a loaded model to a result."""

from onnxprune.pipelines.sensitivity_report import METRICS, Curve, Point, Sensitivity

__all__ = ["METRICS", "Curve", "Point", "Sensitivity"]
