"""Weights settled one input after the other: the inputs that are still to come make up for the error.

With U the upper Cholesky factor of the inverse second moment H^-1 of a layer's inputs, settling the weights w of input
i at q changes the weights of every later input j by -U_ij (w - q) / U_ii. No other change of the later weights leaves a
smaller squared error of the layer's outputs.

Sources: Frantar and Alistarh, "SparseGPT", 2023, algorithm 1 (q is zero or w); Frantar et al., "GPTQ", 2022, algorithm
1 (q is the nearest number of a grid), whose lazy batches of updates these are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from onnxprune.layers.positive_definite import inverse
from onnxprune.typing import Array

# From the weights as they are by now, [groups, D, O], and the number of an input to what its weights become.
Settle = Callable[[Array, int], Array]


def sweep_factor(hessian: Array) -> Array:
    """Factorise the inverse of a second moment.

    Args:
        hessian: second moment of a layer's inputs, with a ridge, float64[groups, D, D].

    Returns:
        Upper triangular U with U^T U = H^-1, [groups, D, D].
    """
    found = inverse(hessian)
    return np.swapaxes(np.linalg.cholesky((found + np.swapaxes(found, 1, 2)) / 2), 1, 2)


def settled(weight: Array, factor: Array, bounds: Sequence[int], settle: Settle) -> Array:
    """Settle the weights of a layer, input by input.

    Args:
        weight: float64[groups, D, O].
        factor: that of the second moment of the inputs, see `sweep_factor`.
        bounds: 0, the inputs at which all later weights are brought up to date, and D. Between two of them, the weights
            of inputs beyond the second are behind.
        settle: says what the weights of an input become, [groups, O].

    Returns:
        The settled weights, [groups, D, O].
    """
    diagonal = np.diagonal(factor, axis1=1, axis2=2)[:, :, None]
    weight = weight.copy()
    for start, end in itertools.pairwise(bounds):
        errors = np.empty((len(weight), end - start, weight.shape[2]))
        for i in range(start, end):
            made = settle(weight, i)
            errors[:, i - start] = error = (weight[:, i] - made) / diagonal[:, i]
            weight[:, i] = made
            weight[:, i + 1 : end] -= factor[:, i, i + 1 : end, None] * error[:, None, :]
        weight[:, end:] -= np.swapaxes(factor[:, start:end, end:], 1, 2) @ errors
    return weight
