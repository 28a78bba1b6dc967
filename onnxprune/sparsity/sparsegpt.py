"""One input after the other: the inputs that are still to come make up for the elements that go.

With U the upper Cholesky factor of the inverse second moment, an element of input i costs w^2 / U_ii^2; when it goes,
the weights of every later input j change by -U_ij w / U_ii. The elements that go are chosen for some inputs at a time.

Source: Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", 2023,
algorithm 1.
"""

from __future__ import annotations

import itertools

import numpy as np

from onnxprune.layers import inverse
from onnxprune.sparsity.registry import LayerEvidence, Masked, masking


@masking("sparsegpt", needs_data=True, refits=True, source="Frantar and Alistarh 2023, arXiv:2301.00774")
def sparsegpt(evidence: LayerEvidence) -> Masked:
    """Elements whose removal later inputs make up for best, input by input."""
    found = inverse(evidence.hessian)
    factor = np.swapaxes(np.linalg.cholesky((found + np.swapaxes(found, 1, 2)) / 2), 1, 2)
    diagonal = np.diagonal(factor, axis1=1, axis2=2)[:, :, None]
    weight, keep = evidence.dense.copy(), evidence.weight != 0
    for start, end in itertools.pairwise(evidence.bounds):
        here = slice(start, end)
        keep[:, here] = evidence.choose(np.abs(weight[:, here]) / diagonal[:, here], start)
        for i in range(start, end):
            error = np.where(keep[:, i], 0.0, weight[:, i]) / diagonal[:, i]  # [groups, O]
            weight[:, i:] -= factor[:, i, i:, None] * error[:, None, :]
    return weight * keep, keep
