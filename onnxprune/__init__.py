"""Structured pruning of ONNX models: smaller, valid, and proven equal to the masked original."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.lazy import on_first_use

if TYPE_CHECKING:
    from onnxprune.allocation import Options
    from onnxprune.api import PruneResult, apply, make_plan, prune, trace, verify
    from onnxprune.criteria import register_criterion
    from onnxprune.pipelines import Sensitivity
    from onnxprune.pipelines.apply_folder import apply_folder
    from onnxprune.pipelines.auto_source import AutoResult, auto
    from onnxprune.pipelines.compress_source import CompressResult, compress
    from onnxprune.pipelines.drop_folder import drop_folder
    from onnxprune.pipelines.drop_source import DropResult, drop
    from onnxprune.pipelines.evaluate_source import evaluate
    from onnxprune.pipelines.plan_folder import plan_folder
    from onnxprune.pipelines.prune_folder import prune_folder
    from onnxprune.pipelines.quantize_source import QuantizeResult, quantize
    from onnxprune.pipelines.sensitivity import sensitivity
    from onnxprune.pipelines.shrink_source import ShrinkResult, shrink
    from onnxprune.pipelines.sparsify_source import SparsifyResult, sparsify
    from onnxprune.pipelines.train_source import TrainResult, train
    from onnxprune.recovery import Saving, TrainingOptions
    from onnxprune.rewriting import Plan
    from onnxprune.tracing import Groups
    from onnxprune.tracing import rule as register_rule

__version__ = "0.1.0"

# Public name -> where it is: `onnxprune --help` must not wait for onnx and numpy, nor a verb for the others.
_HOMES = {
    "AutoResult": "onnxprune.pipelines.auto_source",
    "CompressResult": "onnxprune.pipelines.compress_source",
    "DropResult": "onnxprune.pipelines.drop_source",
    "Groups": "onnxprune.tracing.groups",
    "Options": "onnxprune.allocation.options",
    "Plan": "onnxprune.rewriting.plan",
    "PruneResult": "onnxprune.api",
    "QuantizeResult": "onnxprune.pipelines.quantize_source",
    "Saving": "onnxprune.recovery.saving",
    "Sensitivity": "onnxprune.pipelines.sensitivity_report",
    "ShrinkResult": "onnxprune.pipelines.shrink_source",
    "SparsifyResult": "onnxprune.pipelines.sparsify_source",
    "TrainResult": "onnxprune.pipelines.train_source",
    "TrainingOptions": "onnxprune.recovery.training_options",
    "apply": "onnxprune.api",
    "apply_folder": "onnxprune.pipelines.apply_folder",
    "auto": "onnxprune.pipelines.auto_source",
    "compress": "onnxprune.pipelines.compress_source",
    "drop": "onnxprune.pipelines.drop_source",
    "drop_folder": "onnxprune.pipelines.drop_folder",
    "evaluate": "onnxprune.pipelines.evaluate_source",
    "make_plan": "onnxprune.api",
    "plan_folder": "onnxprune.pipelines.plan_folder",
    "prune": "onnxprune.api",
    "prune_folder": "onnxprune.pipelines.prune_folder",
    "quantize": "onnxprune.pipelines.quantize_source",
    "register_criterion": "onnxprune.criteria",
    "register_rule": "onnxprune.tracing.rules.registry:rule",
    "sensitivity": "onnxprune.pipelines.sensitivity",
    "shrink": "onnxprune.pipelines.shrink_source",
    "sparsify": "onnxprune.pipelines.sparsify_source",
    "trace": "onnxprune.api",
    "train": "onnxprune.pipelines.train_source",
    "verify": "onnxprune.api",
}

__all__ = [
    "AutoResult",
    "CompressResult",
    "DropResult",
    "Groups",
    "Options",
    "Plan",
    "PruneResult",
    "QuantizeResult",
    "Sensitivity",
    "ShrinkResult",
    "SparsifyResult",
    "TrainResult",
    "Saving",
    "TrainingOptions",
    "apply",
    "apply_folder",
    "auto",
    "compress",
    "drop",
    "drop_folder",
    "evaluate",
    "make_plan",
    "plan_folder",
    "prune",
    "prune_folder",
    "quantize",
    "register_criterion",
    "register_rule",
    "sensitivity",
    "shrink",
    "sparsify",
    "trace",
    "train",
    "verify",
]


__getattr__ = on_first_use(__name__, _HOMES)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted([*__all__, "__version__"])
