"""Give downstream layers back what they lost."""

from onnxprune.recovery.distill import Teacher
from onnxprune.recovery.exact import take_over
from onnxprune.recovery.fine_tune import fine_tune_model
from onnxprune.recovery.fits import METHODS, Method, PairMoments, method
from onnxprune.recovery.objectives import Objective, class_axis, from_labels, from_teacher
from onnxprune.recovery.recover import Repair
from onnxprune.recovery.targets import ROWS
from onnxprune.recovery.training_options import CROSS_ENTROPY, DISTIL, MSE, TrainingOptions
from onnxprune.recovery.training_state import Saving, Training

__all__ = [
    "CROSS_ENTROPY",
    "DISTIL",
    "METHODS",
    "MSE",
    "ROWS",
    "Objective",
    "Method",
    "PairMoments",
    "Repair",
    "Saving",
    "Teacher",
    "Training",
    "TrainingOptions",
    "class_axis",
    "from_labels",
    "from_teacher",
    "method",
    "take_over",
    "fine_tune_model",
]
