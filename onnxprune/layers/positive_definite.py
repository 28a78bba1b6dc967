"""The inverse of second moments: symmetric, positive definite, and often large."""

from __future__ import annotations

import numpy as np

from onnxprune.typing import Array

# Matrices up to this size are inverted by LAPACK at once.
SMALL = 256


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
