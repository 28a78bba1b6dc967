"""First-order change of the outputs when a weight goes: the squares of weight and gradient.

The gradients are those of randomly signed outputs (`criteria/output_gradients.py`), so no labels are needed.

Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019, eq. 8; of single weights: Lee et
al., "SNIP", 2019, eq. 4.
"""

from __future__ import annotations

import numpy as np

from onnxprune.sparsity.registry import LayerEvidence, scoring
from onnxprune.typing import Array


@scoring("taylor", needs_data=True, needs_gradients=True, source="Molchanov et al. 2019, arXiv:1906.10771")
def squared_movement(evidence: LayerEvidence) -> Array:
    """Square of the weight times the mean square of its gradient."""
    assert evidence.gradient is not None
    return np.square(evidence.weight) * evidence.gradient
