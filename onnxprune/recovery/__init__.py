"""Give downstream layers back what they lost."""

from onnxprune.recovery.closed_form import (
    NO_RECOVERY,
    WIDEST,
    RecoveryOptions,
    RecoveryReport,
    held_out,
    judge,
    recover,
    split_runs,
)
from onnxprune.recovery.data_free import recover_without_data
from onnxprune.recovery.distill import Teacher
from onnxprune.recovery.exact import take_over
from onnxprune.recovery.fine_tune import fine_tune_model
from onnxprune.recovery.fits import METHODS, Method, method
from onnxprune.recovery.intermediate import matching_tensors
from onnxprune.recovery.objectives import Objective, class_axis, from_labels, from_teacher
from onnxprune.recovery.saving import Saving
from onnxprune.recovery.spans import StandIn, spans_of
from onnxprune.recovery.stand_in import with_stand_ins
from onnxprune.recovery.targets import ROWS
from onnxprune.recovery.thinning import Masks, Thinning
from onnxprune.recovery.training_options import CROSS_ENTROPY, DISTIL, MSE, TrainingOptions
from onnxprune.recovery.training_state import Training

__all__ = [
    "CROSS_ENTROPY",
    "DISTIL",
    "METHODS",
    "MSE",
    "NO_RECOVERY",
    "Masks",
    "ROWS",
    "WIDEST",
    "Method",
    "Objective",
    "RecoveryOptions",
    "RecoveryReport",
    "Saving",
    "StandIn",
    "Teacher",
    "Thinning",
    "Training",
    "TrainingOptions",
    "class_axis",
    "fine_tune_model",
    "from_labels",
    "from_teacher",
    "held_out",
    "judge",
    "matching_tensors",
    "method",
    "recover",
    "recover_without_data",
    "spans_of",
    "split_runs",
    "take_over",
    "with_stand_ins",
]
