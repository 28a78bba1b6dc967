"""A weight as the product of two smaller ones, with the least error of the layer's outputs.

With H the second moment of the inputs of a layer y = x W, the outputs vary by W^T H W. Let V_r be its first r
eigenvectors: W V_r V_r^T is, of all matrices of rank r, the one with the least squared error of the outputs, which is
the sum of the other eigenvalues; W V_r and V_r^T are its factors. This is the truncated decomposition of S W, with S^T
S = H, without an inverse of S. Without data H is the identity, and it is the truncated decomposition of W.

In sequence, x are the inputs that the changed model gives, and W is replaced by what is best for them, (H + l I)^-1
(G + l W), G the cross moment with the outputs of the original.

Source: Wang et al., "SVD-LLM: Truncation-aware Singular Value Decomposition for Large Language Model Compression",
2024, section 3 (the whitened decomposition).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.layers.factor_forms import Directions
from onnxprune.typing import Array

# Ridge added to the second moment, relative to the mean of its diagonal.
DAMPING = 1e-2


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The directions in which the outputs of a layer vary.

    Attributes:
        energy: float64[n], what every direction gives of the squared outputs, the most first.
        basis: float64[O, n], the directions: orthonormal columns.
    """

    energy: Array
    basis: Array

    def lost(self) -> Array:
        """float64[n + 1]: the share of the energy that is lost with the first 0, 1, ... n directions."""
        left = np.concatenate([np.cumsum(self.energy[::-1])[::-1], [0.0]])
        return np.asarray(left / max(float(left[0]), 1e-300))


def spectrum(weight: Array, second: Array | None = None) -> Spectrum:
    """Find the directions in which the outputs of a layer vary.

    Args:
        weight: float64[D, O].
        second: second moment of the inputs, [D, D]; that of independent inputs where None.

    Returns:
        The directions, as many as the weight has rows or columns, whichever are fewer.
    """
    inner, outer = weight.shape
    if outer <= inner:
        read = weight if second is None else second @ weight + _ridge(second) * weight
        values, vectors = np.linalg.eigh(weight.T @ read)
        return Spectrum(np.maximum(values[::-1], 0.0), vectors[:, ::-1])
    whitened = weight if second is None else _root(second) @ weight
    values, turned = np.linalg.eigh(whitened @ whitened.T)
    basis = np.linalg.qr(whitened.T @ turned[:, ::-1])[0]
    return Spectrum(np.maximum(values[::-1], 0.0), basis)


def entering_basis(weight: Array, second: Array | None, head: int) -> Array:
    """Find the directions of what enters that matter most, for a weight whose rows are `head` times some places.

    The second moment of what enters is that of all places together. The directions span what is left of the weight by
    the best approximation of each rank.

    Args:
        weight: float64[D, O].
        second: second moment of the inputs, [D, D]; that of independent inputs where None.
        head: how many directions there are at most.

    Returns:
        float64[head, n], orthonormal columns, those that matter most first.
    """
    rows, places = weight.reshape(head, -1), len(weight) // head
    shape = (head, places, head, places)
    together = None if second is None else np.trace(second.reshape(shape), axis1=1, axis2=3)
    return np.asarray(np.linalg.qr(rows @ spectrum(rows, together).basis)[0])


def best_weight(weight: Array, second: Array, cross: Array) -> Array:
    """The weight with the least squared error of the outputs on the inputs that there are now, near the one there is.

    Args:
        weight: float64[D, O].
        second: second moment of the inputs, [D, D].
        cross: their cross moment with the outputs that the layer should give, [D, O].

    Returns:
        float64[D, O].
    """
    ridge = DAMPING * max(float(np.trace(second)) / len(second), 1e-30)
    return np.asarray(np.linalg.solve(_damped(second, ridge), cross + ridge * weight))


@dataclass(frozen=True, eq=False)
class TurnedWeight:
    """A weight and the moments of its inputs on directions of what enters; the first few are a corner of them.

    Attributes:
        weight: float64[directions * places, O].
        second: second moment of the inputs, [directions * places, directions * places]; that of independent inputs
            where None.
        cross: cross moment of the inputs with the outputs that the layer should give, [directions * places, O].
    """

    weight: Array
    second: Array | None
    cross: Array

    def on(self, start: Directions) -> TurnedWeight:
        """The same on directions of what enters."""
        if start.entering is None:
            return self
        second = None if self.second is None else start.entered_moment(self.second)
        return TurnedWeight(start.entered(self.weight), second, start.entered(self.cross))

    def corner(self, rows: int) -> TurnedWeight:
        """The same on the first directions, which have so many rows."""
        second = None if self.second is None else self.second[:rows, :rows]
        return TurnedWeight(self.weight[:rows], second, self.cross[:rows])

    def fitted(self) -> Array:
        """The weight with the least squared error of the outputs."""
        return self.weight if self.second is None else best_weight(self.weight, self.second, self.cross)

    def explained(self, weight: Array) -> float:
        """By how much another weight here lowers the squared outputs that are missing."""
        return 2 * float((weight * self.cross).sum()) - output_energy(weight, self.second)


def weight_behind(weight: Array, start: Directions, moments: tuple[Array, Array] | None) -> Array:
    """The weight behind the directions of what enters, with the least squared error of the outputs.

    Args:
        weight: float64[D, O].
        start: the directions; without any, the weight stays as it is.
        moments: second moment of the inputs, and their cross moment with the outputs that the layer should give; None
            for the projection of the weight.

    Returns:
        float64[directions * places, O].
    """
    if moments is None or start.entering is None:
        return start.entered(weight)
    return TurnedWeight(weight, *moments).on(start).fitted()


def output_energy(weight: Array, second: Array | None) -> float:
    """The squared outputs of a layer.

    Args:
        weight: float64[D, O].
        second: second moment of the inputs, [D, D]; that of independent inputs where None.

    Returns:
        Their sum.
    """
    return float((weight * (weight if second is None else second @ weight)).sum())


def _ridge(second: Array) -> float:
    """What is added to the diagonal of a second moment where directions are found."""
    return 1e-8 * max(float(np.trace(second)) / len(second), 1e-30)


def _root(second: Array) -> Array:
    """S with S^T S = H, some ridge added."""
    ridge = _ridge(second)
    values, vectors = np.linalg.eigh(_damped(second, ridge))
    return np.asarray(np.sqrt(np.maximum(values, ridge))[:, None] * vectors.T)


def _damped(second: Array, ridge: float) -> Array:
    """A second moment with some ridge on its diagonal."""
    damped = second.copy()
    damped.flat[:: len(second) + 1] += ridge
    return damped
