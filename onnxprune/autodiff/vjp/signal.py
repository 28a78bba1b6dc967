"""Fourier transforms: linear along an axis, so the adjoint is a product with the transposed matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.autodiff.builder import Value
from onnxprune.autodiff.registry import BackwardNode, register_vjp
from onnxprune.autodiff.vjp.layout import along_axis
from onnxprune.typing import Array

Gradients = Sequence[Value | None]


@register_vjp("DFT")
def _dft(node: BackwardNode) -> Gradients:
    x, y, given = node.x, node.y, node.attributes
    if node.graph.opset < 20:
        axis = given.get("axis", 1) % x.rank
    else:
        axis = int(node.constant(2, "the axis of DFT").reshape(-1)[0]) % x.rank if node.has(2) else x.rank - 2
    length = int(node.constant(1, "the length of DFT").reshape(-1)[0]) if node.has(1) else None
    shape = x.shape[axis], x.shape[-1], y.shape[axis], y.shape[-1]
    inverse, onesided = bool(given.get("inverse")), bool(given.get("onesided"))
    matrix = fourier_matrix(shape, length, inverse=inverse, onesided=onesided).astype(x.dtype)
    # Real and imaginary parts go behind the axis, so that both are one.
    order = [*(a for a in range(x.rank - 1) if a != axis), axis, x.rank - 1]
    moved = node.dy.transpose(order)
    joined = moved.reshape([*moved.shape[:-2], moved.shape[-2] * moved.shape[-1]])
    gradient = along_axis(joined, joined.rank - 1, np.ascontiguousarray(matrix.T))
    apart = gradient.reshape([*moved.shape[:-2], x.shape[axis], x.shape[-1]])
    return node.only_first(apart.transpose([int(a) for a in np.argsort(order)]))


def fourier_matrix(shape: tuple[int, int, int, int], length: int | None, *, inverse: bool, onesided: bool) -> Array:
    """Make the matrix of a discrete Fourier transform.

    Args:
        shape: positions and parts (1 real, 2 complex) before, positions and parts after.
        length: of the transform; the number of positions before if None (after, where a half spectrum is turned back).
        inverse: back from the spectrum.
        onesided: half of the spectrum, of real numbers.

    Returns:
        float64[positions * parts before, positions * parts after].
    """
    before, parts, after, made = shape
    unit = np.eye(before)
    basis = np.stack([unit, 1j * unit][:parts], 1).reshape(before * parts, before)
    if inverse and onesided:
        result = np.fft.irfft(basis, n=length or after, axis=1).astype(complex)
    else:
        transform = np.fft.ifft if inverse else np.fft.fft
        result = transform(basis, n=length or before, axis=1)[:, :after]
    pairs = np.stack([result.real, result.imag][:made], 2)
    return np.asarray(pairs.reshape(before * parts, after * made))
