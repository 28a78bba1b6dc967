"""A removal seen from every tensor and node: sizes and positions that remain, and nodes ready to be edited."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from onnxprune.model import Model
from onnxprune.model.graph import captured
from onnxprune.tracing import Axes, Edit, Groups, Member, NodeView, Resize, resize_node
from onnxprune.typing import Array, Shape


def carried_over(groups: Groups, removed: Array, other: Groups) -> Array:
    """Find the units that go of another model with the same tensors, as before and after a repair that adds biases.

    Args:
        groups: a traced model.
        removed: bool[classes], what goes of it.
        other: the traced other model.

    Returns:
        bool[classes of the other]: those that lie where one goes of the first.
    """
    found = np.zeros(other.classes.count, bool)
    first = Removal(groups, removed)
    for name in groups.tracing.axes.keys() & other.tracing.axes.keys():
        for one, two in zip(groups.tracing.axes[name], other.tracing.axes[name], strict=True):
            if one.shape == two.shape:
                gone = first.removed(one) & (two >= 0)
                found[other.classes.of[two[gone]]] = True
    return found


@dataclass(frozen=True, eq=False)
class Removal:
    """A removal, seen from every tensor.

    Attributes:
        groups: the traced model.
        removed_classes: bool[classes].
        laid_out: what came of it, with its bodies laid out, where more was done to it than to take units out.
    """

    groups: Groups
    removed_classes: Array
    laid_out: Model | None = None

    @cached_property
    def _is_removed(self) -> Array:
        return np.append(self.removed_classes[self.groups.classes.of], False)  # a barrier, clipped to -1, stays

    @cached_property
    def _cache(self) -> dict[int, tuple[Array, Array, bool]]:
        return {}

    def _known(self, labels: Array) -> tuple[Array, Array, bool]:
        """Labels, what goes of them, and whether any does."""
        known = self._cache.get(id(labels))
        if known is None or known[0] is not labels:
            removed = self._is_removed[np.maximum(labels, -1)]
            known = self._cache[id(labels)] = (labels, removed, bool(removed.any()))
        return known

    def removed(self, labels: Array) -> Array:
        """bool, in the shape of `labels`: the positions that go."""
        return self._known(labels)[1]

    def loses(self, labels: Array) -> bool:
        """Whether any position goes."""
        return self._known(labels)[2]

    @cached_property
    def behind(self) -> frozenset[str]:
        """The tensors that change: they lose positions, or are computed from such; of bodies too."""
        tracing = self.groups.tracing
        lost = {n for n, axes in tracing.axes.items() if any(map(self.loses, axes))}
        for node in tracing.model.proto.graph.node:
            keys = (tracing.use_key(node, slot) for slot in range(len(node.input)))
            if not lost.isdisjoint((*node.input, *captured(node), *node.output, *keys)):
                lost.update(node.output)
        return frozenset(lost - {""})

    def shrinks(self, tensor: str, axes: Sequence[int]) -> bool:
        """Whether any of these axes of an activation loses positions."""
        lines = self.groups.tracing.axes.get(tensor)
        return lines is not None and any(self.loses(lines[axis]) for axis in axes)

    def size(self, labels: Array, axis: int, size: int) -> int:
        """The length of `axis` that remains of `size`."""
        _, removed, loses = self._known(labels)
        if not loses:
            return size
        if removed.ndim == 1:
            return size - int(removed.sum())
        return size - int(np.moveaxis(removed, axis, -1).reshape(-1, size)[0].sum())

    def shape(self, shape: Shape, axes: Axes) -> Shape:
        """The sizes that remain."""
        return tuple(self.size(labels, a, n) for a, (labels, n) in enumerate(zip(axes, shape, strict=True)))

    def kept(self, labels: Array, axis: int, size: int) -> Array:
        """bool[size]: the positions of `axis` that remain in the first row."""
        removed = self.removed(labels)
        if removed.ndim > 1:
            removed = np.moveaxis(removed, axis, -1).reshape(-1, removed.shape[axis])[0]
        return np.broadcast_to(~removed, (size,))

    def mask(self, shape: Shape, axes: Axes) -> Array | None:
        """bool, broadcastable to `shape`: the elements that remain; None if all do."""
        mask: Array | None = None
        for axis, labels in enumerate(axes):
            _, removed, loses = self._known(labels)
            if loses:
                line = [-1 if a == axis else 1 for a in range(len(shape))]
                keep = ~(removed if removed.ndim > 1 else removed.reshape(line))
                mask = keep if mask is None else mask & keep
        return mask

    def sliced(self, value: Array, axes: Axes) -> Array:
        """The part of a weight that remains."""
        new = self.shape(value.shape, axes)
        lines = [a for a, labels in enumerate(axes) if labels.ndim == 1 and new[a] != value.shape[a]]
        rows = [a for a, labels in enumerate(axes) if labels.ndim > 1 and new[a] != value.shape[a]]
        if rows:
            mask = np.broadcast_to(self.mask(value.shape, axes), value.shape)  # type: ignore[arg-type]
            return np.ascontiguousarray(value[mask].reshape(new))
        for axis in lines:
            value = np.take(value, np.flatnonzero(~self.removed(axes[axis])), axis)
        return np.ascontiguousarray(value)

    def around(self, view: NodeView) -> tuple[list[Axes | None], list[Axes | None]]:
        """The labels of a node's inputs and outputs; None where there are none."""
        tracing, node = self.groups.tracing, view.node
        inputs = [tracing.axes.get(tracing.use_key(node, s)) if name else None for s, name in enumerate(node.input)]
        return inputs, [tracing.axes.get(name) for name in node.output]

    def edit(
        self, view: NodeView, node: onnx.NodeProto, unique: Callable[[str], str], constants: dict[str, Array]
    ) -> Edit:
        """`node`, a copy of the node of `view`, ready to be changed by its rule."""
        shapes = self.groups.static.shapes
        inputs, outputs = self.around(view)

        def new_sizes(names: Sequence[str], labels: Sequence[Axes | None]) -> list[Shape | None]:
            old = [shapes.get(name) for name in names]
            return [s if s is None or x is None else self.shape(s, x) for s, x in zip(old, labels, strict=True)]

        def kept(slot: int | None, axis: int) -> Array:
            size = (view.out_shape() if slot is None else view.shape(slot))[axis]
            axes = outputs[0] if slot is None else inputs[slot]
            return np.ones(size, bool) if axes is None else self.kept(axes[axis], axis, size)

        new_in, new_out = new_sizes(view.node.input, inputs), new_sizes(view.node.output, outputs)
        return Edit(view, node, new_in=new_in, new_out=new_out, kept=kept, unique=unique, constants=constants)

    def resized(
        self,
        view: NodeView,
        resize: Resize,
        node: onnx.NodeProto,
        unique: Callable[[str], str],
        constants: dict[str, Array],
    ) -> Edit:
        """`node` after its rule has fitted it to the new sizes.

        Raises:
            ModelError: the rule, which may be a user's, fails.
        """
        edit = self.edit(view, node, unique, constants)
        resize_node(resize, edit)
        return edit

    def is_masked(self, key: str) -> bool:
        """Whether the removed positions of a weight, as one of its uses reads it, are zeros in the masked original.

        All but numbers that are stored nowhere, and those that others are divided by.
        """
        tracing = self.groups.tracing
        return key not in tracing.divisors and not tracing.is_filled(tracing.weights[key])

    def masks(self) -> dict[str, Array]:
        """Keep masks of the weights that shrink and that are masked, in their original shape."""
        found = {}
        for key, axes in self.groups.tracing.weights_axes():
            name = self.groups.tracing.weights[key]
            shape = self.groups.static.shapes[name]
            mask = self.mask(shape, axes) if self.is_masked(key) else None
            if mask is not None:
                found[key] = np.array(np.broadcast_to(mask, shape))
        names = self.groups.tracing.weights
        return {k if names[k] in self.groups.tracing.duplicated_per_use else names[k]: m for k, m in found.items()}

    def positions(self, member: Member, group: int) -> list[Any]:
        """The positions of a member's axis that go with its group; a list per row where rows differ."""
        removed, owner = self._owned(member.key, member.axis)
        mine = removed & (owner == group)
        if mine.ndim == 1:
            return list(np.flatnonzero(mine).tolist())
        rows = np.moveaxis(mine, member.axis, -1).reshape(-1, mine.shape[member.axis])
        return [np.flatnonzero(row).tolist() for row in rows]

    def _owned(self, key: str, axis: int) -> tuple[Array, Array]:
        """Of every position of a weight's axis: whether it goes, and the index of its group (-1 for none)."""
        known = self._owners.get((key, axis))
        if known is None:
            labels = self.groups.tracing.axes[key][axis]
            owner = np.where(labels < 0, -1, self.groups.group_of[self.groups.classes.of[np.maximum(labels, 0)]])
            known = self._owners[key, axis] = (self.removed(labels), owner)
        return known

    @cached_property
    def _owners(self) -> dict[tuple[str, int], tuple[Array, Array]]:
        return {}


def removed_classes(groups: Groups, removed: Mapping[str, Array]) -> Array:
    """Mask the classes of removed units.

    Args:
        groups: the traced model.
        removed: group name -> indices into the classes of the group.

    Returns:
        bool[classes].
    """
    mask = np.zeros(groups.classes.count, bool)
    for group in groups.groups:
        if group.name in removed:
            mask[group.classes[removed[group.name]]] = True
    return mask
