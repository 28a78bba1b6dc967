"""Elements of weights by unit: those that read it, whose zeros silence it, and all that it holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.layers.effective import Weights
from onnxprune.layers.readers import readers
from onnxprune.tracing import Groups, as_field
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class UnitAxis:
    """An axis of a weight along which units lie.

    Attributes:
        name: the weight.
        shape: its sizes.
        classes: the class of every position, with as many axes as the weight; -1 where it belongs to no group.
    """

    name: str
    shape: tuple[int, ...]
    classes: Array

    def kept(self, gone: Array) -> Array:
        """bool, of the weight's shape: the elements of classes that stay."""
        return np.array(np.broadcast_to(~np.append(gone, False)[self.classes], self.shape))

    def laid_out(self, values: Array) -> Array:
        """Values of all classes where the weight has their positions, broadcastable to it; 1 elsewhere."""
        return np.append(values, 1.0)[self.classes]

    def sums(self, amounts: Array, count: int) -> Array:
        """float64[count]: amounts of the weight's shape, summed over all elements of a class."""
        along = tuple(a for a, n in enumerate(self.classes.shape) if n == 1)
        summed, ids = amounts.sum(axis=along, dtype=np.float64).reshape(-1), self.classes.reshape(-1)
        held = ids >= 0
        return np.bincount(ids[held], weights=summed[held], minlength=count)


def unit_reads(groups: Groups, names: Collection[str]) -> list[UnitAxis]:
    """Find where units are read.

    Args:
        groups: the traced model.
        names: the weights that may count; one that several nodes cut differently never does.

    Returns:
        Axes of weights, in graph order.
    """
    return list(_found(groups, names))


def unit_axes(groups: Groups, names: Collection[str]) -> list[UnitAxis]:
    """Find what units hold: every axis of a weight that some group cuts, but for statistics of norms.

    Args:
        groups: the traced model.
        names: the weights that may count; one that several nodes cut differently never does.

    Returns:
        Axes of weights, in graph order.
    """
    weights, tracing, found = Weights(groups), groups.tracing, list[UnitAxis]()
    for key, axes in tracing.weights_axes():
        name = tracing.weights[key]
        if name not in names or name in tracing.duplicated_per_use or key in tracing.statistics:
            continue
        for axis, labels in enumerate(axes):
            if weights.in_groups(labels):
                found.append(_axis(groups, weights, name, as_field(labels, axis, len(axes))))
    return found


def norm_scales(groups: Groups, names: Collection[str]) -> list[tuple[UnitAxis, UnitAxis]]:
    """Find scale and shift of every BatchNormalization whose channels are units.

    Args:
        groups: the traced model.
        names: the weights that may count, as for `unit_axes`.

    Returns:
        Pairs (scale, shift), in graph order.
    """
    axes = {axis.name: axis for axis in unit_axes(groups, names) if len(axis.shape) == 1}
    nodes = (view.node for view, _ in groups.tracing.views if view.node.op_type == "BatchNormalization")
    pairs = (tuple(node.input[1:3]) for node in nodes)
    return [(axes[scale], axes[shift]) for scale, shift in pairs if scale in axes and shift in axes]


def _found(groups: Groups, names: Collection[str]) -> Iterator[UnitAxis]:
    weights, tracing, met = Weights(groups), groups.tracing, set[tuple[str, tuple[int, ...]]]()
    for reader in readers(weights):
        if reader.part is None or reader.weight_field is None:
            continue
        name = tracing.weights[reader.part.key]
        if name not in names or name in tracing.duplicated_per_use or (name, reader.weight_field.shape) in met:
            continue
        met.add((name, reader.weight_field.shape))
        yield _axis(groups, weights, name, reader.weight_field)


def _axis(groups: Groups, weights: Weights, name: str, labels: Array) -> UnitAxis:
    classes = weights.classes(labels)
    classes = np.where(groups.group_of[np.maximum(classes, 0)] >= 0, classes, -1)
    return UnitAxis(name, tuple(groups.tracing.static.shapes[name]), classes)
