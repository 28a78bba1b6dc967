"""Structured pruning of ONNX models: smaller, valid, and proven equal to the masked original."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.allocation import Options
    from onnxprune.api import (
        PruneResult,
        SparsifyResult,
        TrainResult,
        apply,
        make_plan,
        prune,
        sparsify,
        trace,
        train,
        verify,
    )
    from onnxprune.criteria import register_criterion
    from onnxprune.pipelines import Sensitivity
    from onnxprune.pipelines.compress_source import CompressResult, compress
    from onnxprune.pipelines.drop_source import DropResult, drop
    from onnxprune.pipelines.sensitivity import sensitivity
    from onnxprune.pipelines.shrink_source import ShrinkResult, shrink
    from onnxprune.recovery import Saving, TrainingOptions
    from onnxprune.rewriting import Plan
    from onnxprune.tracing import Groups
    from onnxprune.tracing import rule as register_rule

__version__ = "0.1.0"

_HOMES = {
    "CompressResult": "onnxprune.pipelines.compress_source",
    "PruneResult": "onnxprune.api",
    "DropResult": "onnxprune.pipelines.drop_source",
    "ShrinkResult": "onnxprune.pipelines.shrink_source",
    "apply": "onnxprune.api",
    "compress": "onnxprune.pipelines.compress_source",
    "drop": "onnxprune.pipelines.drop_source",
    "make_plan": "onnxprune.api",
    "prune": "onnxprune.api",
    "shrink": "onnxprune.pipelines.shrink_source",
    "SparsifyResult": "onnxprune.api",
    "sparsify": "onnxprune.api",
    "trace": "onnxprune.api",
    "TrainResult": "onnxprune.api",
    "Saving": "onnxprune.recovery",
    "TrainingOptions": "onnxprune.recovery",
    "train": "onnxprune.api",
    "verify": "onnxprune.api",
    "register_criterion": "onnxprune.criteria",
    "Sensitivity": "onnxprune.pipelines.sensitivity_report",
    "sensitivity": "onnxprune.pipelines.sensitivity",
    "Groups": "onnxprune.tracing.groups",
    "Plan": "onnxprune.rewriting.plan",
    "Options": "onnxprune.allocation.options",
}

__all__ = [
    "CompressResult",
    "DropResult",
    "Groups",
    "Options",
    "Plan",
    "PruneResult",
    "Sensitivity",
    "ShrinkResult",
    "SparsifyResult",
    "TrainResult",
    "Saving",
    "TrainingOptions",
    "apply",
    "compress",
    "drop",
    "make_plan",
    "prune",
    "register_criterion",
    "register_rule",
    "sensitivity",
    "shrink",
    "sparsify",
    "trace",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import on first use: `onnxprune --help` must not wait for onnx and numpy."""
    if name == "register_rule":
        return importlib.import_module("onnxprune.tracing.rules.registry").rule
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'onnxprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted([*__all__, "__version__"])
