"""Choose a mask for every element of a weight, and the weights that stay."""

from onnxprune.sparsity import (  # noqa: F401 (each registers itself)
    alps,
    magnitude,
    random,
    ria,
    sparsegpt,
    taylor,
    threshold,
    wanda,
)
from onnxprune.sparsity.options import SparsifyOptions, pattern_checks, selected
from onnxprune.sparsity.pattern import NofM, Pattern, pattern_of
from onnxprune.sparsity.permutation import best_order, kept
from onnxprune.sparsity.registry import METHODS, LayerEvidence, MaskMethod, method_of
from onnxprune.sparsity.shares import shares_by_damage
from onnxprune.sparsity.speed import Eligible, Speed, eligible_layers, measured_speed
from onnxprune.sparsity.support import refitted
from onnxprune.sparsity.weights import ContractionWeight, contraction_weights

__all__ = [
    "METHODS",
    "ContractionWeight",
    "Eligible",
    "LayerEvidence",
    "MaskMethod",
    "NofM",
    "Pattern",
    "SparsifyOptions",
    "Speed",
    "best_order",
    "contraction_weights",
    "eligible_layers",
    "kept",
    "measured_speed",
    "method_of",
    "pattern_checks",
    "pattern_of",
    "refitted",
    "selected",
    "shares_by_damage",
]
