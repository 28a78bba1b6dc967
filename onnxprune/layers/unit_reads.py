"""Elements of weights through which units are read: where they are zero, a unit gives nothing to anybody."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.layers.effective import Weights
from onnxprune.layers.readers import readers
from onnxprune.tracing import Groups
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class UnitRead:
    """An axis of a weight that a contraction sums over.

    Attributes:
        name: the weight.
        shape: its sizes.
        classes: the class of every position, with as many axes as the weight; -1 where it belongs to no group.
    """

    name: str
    shape: tuple[int, ...]
    classes: Array

    def kept(self, gone: Array) -> Array:
        """bool, of the weight's shape: the elements that read a class that stays."""
        return np.array(np.broadcast_to(~np.append(gone, False)[self.classes], self.shape))

    def sums(self, amounts: Array, count: int) -> Array:
        """float64[count]: amounts of the weight's shape, summed over all elements that read a class."""
        along = tuple(a for a, n in enumerate(self.classes.shape) if n == 1)
        summed, ids = amounts.sum(axis=along, dtype=np.float64).reshape(-1), self.classes.reshape(-1)
        held = ids >= 0
        return np.bincount(ids[held], weights=summed[held], minlength=count)


def unit_reads(groups: Groups, names: Collection[str]) -> list[UnitRead]:
    """Find where units are read.

    Args:
        groups: the traced model.
        names: the weights that may count; one that several nodes cut differently never does.

    Returns:
        Axes of weights, in graph order.
    """
    return list(_found(groups, names))


def _found(groups: Groups, names: Collection[str]) -> Iterator[UnitRead]:
    weights, tracing, met = Weights(groups), groups.tracing, set[tuple[str, tuple[int, ...]]]()
    for reader in readers(weights):
        if reader.part is None or reader.weight_field is None:
            continue
        name = tracing.weights[reader.part.key]
        if name not in names or name in tracing.unshared or (name, reader.weight_field.shape) in met:
            continue
        met.add((name, reader.weight_field.shape))
        classes = weights.classes(reader.weight_field)
        classes = np.where(groups.group_of[np.maximum(classes, 0)] >= 0, classes, -1)
        yield UnitRead(name, tuple(tracing.static.shapes[name]), classes)
