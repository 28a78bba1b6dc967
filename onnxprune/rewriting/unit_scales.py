"""Factors of units behind a norm, as the weight of an RMSNorm: they may move into the layers that read them.

    y = (x / rms(x) * s) W = (x / rms(x)) (diag(s) W)

What is left is a norm that gives x Q / rms(x Q) = (x / rms(x)) Q for every orthogonal Q (SliceGPT, Ashkboos et al.,
2024, section 3.2). A weight that others read too, as a table of embeddings that is also the last layer, gets a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import onnx

from onnxprune.model import Model, Names
from onnxprune.model.graph import captured
from onnxprune.model.traits import traits_of
from onnxprune.rewriting.mixed_units import unit_places
from onnxprune.tracing import Group, Groups, NodeView, retrace

# The norms that divide by the root of the mean square, with the slot of their scale, by domain-free name.
ROOT_MEAN_SQUARE = {"RMSNormalization": 1, "SimplifiedLayerNormalization": 1}


@dataclass(frozen=True, eq=False)
class ScaleReader:
    """A weight that is multiplied with scaled units.

    Attributes:
        weight: its name.
        axis: its axis with the units.
        node: the node that reads the stored weight: the product, or the first of those that only move it.
        slot: the input of that node.
        is_shared: whether other nodes read the weight, too.
    """

    weight: str
    axis: int
    node: onnx.NodeProto
    slot: int
    is_shared: bool


@dataclass(frozen=True, eq=False)
class UnitScale:
    """A stored factor for each unit of a group.

    Attributes:
        name: of the weight.
        readers: the weights that the scaled units are multiplied with.
    """

    name: str
    readers: tuple[ScaleReader, ...]


def scale_slot(view: NodeView) -> int | None:
    """The input of a node that may be a factor for each unit: of a product with one weight, or of a norm."""
    if view.node.op_type in ROOT_MEAN_SQUARE:
        return ROOT_MEAN_SQUARE[view.node.op_type]
    if view.node.op_type != "Mul" or view.node.domain not in ("", "ai.onnx"):
        return None
    stored = [slot for slot in (0, 1) if view.is_weight(slot)]
    return stored[0] if len(stored) == 1 else None


def scale_of(groups: Groups, group: Group, view: NodeView) -> UnitScale | None:
    """View a node as what multiplies every unit with a factor that may move into the layers behind.

    Args:
        groups: the traced model.
        group: one of its groups.
        view: a node that reads its units.

    Returns:
        The factor; None where it cannot move: it is none, something else reads what is scaled, or the model lies in
        bodies.
    """
    slot, tracing = scale_slot(view), groups.tracing
    if slot is None or tracing.model is not groups.model or groups.model.proto.ir_version < 4:
        return None
    name, made = view.node.input[slot], view.node.output[0]
    own = len(view.shape(slot)) == 1 and len(tracing.consumers(name)) == 1 and name in tracing.model.initializers
    if not own or any(view.node.output[1:]) or tracing.is_output(made) or tracing.is_output(name):
        return None
    if list(view.node.input).count(name) > 1 or name in tracing.duplicated_per_use:
        return None
    readers = [_reader(groups, group, node, made) for node in tracing.consumers(made)]
    return UnitScale(name, tuple(r for r in readers if r)) if readers and all(readers) else None


def _reader(groups: Groups, group: Group, node: onnx.NodeProto, scaled: str) -> ScaleReader | None:
    """The weight that a node multiplies scaled units with; None where there is none."""
    tracing = groups.tracing
    if not traits_of(node).multilinear or len(node.input) < 2 or list(node.input).count(scaled) != 1:
        return None
    if next(captured(node), None) is not None or scaled not in node.input[:2]:
        return None
    slot = 1 - list(node.input).index(scaled)
    while not tracing.is_weight(node.input[slot]):
        tensor = node.input[slot]
        producer = tracing.producer(tensor)
        if producer is None or producer.op_type not in ("Transpose", "Identity") or len(tracing.consumers(tensor)) != 1:
            return None
        node, slot = producer, 0
    name = node.input[slot]
    axes = [a for a, labels in enumerate(tracing.axes.get(name, ())) if (unit_places(groups, group, labels) >= 0).any()]
    if name not in tracing.model.initializers or len(axes) != 1 or name in tracing.duplicated_per_use:
        return None
    uses = sum(list(other.input).count(name) for other in tracing.consumers(name)) + tracing.is_output(name)
    return ScaleReader(name, axes[0], node, slot, uses > 1)


def scales(groups: Groups, group: Group) -> Iterator[UnitScale]:
    """Find the factors of a group that may move into the layers behind them.

    Args:
        groups: the traced model.
        group: one of its groups.

    Yields:
        Them, in graph order.
    """
    for view, _ in groups.tracing.views:
        slot = scale_slot(view)
        labels = None if slot is None else groups.tracing.axes.get(groups.tracing.use_key(view.node, slot))
        if labels and any((unit_places(groups, group, one) >= 0).any() for one in labels):
            found = scale_of(groups, group, view)
            if found is not None:
                yield found


def with_own_readers(groups: Groups, chosen: Sequence[Group]) -> Groups:
    """Give every layer behind factors a weight of its own.

    Args:
        groups: the traced model.
        chosen: the groups with the factors.

    Returns:
        The trace of the model with copies of weights; the same trace where none is needed.
    """
    shared = [r for group in chosen for scale in scales(groups, group) for r in scale.readers if r.is_shared]
    if not shared:
        return groups
    model = groups.model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    names, values = Names(proto.graph), dict(model.values)
    made = {node.output[0]: node for node in proto.graph.node if node.output}
    for reader in shared:
        copy = proto.graph.initializer.add()
        copy.CopyFrom(model.initializers[reader.weight])
        copy.name = names.unique(f"{reader.weight}_scaled")
        made[reader.node.output[0]].input[reader.slot] = copy.name
        if reader.weight in values:
            values[copy.name] = values[reader.weight]
    fresh = Model(proto, model.folder, model.path, values)
    return retrace(replace(groups, model=fresh), dict(groups.static.sizes))
