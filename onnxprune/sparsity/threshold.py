"""All weights below a threshold go, wherever they are and however many they are.

The threshold is an absolute value, or a multiple of the standard deviation of the layer's weights: `threshold:0.01`,
`threshold:0.5std`. What is exactly at the threshold goes, so that `threshold:0` finds the zeros that are there.

Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015, section 3.1, where
the threshold is a quality parameter times the standard deviation of the layer.
"""

from __future__ import annotations

import math

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.sparsity.registry import LayerEvidence, Make, Masked, masking_with

ARGUMENT = "0.01 or threshold:0.5std"


@masking_with("threshold", ARGUMENT, source="Han et al. 2015, arXiv:1506.02626")
def threshold(argument: str) -> Make:
    """All weights whose absolute value is at most a number, or a multiple of the layer's standard deviation."""
    relative = argument.endswith("std")
    try:
        limit = float(argument.removesuffix("std"))
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise UsageError(f"--method: {argument!r} is no threshold", hint=f"write threshold:{ARGUMENT}")

    def make(evidence: LayerEvidence) -> Masked:
        most = limit * float(evidence.weight.std()) if relative else limit
        keep = np.abs(evidence.weight) > most
        return evidence.weight * keep, keep

    return make
