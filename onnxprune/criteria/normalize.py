"""Normalisation of scores, so that groups can be compared in a ranking over the whole model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.typing import Array

_TINY = 1e-30  # a group whose scores are all zero stays at zero

_DIVISORS: dict[str, tuple[str, Callable[[Array], float]]] = {
    "mean": ("over the mean of its group", lambda s: float(np.abs(s).mean())),
    "max": ("over the largest of its group", lambda s: float(np.abs(s).max())),
    "sum": ("over the sum of its group: units of wide groups go first", lambda s: float(np.abs(s).sum())),
    "none": ("as it is", lambda s: 1.0),
}
NORMALIZATIONS = {name: text for name, (text, _) in _DIVISORS.items()} | {
    "standard": "in standard deviations from the mean of its group"
}


def normalized(scores: Array, how: str) -> Array:
    """Make the scores of one group's units comparable with those of other groups.

    Args:
        scores: float64[units].
        how: one of `NORMALIZATIONS`.

    Returns:
        float64[units].
    """
    if how == "standard":
        return (scores - scores.mean()) / max(float(scores.std()), _TINY)
    return scores / max(_DIVISORS[how][1](scores), _TINY)


def accumulated(scores: Array, accumulates: bool) -> Array:
    """Add up the damage that a group takes while its units are removed.

    Args:
        scores: float64[units], of its units, in the order in which they are removed.
        accumulates: a score is that damage itself; otherwise the shares of the scores in their sum add up to it.

    Returns:
        float64[units + 1]: the damage after 0, 1, ... units were removed.
    """
    if not accumulates:
        shares = scores - min(0.0, float(scores.min(initial=0.0)))
        scores = np.cumsum(shares / max(float(shares.sum()), _TINY))
    return np.concatenate([[0.0], scores])
