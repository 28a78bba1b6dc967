"""Nodes that sum over units: there a removed unit must contribute nothing; and the other factors of the sum."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.layers import LinearLayer, Parameters, linear_layer
from onnxprune.model.traits import traits_of
from onnxprune.tracing import Groups, MaskedAxis, NodeView, as_field
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class Summation:
    """A reading of an axis that some group cuts.

    Attributes:
        view: the node that reads.
        masked_axis: the axis.
        ids: int64, the class of every label of the axis, with as many axes as the tensor; -1 where it has no group.
        layer: the node as a layer that reads the tensor; None where it is none.
        folds: whether the layer can take over what it loses.
        others: (tensor, its axis, its labels' classes as `ids`) of what the axis is multiplied with.
    """

    view: NodeView
    masked_axis: MaskedAxis
    ids: Array
    layer: LinearLayer | None
    folds: bool
    others: Sequence[tuple[str, int, Array]]

    @property
    def tensor(self) -> str:
        """The tensor that is read."""
        return self.view.node.input[self.masked_axis.slot]

    @property
    def tensors(self) -> set[str]:
        """The tensors whose bounds matter."""
        zero = self.masked_axis.zero
        names = {self.tensor, *(name for name, _, _ in self.others)}
        return names if zero is None or not self.view.has(zero) else names | {self.view.node.input[zero]}

    @property
    def classes(self) -> Array:
        """The classes of groups that are read."""
        found = np.unique(self.ids)
        return found[found >= 0]

    @property
    def name(self) -> str:
        """What the node is called."""
        return f"{self.view.node.op_type} {self.view.name!r}"


def places_of(groups: Groups, closed: Collection[str]) -> Iterator[Summation]:
    """Every reading of an axis that some group cuts, in graph order."""
    parameters = Parameters(groups.tracing.model)
    for view, rule in groups.tracing.views:
        for masked_axis in view.masked_axes if rule is not None and not traits_of(view.node).joins else ():
            labels = view.labels(masked_axis.slot)[masked_axis.axis]
            ids = as_field(classes_in_groups(groups, labels), masked_axis.axis, len(view.shape(masked_axis.slot)))
            if (ids < 0).all():
                continue
            layer = None if masked_axis.averaged else linear_layer(view)
            layer = layer if layer is not None and masked_axis.slot == 1 - layer.weight else None
            own = layer is not None and parameters.is_own(layer.node.input[layer.weight])
            folds = own and view.node.output[0] not in closed
            others = list(_factors(groups, view, masked_axis))
            yield Summation(view=view, masked_axis=masked_axis, ids=ids, layer=layer, folds=folds, others=others)


def classes_in_groups(groups: Groups, labels: Array) -> Array:
    """The class of every label; -1 where it has no group."""
    ids = np.where(labels >= 0, groups.classes.of[np.maximum(labels, 0)], -1)
    return np.where((ids >= 0) & (groups.group_of[np.maximum(ids, 0)] >= 0), ids, -1)


def _factors(groups: Groups, view: NodeView, masked_axis: MaskedAxis) -> Iterator[tuple[str, int, Array]]:
    """What an axis is multiplied with before it is summed over: each along the axis of the same letter."""
    inputs = view.letters[0]
    own = inputs[masked_axis.slot] if masked_axis.slot < len(inputs) else None
    if own is None or masked_axis.factors is None:
        return
    for slot in masked_axis.factors:
        letters = inputs[slot] if slot < len(inputs) else None
        if slot == masked_axis.slot or letters is None or letters.count(own[masked_axis.axis]) != 1:
            continue
        axis = letters.index(own[masked_axis.axis])
        ids = as_field(classes_in_groups(groups, view.labels(slot)[axis]), axis, len(view.shape(slot)))
        yield view.node.input[slot], axis, ids
