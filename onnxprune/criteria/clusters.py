"""Rows of coefficients that are multiples of each other."""

from __future__ import annotations

import numpy as np

from onnxprune.typing import Array


def clusters(keys: Array, vectors: Array, tolerance: float, *, up_to_factor: bool = True) -> tuple[Array, Array]:
    """Rows that are equal, or positive multiples of each other.

    Args:
        keys: int64[n, k], what must be the same.
        vectors: float64[n, m], what must be equal to `tolerance` of its largest entry.
        tolerance: see `vectors`.
        up_to_factor: a positive factor makes no difference.

    Returns:
        An id, the first row that is alike, and the factor of that row that every row is: int64[n], float64[n]. Rows of
        zeros, and of what is no number, are alone.
    """
    largest = np.abs(vectors).max(axis=1) if vectors.shape[1] else np.zeros(len(vectors))
    usable = np.isfinite(vectors).all(axis=1) & ((largest > 0) | (not up_to_factor))
    scale = np.where(usable & (largest > 0), largest, 1.0) if up_to_factor else np.ones(len(vectors))
    unit = vectors / scale[:, None]
    along = unit @ np.random.default_rng(0).uniform(0.5, 1.0, vectors.shape[1])
    width = tolerance * np.maximum(1.0, largest / scale)
    ids = np.arange(len(vectors))
    order = np.lexsort((along, *keys.T))
    order = order[usable[order]]
    for place, row in enumerate(order):
        for before in order[max(0, place - 1) :: -1] if place else ():
            near = along[row] - along[before] <= vectors.shape[1] * width[row]
            if not near or (keys[row] != keys[before]).any():
                break
            if ids[before] == before and np.abs(unit[row] - unit[before]).max(initial=0.0) <= width[row]:
                ids[row] = before
                break
    names, numbers = np.unique(ids, return_inverse=True)
    firsts = np.full(len(names), len(ids))
    np.minimum.at(firsts, numbers, np.arange(len(ids)))
    ids = firsts[numbers]
    return ids, scale / scale[ids]
