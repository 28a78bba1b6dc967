"""How labels go through every operator: one file per family, each operator in exactly one place."""

from onnxprune.plugins import load_installed
from onnxprune.tracing.rules import (
    attention,
    blockwise,
    constants,
    contraction,
    control_flow,
    fused,
    fused_attention,
    index,
    layout,
    norm,
    pointwise,
    quantized,
    quantizers,
    recurrent,
    reduce,
    scatter,
    whole_axis,
)
from onnxprune.tracing.rules.registry import Rule, all_rules, find, rule

__all__ = [
    "Rule",
    "all_rules",
    "attention",
    "blockwise",
    "constants",
    "contraction",
    "control_flow",
    "find",
    "fused",
    "fused_attention",
    "index",
    "layout",
    "norm",
    "pointwise",
    "quantized",
    "quantizers",
    "recurrent",
    "reduce",
    "rule",
    "scatter",
    "whole_axis",
]

load_installed("onnxprune.rules")
