"""Least squares on a support: the weights that are best where some must be zero.

For every output, with S the inputs that it keeps, w_S = (H_SS)^-1 g_S, where H is the second moment of the inputs and g
the cross moment with the output that is wanted. All outputs are solved side by side by conjugate gradients that never
leave their supports, preconditioned by the diagonal of H.

Source: Meng et al., "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language Models", 2024,
section 3.3 (the solver); He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017 (the problem).
"""

from __future__ import annotations

import numpy as np

from onnxprune.sparsity.registry import LayerEvidence
from onnxprune.typing import Array

# Most steps of the solver, and the residual, relative to that of zero, at which an output is done.
STEPS = 300
RESIDUAL = 1e-5


def refitted(evidence: LayerEvidence, weight: Array, keep: Array) -> Array:
    """Fit the elements that stay.

    Args:
        evidence: the layer, with the moments of its inputs.
        weight: [groups, D, O], where to start.
        keep: bool[groups, D, O], the support.

    Returns:
        float64[groups, D, O], zero outside of the support.
    """
    hessian, aim = evidence.hessian, evidence.aim
    scale = 1 / np.diagonal(hessian, axis1=1, axis2=2)[:, :, None]
    found = weight * keep
    residual = (aim - hessian @ found) * keep
    done = np.square(RESIDUAL) * np.maximum(np.square(aim * keep).sum(axis=1, keepdims=True), 1e-60)
    turned = residual * scale
    step, slope = turned, (residual * turned).sum(axis=1, keepdims=True)
    for _ in range(min(STEPS, 4 * found.shape[1])):
        if (np.square(residual).sum(axis=1, keepdims=True) <= done).all():
            break
        ahead = (hessian @ step) * keep
        length = slope / np.maximum((step * ahead).sum(axis=1, keepdims=True), 1e-300)
        found = found + length * step
        residual = residual - length * ahead
        turned = residual * scale
        before, slope = slope, (residual * turned).sum(axis=1, keepdims=True)
        step = turned + slope / np.maximum(before, 1e-300) * step
    return found
