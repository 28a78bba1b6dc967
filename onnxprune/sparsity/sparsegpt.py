"""One input after the other: the inputs that are still to come make up for the elements that go.

With U the upper Cholesky factor of the inverse second moment, an element of input i costs w^2 / U_ii^2; when it goes,
the weights of every later input change (`layers/error_feedback.py`). The elements that go are chosen for some inputs at
a time.

Source: Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", 2023,
algorithm 1.
"""

from __future__ import annotations

import itertools

import numpy as np

from onnxprune.layers import settled, sweep_factor
from onnxprune.sparsity.registry import LayerEvidence, Masked, masking
from onnxprune.typing import Array


@masking("sparsegpt", needs_data=True, refits=True, source="Frantar and Alistarh 2023, arXiv:2301.00774")
def sparsegpt(evidence: LayerEvidence) -> Masked:
    """Elements whose removal later inputs make up for best, input by input."""
    factor = sweep_factor(evidence.hessian)
    diagonal = np.diagonal(factor, axis1=1, axis2=2)[:, :, None]
    keep, ends = evidence.weight != 0, dict(itertools.pairwise(evidence.bounds))

    def settle(weight: Array, i: int) -> Array:
        if i in ends:
            here = slice(i, ends[i])
            keep[:, here] = evidence.choose(np.abs(weight[:, here]) / diagonal[:, here], i)
        return np.where(keep[:, i], weight[:, i], 0.0)

    weight = settled(evidence.dense, factor, evidence.bounds, settle)
    return weight * keep, keep
