"""Do what a verb does, from a loaded model to a result."""

from typing import TYPE_CHECKING

from onnxprune.lazy import homes_in, on_first_use

if TYPE_CHECKING:
    from onnxprune.pipelines.sensitivity_report import METRICS, Curve, Point, Sensitivity
    from onnxprune.pipelines.user_metric import Evaluation

__all__ = ["Curve", "Evaluation", "METRICS", "Point", "Sensitivity"]

__getattr__ = on_first_use(
    __name__,
    homes_in(
        __name__,
        {"sensitivity_report": ("METRICS", "Curve", "Point", "Sensitivity"), "user_metric": ("Evaluation",)},
    ),
)
