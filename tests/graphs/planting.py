"""Dead units, planted into the weights of any graph, and which of them can be removed without loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.layers import LinearLayer, Weights, linear_layer
from onnxprune.layers.readers import readers
from onnxprune.model import load
from onnxprune.model.traits import traits_of
from onnxprune.pipelines.shrink import Shrunk
from onnxprune.runtime import run_from
from onnxprune.runtime.random_inputs import random_feeds
from onnxprune.tracing import Group, Groups, NodeView, trace
from onnxprune.tracing.labels import as_field
from tests.graphs.net import with_arrays

WAYS = ("zero", "constant", "unread", "multiple", "range")
RANGE = (0.0, 1.0)
# What rows are multiplied with whose bias makes them dead inside the range: bounds of deep networks are wide.
FAINT = 1e-12
# A kernel is the weight of a unit that goes through it by itself, as in a depthwise convolution.
WEIGHT, KERNEL, SCALE, SHIFT, MEAN, OTHER = "weight", "kernel", "scale", "shift", "mean", "other"


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
    planted, units = changed(proto, rng, share=share, ways=ways)
    return planted, removable(planted, units)


def changed(
    proto: onnx.ModelProto, rng: np.random.Generator, *, share: float = 0.3, ways: Sequence[str] = WAYS
) -> tuple[onnx.ModelProto, list[Planted]]:
    """The same, with all that was planted: also constants in front of a padding, and others that have to stay."""
    groups = trace(load(proto))
    axes, arrays = _axes(groups), _arrays(proto)
    found: list[Planted] = []
    for index, group in enumerate(groups.groups):
        own = [a for a in axes if (groups.group_of[a.ids[a.ids >= 0]] == index).any()]
        if rng.random() < 0.2 or not _is_plain(groups, group, own, arrays):
            continue
        found += _plant_in(group, own, arrays, rng, share, ways)
    return with_arrays(proto, arrays), found


def missed(found: Shrunk, units: Sequence[Planted]) -> list[Planted]:
    """The planted units that are not among those that went; of a unit and its multiple one of the two has to.

    A group of which one unit is left misses nothing.
    """
    removed, gone = defaultdict[str, set[int]](set), defaultdict[str, int](int)
    for part in found.removed:
        removed[part.group].update(part.positions)
        gone[part.group] += part.units
    kept = {group.name: group.units - gone[group.name] for group in found.groups.groups}
    return [u for u in units if not {u.index, u.twin} & removed[u.group] and kept[u.group] > 1]


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
        mine = _index(axis.ids, unit, value.shape)
        if axis.is_read:
            if way == "unread":
                value[mine] = 0
        elif way == "multiple":
            its = _index(axis.ids, twin, value.shape)
            value[mine] = value[its] * (factor if axis.role in (WEIGHT, SHIFT) else 1)
        elif way != "unread" and axis.role in (WEIGHT, KERNEL, MEAN):
            value[mine] *= FAINT if way == "range" and axis.role != MEAN else 0
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
            key = tracing.use_key(view.node, slot) if name else ""
            if key not in tracing.weights:
                continue
            for axis, labels in enumerate(tracing.axes[key]):
                ids = np.where(labels >= 0, groups.classes.of[np.maximum(labels, 0)], -1)
                ids = as_field(
                    np.where(groups.group_of[np.maximum(ids, 0)] >= 0, ids, -1), axis, len(tracing.axes[key])
                )
                if (ids >= 0).any():
                    one = _Axis(key, _role(view, slot), (key, id(labels)) in read, ids)
                    found.setdefault((key, axis), one)
    return list(found.values())


def _role(view: NodeView, slot: int) -> str:
    traits = traits_of(view.node)
    if traits.multilinear and slot in traits.multilinear[:2]:
        return KERNEL if view.attrs.get("group", 1) > 1 and view.shape(slot)[1] == 1 else WEIGHT
    if traits.norm is not None and view.node.op_type == "BatchNormalization":
        return (OTHER, SCALE, SHIFT, MEAN, OTHER)[slot]
    return SHIFT if slot == traits.bias or traits.adds else OTHER


def _is_plain(groups: Groups, group: Group, axes: Sequence[_Axis], arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a group is planted in: float initializers of its own, no recurrences, one row."""
    if len(group.cells) > 1 or group.kind != "channel":
        return False
    if any(a.tensor not in arrays or arrays[a.tensor].dtype != np.float32 for a in axes):
        return False
    roles = {WEIGHT, KERNEL, SCALE, SHIFT, MEAN}
    return all(a.role in roles or arrays[a.tensor].size == a.ids.size for a in axes)


def _arrays(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t).copy() for t in proto.graph.initializer}


# --- what can be removed -------------------------------------------------------------------------------------


