"""Equations with second moments, and their inverses: symmetric, positive definite, often large, and badly scaled."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from onnxprune.typing import Array

# Matrices up to this size are factored by LAPACK at once.
SMALL = 256
# Largest error of outputs, a share of their norm, by weights that equations in single precision give.
NEGLIGIBLE = 1e-3


def _turned(matrix: Array) -> Array:
    return np.swapaxes(matrix, -1, -2)


class Cholesky:
    """The lower factor L of symmetric positive definite matrices A = L L', by blocks.

    L = [L1 0; G' L2], with L1 of A11, G = L1^-1 A12, and L2 of A22 - G' G, over and over until blocks are small, which
    hold the inverse of their factor. All of the work is in products of matrices, a quarter of the operations that an
    inverse takes. Factors, unlike inverses by blocks, lose no digits from block to block.

    Source: Golub and Van Loan, "Matrix Computations", 4th edition, 2013, sections 4.2.8 and 4.2.9.
    """

    def __init__(self, matrix: Array) -> None:
        """Factor float[..., D, D].

        Raises:
            numpy.linalg.LinAlgError: a matrix is not positive definite.
        """
        self._half = matrix.shape[-1] // 2
        self._parts: tuple[Cholesky, Array, Cholesky] | None = None
        if matrix.shape[-1] <= SMALL:
            self._inverse = np.linalg.inv(np.linalg.cholesky(matrix))
            return
        rows, columns = matrix[..., : self._half, :], matrix[..., self._half :, self._half :]
        first = Cholesky(rows[..., : self._half])
        side = first.lower(rows[..., self._half :])
        self._parts = first, side, Cholesky(columns - _turned(side) @ side)

    def lower(self, given: Array) -> Array:
        """L^-1 times [..., D, n]."""
        if self._parts is None:
            return np.asarray(self._inverse @ given)
        first, side, last = self._parts
        found = first.lower(given[..., : self._half, :])
        return np.concatenate([found, last.lower(given[..., self._half :, :] - _turned(side) @ found)], axis=-2)

    def upper(self, given: Array) -> Array:
        """L'^-1 times [..., D, n]."""
        if self._parts is None:
            return np.asarray(_turned(self._inverse) @ given)
        first, side, last = self._parts
        found = last.upper(given[..., self._half :, :])
        return np.concatenate([first.upper(given[..., : self._half, :] - side @ found), found], axis=-2)

    def solve(self, given: Array) -> Array:
        """A^-1 times [..., D, n], in the precision of the factor."""
        return self.upper(self.lower(given.astype(self.dtype, copy=False)))

    def inverse(self) -> Array:
        """A^-1, [..., D, D]."""
        lower = self._lower_inverse()
        return np.asarray(_turned(lower) @ lower)

    def _lower_inverse(self) -> Array:
        """L^-1, [..., D, D]."""
        if self._parts is None:
            return self._inverse
        first, side, last = self._parts
        one, two = first._lower_inverse(), last._lower_inverse()
        below = -two @ (_turned(side) @ one)
        above = np.zeros_like(_turned(below))
        return np.concatenate([np.concatenate([one, above], axis=-1), np.concatenate([below, two], axis=-1)], axis=-2)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision of the factor."""
        return self._inverse.dtype if self._parts is None else self._parts[0].dtype


class LowRankFactor:
    """The factor of A = l I + H' H for fewer rows of H than columns, by that of l I + H H'.

    A^-1 = (I - H' (l I + H H')^-1 H) / l, the Woodbury identity. Source: Golub and Van Loan, "Matrix Computations", 4th
    edition, 2013, section 2.1.4.
    """

    def __init__(self, half: Array, added: Array) -> None:
        """Factor l I + H' H.

        Args:
            half: H, float64[..., n, D].
            added: l, [..., 1, 1], above zero.
        """
        self._half, self._added = half, added
        self._small = Cholesky(half @ _turned(half) + added * np.eye(half.shape[-2]))

    def solve(self, given: Array) -> Array:
        """A^-1 times [..., D, n]."""
        seen = _turned(self._half) @ self._small.solve(self._half @ given)
        return np.asarray((given - seen) / self._added)


def inverse(matrix: Array) -> Array:
    """Invert symmetric positive definite matrices.

    Args:
        matrix: [..., D, D].

    Returns:
        The inverses, [..., D, D].

    Raises:
        numpy.linalg.LinAlgError: a matrix is not positive definite.
    """
    return Cholesky(matrix).inverse()


def quick_factor(matrix: Array, added: Array | float = 0.0) -> Cholesky:
    """Factor damped second moments of a layer's inputs in single precision, where that is enough.

    It is tried with random weights: these, regressed from the moments of inputs and of outputs that they make, must
    give the same outputs.

    Args:
        matrix: float[..., D, D].
        added: what is added to the diagonal, [..., 1, 1].

    Returns:
        The factor.

    Raises:
        numpy.linalg.LinAlgError: a matrix is not positive definite.
    """
    weight = np.random.default_rng(0).standard_normal((matrix.shape[-1], 1)).astype(matrix.dtype)
    with np.errstate(all="ignore"), suppress(np.linalg.LinAlgError):
        found = Cholesky(_damped(matrix, added, np.float32))
        error = found.solve(matrix @ weight + added * weight) - weight
        squares = [np.sum(w * (matrix @ w + added * w), axis=(-2, -1), dtype=np.float64) for w in (error, weight)]
        if (squares[0] <= NEGLIGIBLE**2 * squares[1]).all():
            return found
    return Cholesky(_damped(matrix, added, np.float64))


def _damped(matrix: Array, added: Array | float, precision: type[np.floating]) -> Array:
    """A copy with so much added to the diagonal."""
    found = matrix.astype(precision)
    np.einsum("...ii->...i", found)[...] += np.asarray(added, precision)[..., 0] if np.ndim(added) else added
    return found
