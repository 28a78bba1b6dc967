"""Readers of units: where contractions read a unit's activations, and which axes of their weights make units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.layers.effective import WeightPart, Weights
from onnxprune.model.graph import first_output
from onnxprune.tracing import NodeView, as_field
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class Reader:
    """An axis of an activation that a node sums over.

    Attributes:
        tensor: the activation.
        axis: its axis.
        field: its labels, with as many axes as the tensor.
        part: the weight that it is multiplied with; None where the other operand is an activation, or there is none.
        weight_field: the labels of the weight's axis that is summed over, with as many axes as the weight.
        made: the first output of the node.
    """

    made: str
    tensor: str
    axis: int
    field: Array
    part: WeightPart | None = None
    weight_field: Array | None = None

    def laid_along(self, values: Array, weights: Weights) -> Array:
        """`values`, one per entry of `field`, for every entry of `weight_field`."""
        assert self.weight_field is not None
        flat, labels, wanted = values.reshape(-1), self.field.reshape(-1), self.weight_field.reshape(-1)
        both_lines = self.field.size == self.field.shape[self.axis] and wanted.size == max(self.weight_field.shape)
        if both_lines and flat.size == wanted.size:
            return flat.reshape(self.weight_field.shape)
        if not np.isin(wanted, labels).all():  # tied, but not one to one: the mean of what is tied
            labels, wanted = weights.classes(labels), weights.classes(wanted)
        ids, place, count = np.unique(labels, return_inverse=True, return_counts=True)
        means = np.bincount(place.reshape(-1), weights=flat) / count
        found = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        return np.where(ids[found] == wanted, means[found], 0.0).reshape(self.weight_field.shape)


def readers(weights: Weights) -> list[Reader]:
    """Every read of an axis that some group cuts, in graph order."""
    found = []
    for view, _ in weights.groups.tracing.views:
        for masked_axis in view.masked_axes:
            labels = view.labels(masked_axis.slot)[masked_axis.axis]
            if masked_axis.averaged or not weights.in_groups(labels) or view.constant[masked_axis.slot]:
                continue
            tensor, rank = view.node.input[masked_axis.slot], len(view.shape(masked_axis.slot))
            field = as_field(labels, masked_axis.axis, rank)
            operands = [s for s in _operands(weights, view) if s != masked_axis.slot]
            read = [(part, axis) for s in operands for part, axis in _summed(weights, view, s, labels)]
            for part, axis in read:
                along = as_field(part.axes[axis], axis, len(part.axes))
                found.append(
                    Reader(
                        made=first_output(view.node),
                        tensor=tensor,
                        axis=masked_axis.axis,
                        field=field,
                        part=part,
                        weight_field=along,
                    )
                )
            # A weight without such an axis (depthwise) goes with the unit: nothing is summed over.
            if not operands:
                found.append(Reader(first_output(view.node), tensor, masked_axis.axis, field))
    return found


def making_axes(weights: Weights) -> Iterator[tuple[WeightPart, int, Array]]:
    """Find the axes of contractions' weights that make units, each once.

    Args:
        weights: the weights of a traced model as they act.

    Yields:
        (part of a weight, axis, value of the weight).
    """
    making: dict[int, set[int]] = {}
    for view, rule in weights.groups.tracing.views:
        if rule is not None and rule.contractions is not None:
            for slot in _operands(weights, view):
                part = weights.used(view, slot)
                assert part is not None
                making.setdefault(id(part), set()).update(_making(weights, view, part))
    for part, cut, value in weights.parts():
        for axis in cut:
            if axis in making.get(id(part), ()):
                yield part, axis, value


def _operands(weights: Weights, view: NodeView) -> list[int]:
    """The weights that a node multiplies with: behind its second input, those that are no line (a bias is one)."""
    slots = (s for s in range(len(view.node.input)) if weights.used(view, s) is not None)
    return [s for s in slots if s < 2 or sum(n > 1 for n in view.shape(s)) > 1]


def _summed(weights: Weights, view: NodeView, slot: int, labels: Array) -> list[tuple[WeightPart, int]]:
    """The axes of a weight that are summed over together with the activation's axis of these labels."""
    part = weights.used(view, slot)
    assert part is not None
    making, classes = _making(weights, view, part), weights.classes(labels).reshape(-1)
    candidates = (a for a in range(len(part.axes)) if a not in making and part.axes[a].size > 1)
    return [(part, a) for a in candidates if np.isin(weights.classes(part.axes[a]), classes).all()]


def _making(weights: Weights, view: NodeView, part: WeightPart) -> list[int]:
    """The axes of a weight whose positions are positions of the output: they have its labels."""
    outputs = [labels for o in view.node.output for labels in weights.groups.tracing.axes.get(o, ())]
    return [
        axis
        for axis, labels in enumerate(part.axes)
        if labels.size > 1 and any(o is labels or (o.size > 1 and np.isin(labels, o).all()) for o in outputs)
    ]
