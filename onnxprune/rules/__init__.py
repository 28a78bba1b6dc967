"""How labels go through every operator: one file per family, each operator in exactly one place."""

from onnxprune.rules import bodies, contraction, index, layout, norm, pointwise, recurrent, reduce, source
from onnxprune.rules.registry import Rule, all_rules, find, rule

__all__ = [
    "Rule",
    "all_rules",
    "bodies",
    "contraction",
    "find",
    "index",
    "layout",
    "norm",
    "pointwise",
    "recurrent",
    "reduce",
    "rule",
    "source",
]
