"""Give downstream layers back what they lost."""

from typing import TYPE_CHECKING

from onnxprune.lazy import homes_in, on_first_use
from onnxprune.recovery.closed_form import (
    NO_RECOVERY,
    RecoveryOptions,
    RecoveryReport,
    held_out,
    judge,
    recover,
    split_runs,
)
from onnxprune.recovery.data_free import recover_without_data
from onnxprune.recovery.exact import take_over
from onnxprune.recovery.fits import METHODS, Method, method
from onnxprune.recovery.requantize import requantized
from onnxprune.recovery.spans import StandIn, spans_of
from onnxprune.recovery.targets import ROWS, WIDEST

if TYPE_CHECKING:
    from onnxprune.recovery.distill import Teacher
    from onnxprune.recovery.fine_tune import fine_tune_model
    from onnxprune.recovery.intermediate import matching_tensors
    from onnxprune.recovery.masters import with_masters
    from onnxprune.recovery.objectives import Objective, class_axis, from_labels, from_teacher
    from onnxprune.recovery.saving import Saving
    from onnxprune.recovery.stand_in import with_stand_ins
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
    "requantized",
    "spans_of",
    "split_runs",
    "take_over",
    "with_masters",
    "with_stand_ins",
]

# What needs gradients, and what only blocks that are dropped need, is imported by those who use it.
__getattr__ = on_first_use(
    __name__,
    homes_in(
        __name__,
        {
            "distill": ("Teacher",),
            "fine_tune": ("fine_tune_model",),
            "intermediate": ("matching_tensors",),
            "masters": ("with_masters",),
            "objectives": ("Objective", "class_axis", "from_labels", "from_teacher"),
            "saving": ("Saving",),
            "stand_in": ("with_stand_ins",),
            "thinning": ("Masks", "Thinning"),
            "training_options": ("CROSS_ENTROPY", "DISTIL", "MSE", "TrainingOptions"),
            "training_state": ("Training",),
        },
    ),
)
