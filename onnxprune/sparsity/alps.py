"""Alternating directions: the mask and the weights are found together, and the weights that stay are re-fitted.

Inputs are scaled to a second moment H with a diagonal of ones. W is what is best without zeros, D has the zeros, and V
are the multipliers that pull one to the other:

    W <- (H + r I)^-1 (G + r D - V),  D <- P(W + V / r),  V <- V + r (W - D),

where G is the cross moment and P leaves the largest elements that the pattern allows. r grows as long as the mask
changes, faster while it changes more.

Source: Meng et al., "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language Models", 2024,
algorithm 1 and section 3.3.
"""

from __future__ import annotations

import numpy as np

from onnxprune.sparsity.registry import LayerEvidence, Masked, masking
from onnxprune.sparsity.support import refitted

# The first weight of the multipliers, and how often it may grow.
FIRST, ROUNDS = 0.03, 200
# Steps before it grows, and by what factor where more than so large a share of the mask has changed since. The source
# has 1.3, 1.2 and 1.1: slower growth lost 0.01 and 0.02 nats less on a small language model (docs/sparsity.md).
STEPS = 3
GROWTH = ((0.1, 1.15), (0.005, 1.1), (0.0, 1.05))


@masking("alps", needs_data=True, refits=True, source="Meng et al. 2024, arXiv:2406.07831")
def alps(evidence: LayerEvidence) -> Masked:
    """Mask and weights found together by alternating directions, then least squares on what stays."""
    scale = 1 / evidence.deviation  # [groups, D, 1]
    hessian = evidence.hessian * scale * np.swapaxes(scale, 1, 2)
    aim = evidence.aim * scale
    values, vectors = np.linalg.eigh(hessian)
    turned, values = np.swapaxes(vectors, 1, 2), values[:, :, None]
    aim_turned = turned @ aim
    sparse, keep = evidence.weight / scale, evidence.weight != 0
    pull, weighing = np.zeros_like(sparse), FIRST
    for _ in range(ROUNDS):
        before = keep
        for _ in range(STEPS):
            wanted = aim_turned + turned @ (weighing * sparse - pull)
            dense = vectors @ (wanted / (values + weighing))
            moved = dense + pull / weighing
            keep = evidence.choose(np.abs(moved))
            sparse = moved * keep
            pull = pull + weighing * (dense - sparse)
        changed = float((keep != before).sum()) / max(1, int(keep.sum()))
        if not changed:
            break
        weighing *= next(factor for share, factor in GROWTH if changed > share)
    return refitted(evidence, sparse * scale, keep), keep
