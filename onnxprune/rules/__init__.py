"""How labels go through every operator: one file per family, each operator in exactly one place."""

from onnxprune.rules import (
    along,
    attention,
    blockwise,
    bodies,
    contraction,
    fused,
    fused_attention,
    index,
    layout,
    norm,
    pointwise,
    quantized,
    recurrent,
    reduce,
    scatter,
    source,
)
from onnxprune.rules.registry import Rule, all_rules, find, rule

__all__ = [
    "Rule",
    "all_rules",
    "along",
    "attention",
    "blockwise",
    "bodies",
    "contraction",
    "find",
    "fused",
    "fused_attention",
    "index",
    "layout",
    "norm",
    "pointwise",
    "quantized",
    "recurrent",
    "reduce",
    "rule",
    "scatter",
    "source",
]
