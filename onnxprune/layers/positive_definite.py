"""The inverse of second moments: symmetric, positive definite, and often large."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from onnxprune.typing import Array

# Matrices up to this size are inverted by LAPACK at once.
SMALL = 256
# Largest error of outputs, a share of their norm, by weights that an inverse in single precision gives.
NEGLIGIBLE = 1e-3
# Largest quotient of two eigenvalues for which single precision is tried, since it mostly fails beyond; powers that are
# taken for the largest one.
WORST, POWERS = 2e4, 6


def inverse(matrix: Array) -> Array:
    """Invert symmetric positive definite matrices.

    By blocks, [A B; B' C]^-1 = [A^-1 + P S^-1 P', -P S^-1; -S^-1 P', S^-1] with P = A^-1 B and S = C - B' P, over and
    over until blocks are small. All of the work is in products of matrices, half as many operations as elimination with
    pivots takes, which definite matrices do not need.

    Args:
        matrix: [..., D, D].

    Returns:
        The inverses, [..., D, D].

    Raises:
        numpy.linalg.LinAlgError: a matrix is singular.

    Source: Golub and Van Loan, "Matrix Computations", 4th edition, 2013, section 4.2 (stability of the blocks).
    """
    size = matrix.shape[-1]
    if size <= SMALL:
        return np.linalg.inv(matrix)
    half = size // 2
    side = matrix[..., :half, half:]
    first = inverse(matrix[..., :half, :half])
    turned = first @ side
    last = inverse(matrix[..., half:, half:] - np.swapaxes(side, -1, -2) @ turned)
    between = turned @ last
    made = np.empty_like(first, shape=matrix.shape)
    made[..., half:, half:] = last
    made[..., :half, half:] = -between
    made[..., half:, :half] = -np.swapaxes(between, -1, -2)
    made[..., :half, :half] = first + between @ np.swapaxes(turned, -1, -2)
    return made


def quick_inverse(matrix: Array, least: float) -> Array:
    """Invert damped second moments of a layer's inputs in single precision, where that is enough.

    It is not tried where the largest eigenvalue says that it would fail. Then it is tried with random weights: these,
    regressed from the moments of inputs and of outputs that they make, must give the same outputs.

    Args:
        matrix: float64[..., D, D].
        least: a number that no eigenvalue is below.

    Returns:
        The inverses, float32[..., D, D] where these are good enough, else float64.

    Raises:
        numpy.linalg.LinAlgError: a matrix is singular.
    """
    weight = np.random.default_rng(0).standard_normal((matrix.shape[-1], 1))
    cross = matrix @ weight
    if _largest_eigenvalue(matrix, cross) > WORST * least:
        return inverse(matrix)
    with np.errstate(all="ignore"), suppress(np.linalg.LinAlgError):
        found = inverse(matrix.astype(np.float32))
        error = found @ cross - weight
        squares = [np.sum(w * (matrix @ w), axis=(-2, -1)) for w in (error, weight)]
        if (squares[0] <= NEGLIGIBLE**2 * squares[1]).all():
            return found
    return inverse(matrix)


def _largest_eigenvalue(matrix: Array, start: Array) -> float:
    """The largest eigenvalue of any of the matrices, to some percent, by powers."""
    vector = start
    for _ in range(POWERS):
        vector = matrix @ (vector / np.maximum(np.linalg.norm(vector, axis=-2, keepdims=True), 1e-300))
    return float(np.linalg.norm(vector, axis=-2).max(initial=0.0))
