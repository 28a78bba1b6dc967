"""How many zeros every weight gets, where all weights are compared.

The damage of an element is its squared score, the squared weight times the mean square of its input where that is
known, relative to the sum over its layer: what the layer's output loses. All elements of all layers are ranked by it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.typing import Array

# Steps of the search for the threshold.
STEPS = 60


def shares_by_damage(damage: Mapping[str, Array], share: float, floor: float) -> dict[str, float]:
    """Distribute zeros over weights so that the damage is least.

    Args:
        damage: name of a weight -> the damage of every element, relative to its layer.
        share: of all elements that go.
        floor: share of its elements that every weight keeps.

    Returns:
        Name -> the share of its elements that go.
    """
    ordered = {name: np.sort(values, axis=None) for name, values in damage.items()}
    total = sum(values.size for values in ordered.values())

    def zeros_below(threshold: float) -> dict[str, int]:
        return {
            name: min(int(np.searchsorted(values, threshold)), int((1 - floor) * values.size))
            for name, values in ordered.items()
        }

    low, high = -80.0, 1.0  # logarithms of a damage, of which none exceeds one
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if sum(zeros_below(float(np.exp(middle))).values()) <= share * total else (low, middle)
        )
    return {name: count / ordered[name].size for name, count in zeros_below(float(np.exp(low))).items()}
