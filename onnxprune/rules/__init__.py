"""How labels go through every operator: one file per family, each operator in exactly one place."""

from onnxprune.rules import along, contraction, index, layout, norm, pointwise, reduce, source
from onnxprune.rules.registry import Rule, all_rules, find, rule

__all__ = [
    "Rule",
    "all_rules",
    "along",
    "contraction",
    "find",
    "index",
    "layout",
    "norm",
    "pointwise",
    "reduce",
    "rule",
    "source",
]
