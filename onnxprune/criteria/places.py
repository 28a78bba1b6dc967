"""Where units are summed over: the places at which a removed unit must give nothing, and what it is multiplied with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.layers import LinearLayer, Parameters, linear_layer
from onnxprune.model.traits import traits_of
from onnxprune.tracing import Groups, MaskedAxis, NodeView
from onnxprune.tracing.labels import as_field
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class Summation:
    """A reading of an axis that some group cuts.

    Attributes:
        view: the node that reads.
        reading: the axis.
        ids: int64, the class of every label of the axis, with as many axes as the tensor; -1 where it has no group.
        layer: the node as a layer that reads the tensor; None where it is none.
        folds: whether the layer can take over what it loses.
        others: (tensor, its axis, its labels' classes as `ids`) of what the axis is multiplied with.
    """

    view: NodeView
    reading: MaskedAxis
    ids: Array
    layer: LinearLayer | None
    folds: bool
    others: Sequence[tuple[str, int, Array]]

    @property
    def tensor(self) -> str:
        """The tensor that is read."""
        return self.view.node.input[self.reading.slot]

    @property
    def tensors(self) -> set[str]:
        """The tensors whose bounds matter."""
        zero = self.reading.zero
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
        for reading in view.readings if rule is not None and not traits_of(view.node).joins else ():
            labels = view.labels(reading.slot)[reading.axis]
            ids = as_field(classes_in_groups(groups, labels), reading.axis, len(view.shape(reading.slot)))
            if (ids < 0).all():
                continue
            layer = None if reading.mixed else linear_layer(view)
            layer = layer if layer is not None and reading.slot == 1 - layer.weight else None
            own = layer is not None and parameters.is_own(layer.node.input[layer.weight])
            folds = own and view.node.output[0] not in closed
            others = list(_factors(groups, view, reading))
            yield Summation(view=view, reading=reading, ids=ids, layer=layer, folds=folds, others=others)


def classes_in_groups(groups: Groups, labels: Array) -> Array:
    """The class of every label; -1 where it has no group."""
    ids = np.where(labels >= 0, groups.classes.of[np.maximum(labels, 0)], -1)
    return np.where((ids >= 0) & (groups.group_of[np.maximum(ids, 0)] >= 0), ids, -1)


def _factors(groups: Groups, view: NodeView, reading: MaskedAxis) -> Iterator[tuple[str, int, Array]]:
    """What an axis is multiplied with before it is summed over: each along the axis of the same letter."""
    inputs = view.letters[0]
    own = inputs[reading.slot] if reading.slot < len(inputs) else None
    if own is None or reading.factors is None:
        return
    for slot in reading.factors:
        letters = inputs[slot] if slot < len(inputs) else None
        if slot == reading.slot or letters is None or letters.count(own[reading.axis]) != 1:
            continue
        axis = letters.index(own[reading.axis])
        ids = as_field(classes_in_groups(groups, view.labels(slot)[axis]), axis, len(view.shape(slot)))
        yield view.node.input[slot], axis, ids
