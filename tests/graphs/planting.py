"""Dead units, planted into the weights of any graph, and which of them can be removed without loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.layers import Weights, linear_layer
from onnxprune.layers.readers import readers
from onnxprune.model import load
from onnxprune.model.traits import traits_of
from onnxprune.runtime import resumed
from onnxprune.runtime.random_inputs import random_feeds
from onnxprune.tracing import Group, Groups, trace
from onnxprune.tracing.labels import as_field
from tests.graphs.net import with_arrays

WAYS = ("zero", "constant", "unread", "multiple", "range")
RANGE = (0.0, 1.0)
# What rows are multiplied with whose bias makes them dead inside the range: bounds of deep networks are wide.
FAINT = 1e-12
WEIGHT, SCALE, SHIFT, MEAN, OTHER = "weight", "scale", "shift", "mean", "other"


@dataclass(frozen=True)
class Planted:
    """A part of a group that was made dead.

    Attributes:
        group: name of the group.
        index: the part.
        way: one of `WAYS`.
        twin: the part that it is a multiple of; -1 for none.
        factor: how many times.
    """

    group: str
    index: int
    way: str
    twin: int = -1
    factor: float = 1.0


@dataclass(frozen=True)
class _Axis:
    """An axis of a stored weight that a group cuts, as one of its uses sees it."""

    tensor: str
    role: str
    is_read: bool
    ids: np.ndarray


def plant(
    proto: onnx.ModelProto, rng: np.random.Generator, *, share: float = 0.3, ways: Sequence[str] = WAYS
) -> tuple[onnx.ModelProto, list[Planted]]:
    """Make `share` of the units of random groups dead, each in one of some ways.

    Returns:
        The model, and what was planted; all of it can be removed without loss.
    """
    groups = trace(load(proto))
    axes, arrays = _axes(groups), _arrays(proto)
    found: list[Planted] = []
    for index, group in enumerate(groups.groups):
        own = [a for a in axes if (groups.group_of[a.ids[a.ids >= 0]] == index).any()]
        if rng.random() < 0.2 or not _is_plain(groups, group, own, arrays):
            continue
        found += _plant_in(group, own, arrays, rng, share, ways)
    planted = with_arrays(proto, arrays)
    return planted, [one for one in found if _is_removable(planted, one)]


def _plant_in(
    group: Group,
    axes: Sequence[_Axis],
    arrays: dict[str, np.ndarray],
    rng: np.random.Generator,
    share: float,
    ways: Sequence[str],
) -> Iterator[Planted]:
    count = min(max(1, round(group.units * share)), group.units - 2)
    if count < 1:
        return
    order = rng.permutation(group.units)
    for place, index in enumerate(order[:count].tolist()):
        way = str(rng.choice(list(ways)))
        twin = int(order[count + place % (group.units - count)]) if way == "multiple" else -1
        factor = 1.0 if any(a.role == MEAN for a in axes) else float(rng.choice([1.0, 2.0, 0.37]))
        units = int(group.classes[index]), int(group.classes[max(twin, 0)])
        _change(units, way, axes, arrays, factor, rng)
        yield Planted(group.name, index, way, twin, factor)


def _change(
    units: tuple[int, int],
    way: str,
    axes: Sequence[_Axis],
    arrays: dict[str, np.ndarray],
    factor: float,
    rng: np.random.Generator,
) -> None:
    """Make one unit dead; the second is the one that it becomes a multiple of."""
    unit, twin = units
    for axis in axes:
        value = arrays[axis.tensor]
        mine = np.broadcast_to(axis.ids == unit, value.shape)
        if axis.is_read:
            if way == "unread":
                value[mine] = 0
        elif way == "multiple":
            its = np.broadcast_to(axis.ids == twin, value.shape)
            value[mine] = value[its] * (factor if axis.role in (WEIGHT, SHIFT) else 1)
        elif way != "unread" and axis.role in (WEIGHT, MEAN):
            value[mine] *= FAINT if way == "range" and axis.role == WEIGHT else 0
        elif way != "unread" and axis.role == SHIFT:
            value[mine] = {"zero": 0.0, "constant": float(rng.choice([0.5, -0.5])), "range": -1.0}[way]
        elif way == "zero" and axis.role == SCALE:
            value[mine] = 0


# --- where units lie -----------------------------------------------------------------------------------------


def _axes(groups: Groups) -> list[_Axis]:
    """Every axis of a weight with labels, once."""
    tracing, found = groups.tracing, dict[tuple[str, int], _Axis]()
    read = {
        (r.part.key, id(line))
        for r in readers(Weights(groups))
        if r.part
        for line in r.part.axes
        if r.weight_field is not None
        and line.size == r.weight_field.size
        and np.array_equal(line.reshape(-1), r.weight_field.reshape(-1))
    }
    for view, _ in tracing.views:
        for slot, name in enumerate(view.node.input):
            key = tracing.key(view.node, slot) if name else ""
            if key not in tracing.weights:
                continue
            for axis, labels in enumerate(tracing.axes[key]):
                ids = np.where(labels >= 0, groups.classes.of[np.maximum(labels, 0)], -1)
                ids = as_field(
                    np.where(groups.group_of[np.maximum(ids, 0)] >= 0, ids, -1), axis, len(tracing.axes[key])
                )
                if (ids >= 0).any():
                    one = _Axis(key, _role(view.node, slot), (key, id(labels)) in read, ids)
                    found.setdefault((key, axis), one)
    return list(found.values())


def _role(node: onnx.NodeProto, slot: int) -> str:
    traits = traits_of(node)
    if traits.multilinear and slot in traits.multilinear[:2]:
        return WEIGHT
    if traits.norm is not None and node.op_type == "BatchNormalization":
        return (OTHER, SCALE, SHIFT, MEAN, OTHER)[slot]
    return SHIFT if slot == traits.bias or traits.adds else OTHER


def _is_plain(groups: Groups, group: Group, axes: Sequence[_Axis], arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a group is planted in: float initializers of its own, no recurrences, one row."""
    if len(group.cells) > 1 or group.kind != "channel":
        return False
    if any(a.tensor not in arrays or arrays[a.tensor].dtype != np.float32 for a in axes):
        return False
    roles = {WEIGHT, SCALE, SHIFT, MEAN}
    return all(a.role in roles or arrays[a.tensor].size == a.ids.size for a in axes)