def removable(proto: onnx.ModelProto, units: Sequence[Planted]) -> list[Planted]:
    """Those units whose readers get nothing, a constant or a multiple from them, as random inputs show."""
    groups = trace(load(proto))
    by_name = {group.name: group for group in groups.groups}
    ids = [(int(by_name[u.group].classes[u.index]), int(by_name[u.group].classes[u.twin])) for u in units]
    readings = list(_readings(groups))
    tensors = sorted({reading.tensor for reading in readings})
    values = dict(zip(tensors, zip(*run_from(groups.tracing.model, _draws(groups), tensors), strict=True), strict=True))
    course = _Course(groups)
    return [
        one
        for one, (unit, twin) in zip(units, ids, strict=True)
        if course.is_known(one, unit, [r for r in readings if unit in r.classes])
        and all(_may_lose(one, unit, twin, r, values[r.tensor]) for r in readings if unit in r.classes)
    ]


@dataclass(frozen=True, eq=False)
class _Reading:
    """An axis that a node sums over, as a group cuts it; `ids` has as many axes as the tensor."""

    tensor: str
    ids: np.ndarray
    classes: frozenset[int]
    layer: LinearLayer | None
    is_averaged: bool


def _readings(groups: Groups) -> Iterator[_Reading]:
    for view, _ in groups.tracing.views:
        for masked_axis in view.masked_axes:
            ids = _classes(groups, view, masked_axis.slot, masked_axis.axis)
            found = frozenset(ids[ids >= 0].tolist())
            tensor = view.node.input[masked_axis.slot]
            yield _Reading(tensor, ids, found, linear_layer(view), bool(masked_axis.averaged))


def _classes(groups: Groups, view: NodeView, slot: int, axis: int) -> np.ndarray:
    labels = view.labels(slot)[axis]
    ids = np.where(labels >= 0, groups.classes.of[np.maximum(labels, 0)], -1)
    return as_field(ids, axis, len(view.shape(slot)))


def _draws(groups: Groups) -> list[dict[str, np.ndarray]]:
    """Inputs inside of the range."""
    draws = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        feeds = random_feeds(groups.tracing.model, groups.static, rng)
        draws.append(
            {n: rng.uniform(*RANGE, x.shape).astype(x.dtype) if x.dtype.kind == "f" else x for n, x in feeds.items()}
        )
    return draws


class _Course:
    """The nodes that what a unit gives goes through."""

    def __init__(self, groups: Groups) -> None:
        self.touching = defaultdict[int, list[onnx.NodeProto]](list)
        for view, _ in groups.tracing.views:
            lines = [
                line for name in (*view.node.input, *view.node.output) for line in groups.tracing.axes.get(name, ())
            ]
            labels = np.unique(np.concatenate([np.empty(0, np.int64), *(line.reshape(-1) for line in lines)]))
            for class_id in np.unique(groups.classes.of[labels[labels >= 0]]).tolist():
                self.touching[class_id].append(view.node)
        self.bounded = dict[str, bool]()
        for node in groups.tracing.model.proto.graph.node:
            bounded = _is_bounded(node) and all(self.bounded.get(name, True) for name in node.input)
            self.bounded.update(dict.fromkeys(node.output, bounded))

    def is_known(self, one: Planted, unit: int, readings: Sequence[_Reading]) -> bool:
        """Whether bounds and factors get through to all readings."""
        if one.way == "range":
            return all(self.bounded.get(reading.tensor, True) for reading in readings)
        return one.way != "multiple" or all(_passes(node, one.factor) for node in self.touching[unit])


def _may_lose(one: Planted, unit: int, twin: int, reading: _Reading, values: Sequence[np.ndarray]) -> bool:
    if reading.is_averaged:
        return False
    if one.way == "unread":
        return reading.layer is not None
    mine = np.stack([_elements(v, reading.ids, unit) for v in values])
    if not mine.any():  # by chance, it may be, where a Relu makes zero of a multiple
        return one.way != "multiple" or one.factor == 1
    return _gives_nothing_new(values, mine, reading, twin if one.way == "multiple" else -1)


def _gives_nothing_new(values: Sequence[np.ndarray], mine: np.ndarray, reading: _Reading, twin: int) -> bool:
    if reading.layer is None:
        return False
    if twin < 0:
        return bool((mine == mine.reshape(-1)[0]).all()) and reading.layer.sees_whole_windows
    its = np.stack([_elements(v, reading.ids, twin) for v in values])
    if its.shape != mine.shape:
        return False
    factor = (mine * its).sum() / (its * its).sum() if its.any() else 0.0
    return bool(np.abs(mine - factor * its).max() <= 1e-5 * np.abs(mine).max())


def _elements(value: np.ndarray, ids: np.ndarray, unit: int) -> np.ndarray:
    """What a tensor holds of a unit, in order."""
    return np.asarray(value)[_index(ids, unit, value.shape)].reshape(-1)


def _index(ids: np.ndarray, unit: int, shape: Sequence[int]) -> Any:
    """Where the elements of a unit lie; along one axis, if that is enough."""
    long = [axis for axis, size in enumerate(ids.shape) if size > 1]
    if len(long) == 1:
        return (*[slice(None)] * long[0], np.flatnonzero(ids == unit))
    return np.broadcast_to(ids == unit, shape)


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
    divides = node.op_type == "Div" or (traits.norm is not None and not traits.affine)
    known = traits.rises or traits.multilinear or traits.affine or traits.limits[1] < np.inf or traits.moves
    return bool(known) and not divides
