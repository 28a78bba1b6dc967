"""Effective weights: the same for a criterion whether an exporter folded, shared or copied them.

A BatchNormalization behind a contraction y = W x + b is part of it: with s = scale / sqrt(variance + epsilon) the
contraction acts as W' = s W (per output channel) and b' = s (b - mean) + shift. W' stands in the place of W, b' in the
place of the BatchNormalization's shift; its scale and the contraction's own bias no longer count. Running statistics
are no parameters. A weight that is stored twice, for the same positions and with the same values, counts once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.model.traits import operators_where
from onnxprune.tracing import Axes, Groups, NodeView
from onnxprune.typing import Array

# Contractions that a norm behind them folds into: data, weight and, if there is a third input, a bias.
FOLDING = operators_where(lambda t: t.weight == 1 and t.bias in (2, None) and not t.zero_points, "")
# Operators through which a weight comes as it is, or as what it stands for.
WEIGHT_CARRIERS = operators_where(lambda t: t.retypes or t.decodes or (t.same and t.moves))
Use = tuple[str, int]  # the first output of a node, and the slot of an input


@dataclass(frozen=True, eq=False)
class WeightPart:
    """A weight as a node uses it: `stored * scale + shift`.

    Attributes:
        key: its entry in `TraceResult.axes`.
        axes: its labels.
        scale: broadcastable to it; None for ones.
        shift: broadcastable to it; None for zeros.
    """

    key: str
    axes: Axes
    scale: Array | None = None
    shift: Array | None = None


class Weights:
    """The weights of a traced model as they act."""

    def __init__(self, groups: Groups) -> None:
        """Look for what acts as one; no large weight is read yet."""
        self.groups = groups
        self._tracing = groups.tracing
        self._used: dict[Use, WeightPart | None] = {}
        self._producers = {o: view for view, _ in groups.tracing.views for o in view.node.output if o}
        for view, rule in groups.tracing.views:
            if rule is not None and view.node.op_type == "BatchNormalization":
                self._fold(view)

    def used(self, view: NodeView, slot: int) -> WeightPart | None:
        """The weight at an input; None where there is none, or where it counts as part of another."""
        met: list[Use] = []
        found: WeightPart | None = None
        while view.has(slot):
            use = (view.node.output[0], slot)
            if use in self._used:
                found = self._used[use]
                break
            met.append(use)
            found = self._plain.get(self._tracing.use_key(view.node, slot))
            producer = self._producers.get(view.node.input[slot])
            if found is not None or producer is None or producer.node.op_type not in WEIGHT_CARRIERS:
                break
            view, slot = producer, 0
        self._used.update(dict.fromkeys(met, found))
        return found

    @cached_property
    def _plain(self) -> dict[str, WeightPart]:
        statistics = self._tracing.statistics
        return {key: WeightPart(key, axes) for key, axes in self._tracing.weights_axes() if key not in statistics}

    def parts(self) -> Iterator[tuple[WeightPart, list[int], Array]]:
        """(part, the axes that some group cuts, its value), each part once; without those that hold nothing."""
        firsts: dict[tuple[object, ...], WeightPart] = {}
        digests: dict[tuple[object, ...], set[bytes]] = {}
        for part in self._distinct():
            cut = [a for a, labels in enumerate(part.axes) if self.in_groups(labels)]
            value = self.value(part) if cut else None
            if value is None or not value.size:
                continue
            alike = (value.shape, tuple(cut), *(self.classes(part.axes[axis]).tobytes() for axis in cut))
            first = firsts.setdefault(alike, part)
            if first is not part:  # few weights lie at the same positions: only these are hashed
                if alike not in digests:
                    digests[alike] = {_digest(self.value(first))}
                digest = _digest(value)
                if digest in digests[alike]:
                    continue
                digests[alike].add(digest)
            yield part, cut, value

    def value(self, part: WeightPart) -> Array | None:
        """The value of a weight as it acts; None where it is unknown."""
        value = self._tracing.weight_value(self._tracing.weights[part.key])
        if value is None or (part.scale is None and part.shift is None):
            return value
        value = value if value.dtype.kind == "f" and value.dtype.itemsize >= 4 else value.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # scores that are not finite are refused
            value = value if part.scale is None else value * part.scale.astype(value.dtype)
            return value if part.shift is None else value + part.shift.astype(value.dtype)

    def _distinct(self) -> Iterator[WeightPart]:
        """The parts that are used, in graph order."""
        found: dict[int, WeightPart] = {}
        for view, _ in self._tracing.views:
            for slot in range(len(view.node.input)):
                part = self.used(view, slot)
                if part is not None:
                    found[id(part)] = part
        return iter(found.values())

    def classes(self, labels: Array) -> Array:
        """The class of every label; -1 for a barrier."""
        return np.where(labels >= 0, self.groups.classes.of[np.maximum(labels, 0)], -1)

    def in_groups(self, labels: Array) -> bool:
        """Whether some group cuts an axis with these labels."""
        if labels.size < 2:
            return False
        ids = self.classes(labels)
        return bool(((ids >= 0) & (self.groups.group_of[ids] >= 0)).any())

    # --- BatchNormalization ------------------------------------------------------------------------------

    def _fold(self, norm: NodeView) -> None:
        """Let a BatchNormalization act through the contraction in front of it, where there is one."""
        node, tracing = norm.node, self._tracing
        training = norm.attrs.get("training_mode") or any(node.output[1:])
        found = self._in_front(node.input[0])
        if training or found is None or not all(norm.is_weight(slot) for slot in (1, 2, 3, 4)):
            return
        contraction, bias = found
        scale, mean, variance = (self._line(norm, slot) for slot in (1, 3, 4))
        before = np.zeros(1) if bias is None else self._line(*bias) if self._is_along(norm, *bias) else None
        if scale is None or mean is None or variance is None or before is None:
            return
        with np.errstate(all="ignore"):  # scores that are not finite are refused
            factor = scale / np.sqrt(variance + norm.attrs.get("epsilon", 1e-5))
            shift = (before - mean) * factor
        spread = _spread(contraction, factor)
        if spread is None:
            return
        if bias is not None:
            self._used[bias[0].node.output[0], bias[1]] = None
        key = tracing.use_key(contraction.node, 1)
        self._used[contraction.node.output[0], 1] = WeightPart(key, tracing.axes[key], scale=spread)
        self._used[node.output[0], 1] = None
        key = tracing.use_key(node, 2)
        self._used[node.output[0], 2] = WeightPart(key, tracing.axes[key], shift=shift)

    def _line(self, view: NodeView, slot: int) -> Array | None:
        value = self._tracing.weight_value(view.node.input[slot])
        return None if value is None else value.astype(np.float64).reshape(-1)

    def _in_front(self, tensor: str) -> tuple[NodeView, tuple[NodeView, int] | None] | None:
        """The contraction whose result alone `tensor` is, and where its bias is."""
        view = self._producers.get(tensor)
        if view is None or not self._is_private(tensor):
            return None
        bias: tuple[NodeView, int] | None = None
        if view.node.op_type == "Add" and view.is_weight(0) != view.is_weight(1):
            slot = 0 if view.is_weight(0) else 1
            bias, tensor = (view, slot), view.node.input[1 - slot]
            view = self._producers.get(tensor)
            if view is None or not self._is_private(tensor) or not _folds(view) or view.has(2):
                return None
        elif not _folds(view) or (view.has(2) and not view.is_weight(2)):
            return None
        elif view.has(2):
            bias = view, 2
        return view, bias

    def _is_along(self, norm: NodeView, view: NodeView, slot: int) -> bool:
        """Whether a bias has a value per channel of `norm`, or one for all."""
        axes = [labels for labels, size in zip(view.labels(slot), view.shape(slot), strict=True) if size > 1]
        channels = self.classes(norm.labels(2)[0])
        return not axes or (len(axes) == 1 and np.array_equal(self.classes(axes[0]).reshape(-1), channels))

    def _is_private(self, tensor: str) -> bool:
        return len(self._tracing.consumers(tensor)) == 1 and not self._tracing.is_output(tensor)


def _digest(value: Array | None) -> bytes:
    """Equal for equal values: a zero of either sign is one."""
    assert value is not None
    return hashlib.blake2b((value + value.dtype.type(0)).tobytes()).digest()


def _folds(view: NodeView) -> bool:
    """Whether the node is a contraction with a weight: data, weight and, if there is a third input, a bias."""
    return view.node.op_type in FOLDING and not view.node.domain and view.is_weight(1)


def _spread(view: NodeView, line: Array) -> Array | None:
    """A value per output channel laid along a contraction's weight; None if it cannot be."""
    shape, attrs = view.shape(1), view.attrs
    kernel = [1] * (len(shape) - 2)
    if view.node.op_type == "Conv":
        return line.reshape(-1, 1, *kernel)
    if view.node.op_type == "ConvTranspose":
        rows = line.reshape(int(attrs.get("group", 1)), -1)
        return np.repeat(rows, shape[0] // len(rows), axis=0).reshape(*shape[:2], *kernel)
    if len(shape) != 2 or len(view.shape(0)) != 2 or (attrs.get("alpha", 1.0), attrs.get("beta", 1.0)) != (1.0, 1.0):
        return None
    return line[:, None] if attrs.get("transB") else line[None, :]
