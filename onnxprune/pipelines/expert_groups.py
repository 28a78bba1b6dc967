"""Experts of a mixture: each is a unit of a group, so that the column of the router goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.model import Model
from onnxprune.rewriting import Removal
from onnxprune.tracing import Group, Groups, NodeView, trace

# Weights of an expert that make it one: each is a matrix at least.
LAYERS, AXES = 2, 3


@dataclass(frozen=True)
class ExpertGroup:
    """Experts that a node chooses among, or mixes.

    Attributes:
        group: the group whose units they are.
        node: the node.
        count: how many there are.
        weights: the stored tensors that hold a part for each, the router's among them.
    """

    group: str
    node: str
    count: int
    weights: tuple[str, ...]


def expert_groups(model: Model, sizes: Mapping[str, int] | None = None) -> tuple[ExpertGroup, ...]:
    """Find the experts of a model that can be removed one by one, by structure alone.

    A node reads several weights, each of which holds a matrix for every unit of one group along its first axis, and
    nothing that leaves the node has an axis of these units.

    Args:
        model: the model.
        sizes: numbers for symbolic dims.

    Returns:
        The groups, in graph order.
    """
    groups = trace(model, sizes=sizes)
    found = []
    for view, rule in groups.tracing.views if groups.groups else ():
        for group in groups.groups if rule is not None else ():
            if _chooses(groups, group, view):
                weights = tuple(dict.fromkeys(member.tensor for member in group.members))
                found.append(ExpertGroup(group.name, view.name, len(group.classes), weights))
    return tuple(found)


def _chooses(groups: Groups, group: Group, view: NodeView) -> bool:
    static = groups.tracing.static
    first = {m.tensor for m in group.members if m.axis == 0 and len(static.shapes.get(m.tensor) or ()) >= AXES}
    if len(first.intersection(view.node.input)) < LAYERS:
        return False
    gone = np.zeros(groups.classes.count, bool)
    gone[group.classes] = True
    removal = Removal(groups, gone)
    leaving = (name for name in view.node.output if name)
    return not any(removal.shrinks(name, range(len(groups.tracing.axes.get(name, ())))) for name in leaving)