def _arrays(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t).copy() for t in proto.graph.initializer}


# --- what can be removed -------------------------------------------------------------------------------------


def _is_removable(proto: onnx.ModelProto, one: Planted) -> bool:
    """Whether what reads a unit gets nothing, a constant or a multiple from it, as random inputs show."""
    if one.way == "range" and not all(map(_is_bounded, proto.graph.node)):
        return False
    groups = trace(load(proto))
    group = next(g for g in groups.groups if g.name == one.group)
    unit, twin = int(group.classes[one.index]), int(group.classes[one.twin])
    if one.way == "multiple" and not all(_passes(node, one.factor) for node in proto.graph.node):
        return False
    model, draws = groups.tracing.model, []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        feeds = random_feeds(model, groups.static, rng)
        draws.append(
            {n: rng.uniform(*RANGE, x.shape).astype(x.dtype) if x.dtype.kind == "f" else x for n, x in feeds.items()}
        )
    for view, _ in groups.tracing.views:
        for masked_axis in view.masked_axes:
            labels = view.labels(masked_axis.slot)[masked_axis.axis]
            ids = as_field(
                np.where(labels >= 0, groups.classes.of[np.maximum(labels, 0)], -1),
                masked_axis.axis,
                len(view.shape(masked_axis.slot)),
            )
            if not (ids == unit).any():
                continue
            layer = linear_layer(view)
            if masked_axis.averaged:
                return False
            if one.way == "unread":
                if layer is None:
                    return False
                continue
            tensor = view.node.input[masked_axis.slot]
            values = [np.asarray(v[0]) for v in resumed(model, draws, [tensor])]
            if not _gives_nothing_new(values, ids, unit, twin if one.way == "multiple" else -1, layer):
                return False
    return True


def _gives_nothing_new(values: Sequence[np.ndarray], ids: np.ndarray, unit: int, twin: int, layer: object) -> bool:
    mine = np.stack([v[np.broadcast_to(ids == unit, v.shape)] for v in values])
    if not mine.any():
        return True
    if layer is None:
        return False
    if twin < 0:
        return bool((mine == mine.reshape(-1)[0]).all()) and layer.sees_whole_windows  # type: ignore[attr-defined]
    its = np.stack([v[np.broadcast_to(ids == twin, v.shape)] for v in values])
    if its.shape != mine.shape:
        return False
    factor = (mine * its).sum() / (its * its).sum() if its.any() else 0.0
    return bool(np.abs(mine - factor * its).max() <= 1e-5 * np.abs(mine).max())


def _passes(node: onnx.NodeProto, factor: float) -> bool:
    """Whether a positive factor of all inputs that are computed is one of the output."""
    traits = traits_of(node)
    if node.op_type == "Pad":  # what is padded is neither a position of the input nor a constant to it
        return False
    if factor == 1:
        return True
    return bool(traits.homogeneous or traits.multilinear or traits.affine or traits.moves or traits.linear)


def _is_bounded(node: onnx.NodeProto) -> bool:
    """Whether bounds of the inputs bound the output: not so of norms, and of a division by what is computed."""
    traits = traits_of(node)
    divides = node.op_type == "Div" or traits.norm is not None
    known = traits.rises or traits.multilinear or traits.affine or traits.limits[1] < np.inf or traits.moves
    return bool(known) and not divides
