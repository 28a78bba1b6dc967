"""Arrays cut down to what masks keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.typing import Array


def kept_axes(mask: Array) -> list[Array] | None:
    """The positions that a mask keeps of every axis; None where they differ from row to row."""
    lines = [np.flatnonzero(mask.any(tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)]
    return lines if np.prod([len(line) for line in lines]) == mask.sum() else None


def kept_shape(mask: Array, name: str) -> tuple[int, ...]:
    """The shape of what a mask keeps.

    Raises:
        UsageError: rows keep different numbers of positions.
    """
    whole = [int(mask.any(tuple(a for a in range(mask.ndim) if a != axis)).sum()) for axis in range(mask.ndim)]
    total = int(mask.sum())
    if np.prod(whole) == total:
        return tuple(whole)
    for axis in range(mask.ndim):
        counts = mask.sum(axis)
        shape = [*whole[:axis], int(counts.max()), *whole[axis + 1 :]]
        if (counts[counts > 0] == counts.max()).all() and np.prod(shape) == total:
            return tuple(shape)
    raise UsageError(f"the mask of {name!r} keeps different numbers of positions in its rows")


def sliced(array: Any, mask: Array, name: str) -> Any:
    """The part of an array, or of a tensor of another framework, that a mask keeps.

    Raises:
        UsageError: shapes differ, or rows keep different numbers of positions.
    """
    if tuple(array.shape) != mask.shape:
        raise UsageError(f"{name!r} has shape {list(array.shape)}, its mask {list(mask.shape)}")
    lines = kept_axes(mask)
    if lines is None:
        return array[mask].reshape(kept_shape(mask, name))
    for axis, line in enumerate(lines):
        if len(line) < mask.shape[axis]:
            array = array[(slice(None),) * axis + (line,)]
    return array


def slice_state_dict(state: Mapping[str, Any], masks: Mapping[str, Array]) -> dict[str, Any]:
    """Cut the arrays of a checkpoint down to what masks keep.

    Args:
        state: name -> array or tensor.
        masks: name -> bool, of the array's shape; what has none stays whole.

    Returns:
        The arrays by name, in the order of `state`.

    Raises:
        UsageError: a mask is of an array that is not there, or of another shape.
    """
    missing = [name for name in masks if name not in state]
    if missing:
        raise UsageError(f"there is no array {missing[0]!r} to cut", hint="the masks are of another checkpoint")
    return {n: sliced(array, masks[n], n) if n in masks else array for n, array in state.items()}


def slice_layers(
    layers: Mapping[str, Sequence[Array]], masks: Mapping[str, Sequence[Array | None]]
) -> dict[str, list[Array]]:
    """Cut the weights of layers, as `layer.get_weights()` of Keras lists them, down to what masks keep.

    Args:
        layers: name of the layer -> its arrays.
        masks: name of the layer -> a mask for every array, None where it stays whole.

    Returns:
        The arrays by layer.

    Raises:
        UsageError: a mask is of another shape than its array.
    """
    return {
        name: [
            array if mask is None else sliced(array, mask, f"{name}/{k}")
            for k, (array, mask) in enumerate(zip(arrays, masks.get(name, [None] * len(arrays)), strict=True))
        ]
        for name, arrays in layers.items()
    }
