"""Where the elements of an array of a checkpoint are in a model's weights, found by their values.

Exporters turn kernels around, put several into one, cut one into several, and multiply norms into them. Elements are
followed one by one, so that all of these are the same question: which element of which weight is this?
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np

from onnxprune.typing import Array

# Relative error of a product in single precision with a scale that was computed in single precision.
_ROUNDING = 2e-5
# Rows shorter than this are found in many places by chance.
_SHORTEST = 4


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight as one use in a model reads it.

    Attributes:
        name: of the initializer.
        key: of the use.
        value: its elements.
        keep: bool, of the same shape; None where nothing goes.
        paths: places in the source's tree of modules that the exporter wrote beside the use.
        is_bias: whether it is added only: folding adds other arrays to it, and no array is found in it.
    """

    name: str
    key: str
    value: Array
    keep: Array | None
    paths: frozenset[str] = frozenset()
    is_bias: bool = False

    def kept(self, places: Array) -> Array:
        """bool: of flat places in this weight, those that stay."""
        return np.ones(places.shape, bool) if self.keep is None else self.keep.reshape(-1)[places]


@dataclass(frozen=True, eq=False)
class Origin:
    """A weight that an array became.

    Attributes:
        weight: the weight.
        places: for every element of the array, its flat place in the weight; -1 where another weight has it.
        scale: what the outputs were multiplied by, along `axis`; None for nothing.
        axis: axis of the array that `scale` lies along.
    """

    weight: Weight
    places: Array
    scale: Array | None = None
    axis: int = 0


def origins(array: Array, weights: Mapping[tuple[int, ...], list[Weight]]) -> list[Origin]:
    """Weights whose elements are those of an array, with the axes in any order.

    Args:
        array: the array.
        weights: lists of weights by their sorted sizes without those of one, as `by_sizes` returns them.
    """
    found = []
    for weight in weights.get(_sizes(array), ()):
        for places in _orders(array, weight.value):
            turned = weight.value.reshape(-1)[places]
            if np.array_equal(turned, array.astype(turned.dtype)):
                found.append(Origin(weight, places))
                break
    return found


def by_sizes(weights: list[Weight]) -> dict[tuple[int, ...], list[Weight]]:
    """Weights by their sorted sizes without those of one."""
    found: dict[tuple[int, ...], list[Weight]] = {}
    for weight in weights:
        found.setdefault(_sizes(weight.value), []).append(weight)
    return found


def scaled_origins(array: Array, weights: Mapping[tuple[int, ...], list[Weight]]) -> list[Origin]:
    """Weights that are an array times one number for each position of an axis: a norm was multiplied into it."""
    if array.ndim < 2:
        return []
    found = []
    for weight in weights.get(_sizes(array), ()):
        for places in _orders(array, weight.value):
            turned = weight.value.reshape(-1)[places].astype(np.float64)
            axis = next((a for a in range(array.ndim) if _scale(array, turned, a) is not None), None)
            if axis is not None:
                found.append(Origin(weight, places, scale=_scale(array, turned, axis), axis=axis))
                break
    return found


def _scale(array: Array, turned: Array, axis: int) -> Array | None:
    """The factors along an axis that make `turned` of an array; None where there are none."""
    if array.shape[axis] == array.size:  # any row of one element is another times a number
        return None
    source = np.moveaxis(array.astype(np.float64), axis, 0).reshape(array.shape[axis], -1)
    target = np.moveaxis(turned, axis, 0).reshape(array.shape[axis], -1)
    squares = (source * source).sum(1)
    if not squares.all():
        return None
    scale = (source * target).sum(1) / squares
    error = np.abs(target - scale[:, None] * source).max(1)
    return scale if (error <= _ROUNDING * np.abs(target).max(1)).all() else None


def _sizes(array: Array) -> tuple[int, ...]:
    return tuple(sorted(n for n in array.shape if n > 1))


def _orders(array: Array, value: Array) -> Iterator[Array]:
    """Ways to lay the axes of a weight out in the shape of an array: flat places, in the array's shape."""
    long = [n for n in value.shape if n > 1]
    wanted = [n for n in array.shape if n > 1]
    count = math.prod(value.shape)
    grid = np.arange(count).reshape(long)
    for order in permutations(range(len(long))):
        if [long[a] for a in order] == wanted:
            yield grid.transpose(order).reshape(array.shape)


class RowPlaces:
    """Rows of weights by their elements: for arrays that were joined with others, or cut, or reordered."""

    def __init__(self, weights: list[Weight]) -> None:
        """Index the rows of all weights of two axes or more."""
        self._weights = [w for w in weights if w.value.ndim > 1 and w.value.dtype.kind == "f"]

    @cached_property
    def _places(self) -> dict[bytes, list[tuple[int, Array]]]:
        found: dict[bytes, list[tuple[int, Array]]] = {}
        for number, weight in enumerate(self._weights):
            for rows, places in _views(weight.value):
                for row, place in zip(rows, places, strict=True):
                    found.setdefault(row.tobytes(), []).append((number, place))
        return found

    def origins(self, array: Array) -> list[Origin]:
        """The weights that the rows of an array, along its first axis, became; rows that are nowhere have no places.

        A row that is in several places says nothing.
        """
        if array.ndim < 2 or array.size // len(array) < _SHORTEST:
            return []
        parts: dict[int, Array] = {}
        for index, row in enumerate(np.ascontiguousarray(array).reshape(len(array), -1)):
            found = self._places.get(row.tobytes(), ())
            if len(found) == 1:
                number, place = found[0]
                places = parts.setdefault(number, np.full((len(array), row.size), -1, np.int64))
                places[index] = place
        return [Origin(self._weights[n], places.reshape(array.shape)) for n, places in parts.items()]


def _views(value: Array) -> Iterator[tuple[Array, Array]]:
    """Rows of a weight, and the flat places of their elements: along the first axis, and columns of a matrix.

    Axes of size one (the directions of a recurrent layer) are left out.
    """
    long = [n for n in value.shape if n > 1]
    if len(long) < 2:
        return
    matrix, grid = value.reshape(long), np.arange(value.size).reshape(long)
    yield np.ascontiguousarray(matrix).reshape(long[0], -1), grid.reshape(long[0], -1)
    if len(long) == 2:
        yield np.ascontiguousarray(matrix.T), grid.T
    if len(long) == 3:  # both directions of a recurrent layer
        yield np.ascontiguousarray(matrix).reshape(long[0] * long[1], -1), grid.reshape(long[0] * long[1], -1)
