"""Interval bounds of the outputs of one node, by its traits; see `bounds.py`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from onnx import defs, helper

from onnxprune.errors import OnnxPruneError
from onnxprune.model.graph import WEIGHT_TYPES
from onnxprune.model.traits import Traits, traits_of
from onnxprune.runtime import NodeRunner
from onnxprune.tracing import Groups
from onnxprune.typing import Array

# No number is larger: what is at or beyond FAR counts as unbounded, and is set to BIG. Finite, so that 0 x BIG is 0.
BIG, FAR = 1e30, 1e20
# Bounds that are summed are widened by so much of what was added up: rounding, of the operator and of the bounds.
ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Bounds:
    """Between which numbers the elements of a tensor lie.

    Attributes:
        low: float, with the tensor's number of axes; an axis along which both ends are the same has size 1.
        high: the largest values, of the same shape.
    """

    low: Array
    high: Array

    @property
    def known(self) -> Array:
        """bool: the elements that are one number, whatever the inputs are."""
        return np.asarray((self.low == self.high) & (np.abs(self.low) < FAR))

    @property
    def is_constant(self) -> bool:
        """Whether all elements are known."""
        return bool(self.known.all())


class KnownBounds(Protocol):
    """A pass through the graph in its order."""

    groups: Groups
    known: dict[str, Bounds]

    def of(self, name: str) -> Bounds | None:
        """The bounds of a tensor; None where nothing is known of it."""

    def put(self, name: str, low: Array, high: Array) -> None:
        """Note the bounds of a tensor, as few numbers as it takes."""


@dataclass
class BoundedNode:
    """One node of the pass."""

    walk: KnownBounds
    node: onnx.NodeProto
    run: NodeRunner

    def bound(self) -> None:
        """Note the bounds of the outputs, by the first rule that applies."""
        node, traits = self.node, traits_of(self.node)
        given = {slot: self.walk.of(name) for slot, name in enumerate(node.input) if name}
        open_slots = [s for s, bounds in given.items() if bounds is None or not bounds.is_constant]
        attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if traits.draws or attrs.get("training_mode"):
            return
        if not open_slots:
            self._put_all(self.run({slot: self._full(slot, b.low) for slot, b in given.items() if b is not None}))
            return
        if traits.tables and "axis" in _attributes(node) and open_slots == [traits.tables[0][0]]:
            self._looked_up(traits.tables[0][1], open_slots[0], given, attrs)
            return
        ends = {slot: bounds or self._unbounded(slot) for slot, bounds in given.items()}
        self._open(traits, ends, open_slots, attrs)
        self._limit(traits)

    def _open(
        self, traits: Traits, ends: Mapping[int, Bounds], slots: Sequence[int], attrs: Mapping[str, object]
    ) -> None:
        """Bound what depends on the inputs `slots`."""
        if traits.same and slots == [0] and not (2 in ends and ends[2].low.any()):
            self.walk.put(self.node.output[0], ends[0].low, ends[0].high)
        elif {s for s in slots if ends[s].low.dtype != bool} <= {*traits.rises, *traits.affine} and traits.rises_when(
            attrs
        ):
            self._at_ends(traits, ends, slots)
        elif traits.multilinear and len(self.node.input) - (traits.bias is not None and 2 in ends) <= 2:
            self._product(traits, ends)
        elif traits.norm is not None:
            if len(slots) == 1:
                self._apart(ends, slots[0])
            self._normed(traits, ends)
        elif traits.elementwise and len(slots) == 1:
            self._at_known(traits, ends, slots[0])
        elif len(slots) == 1:
            self._apart(ends, slots[0])

    def _at_ends(self, traits: Traits, ends: Mapping[int, Bounds], slots: Sequence[int]) -> None:
        """An output whose extremes are at the ends of its inputs; inputs that it rises with go together.

        A condition has its two ends only.
        """
        rising = [s for s in slots if s in traits.rises]
        apart = [s for s in slots if s not in traits.rises]
        if len(apart) > 2:
            return
        corners = []
        for chosen in itertools.product((0, 1), repeat=len(apart) + bool(rising)):
            side = dict(zip(apart, chosen, strict=False)) | dict.fromkeys(rising, chosen[-1])
            made = self._run({s: (b.low, b.high)[side.get(s, 0)] for s, b in ends.items()}, thin=traits.elementwise)
            corners.append(made)
        count = len(self.node.output) if traits.moves else 1
        for index, name in enumerate(self.node.output[:count]):
            if name:
                values = np.stack(np.broadcast_arrays(*(made[index] for made in corners)))
                self.walk.put(name, values.min(axis=0), values.max(axis=0))

    def _product(self, traits: Traits, ends: Mapping[int, Bounds]) -> None:
        """A sum of products; an addend that is not constant leaves nothing known."""
        if traits.bias is not None and traits.bias in ends and not ends[traits.bias].is_constant:
            return
        factors = [slot for slot in (0, 1) if slot in ends]
        if len(factors) != 2:
            return
        middle = {s: ends[s].low / 2 + ends[s].high / 2 for s in factors}
        radius = {s: ends[s].high / 2 - ends[s].low / 2 for s in factors}
        size = {s: np.abs(middle[s]) for s in factors}
        a, b = factors
        fixed = {s: bounds.low for s, bounds in ends.items() if s not in factors}
        centre = self._run({**fixed, **middle})[0]
        far = np.zeros((), centre.dtype)
        for pair in ({a: size[a], b: radius[b]}, {a: radius[a], b: size[b] + radius[b]}):
            if all(end.any() for end in pair.values()):
                far = far + np.abs(self._run(pair)[0])
        slack = ROUNDING * (np.abs(self._run({s: size[s] + radius[s] for s in factors})[0]) + np.abs(centre))
        is_known = far <= np.finfo(centre.dtype).eps / 2 * np.abs(centre)
        far = np.where(is_known, 0, far + slack).astype(centre.dtype)
        self.walk.put(self.node.output[0], centre - far, centre + far)

    def _looked_up(
        self, table: int, index: int, given: Mapping[int, Bounds | None], attrs: Mapping[str, object]
    ) -> None:
        """Rows of a table that are found at run time."""
        own = given[table]
        assert own is not None
        axis = int(attrs.get("axis", 0))  # type: ignore[call-overload]
        shape = self.walk.groups.static.shapes[self.node.input[index]]
        low, high = self._full(table, own.low), self._full(table, own.high)
        least, most = low.min(axis=axis, keepdims=True), high.max(axis=axis, keepdims=True)
        rows = {index: np.zeros(shape, np.int64)}
        made = [self.run({table: np.broadcast_to(end, low.shape), **rows})[0] for end in (least, most)]
        self.walk.put(self.node.output[0], made[0], made[1])

    def _normed(self, traits: Traits, ends: Mapping[int, Bounds]) -> None:
        """A norm: where its scale is zero, what leaves it is its bias."""
        assert traits.norm is not None
        shape = self.walk.groups.static.shapes[self.node.output[0]]
        scale, bias = ends.get(traits.norm.scale), ends.get(traits.norm.bias) if traits.norm.bias is not None else None
        if scale is None or not scale.is_constant or (bias is not None and not bias.is_constant):
            return
        rank, axis = len(shape), traits.norm.axis % len(shape)
        line = [1] * rank
        line[axis] = shape[axis]
        channels = np.broadcast_to(scale.low.reshape(-1), (shape[axis],)).reshape(line)
        shift = np.zeros(line, np.float32) if bias is None else np.broadcast_to(bias.low.reshape(-1), (shape[axis],))
        wide = np.where(channels == 0, 0, BIG).astype(shift.dtype)
        self._narrow(shift.reshape(line) - wide, shift.reshape(line) + wide)

    def _at_known(self, traits: Traits, ends: Mapping[int, Bounds], slot: int) -> None:
        """An elementwise output, where its open input is known, or lies where the operator is flat."""
        own = ends[slot]
        low, high = (self._run({s: getattr(b, end) for s, b in ends.items()}, thin=True)[0] for end in ("low", "high"))
        below, above = own.high <= traits.flat_below, own.low >= traits.flat_above
        value = np.where(above, low, high)
        is_known = own.known | below | above
        self._put_known(is_known, value)

    def _apart(self, ends: Mapping[int, Bounds], slot: int) -> None:
        """Any operator, at the positions of an axis that it keeps apart: those that could be removed one by one."""
        groups, own = self.walk.groups, ends[slot]
        view, rule = groups.tracing.by_output.get(self.node.output[0], (None, None))
        inputs, outputs = ((), ()) if view is None else view.letters
        if view is None or rule is None or not outputs or slot >= len(inputs) or inputs[slot] is None:
            return
        entering, leaving = list(inputs[slot] or ()), list(outputs[0])
        summed = {masked_axis.axis for masked_axis in view.masked_axes if masked_axis.slot == slot}
        low = self._full(slot, np.where(own.known, own.low, 0).astype(own.low.dtype))
        found = self.run({s: low if s == slot else self._full(s, b.low) for s, b in ends.items()})[0]
        is_known = np.zeros((1,) * found.ndim, bool)
        for axis, letter in enumerate(entering):
            labels = view.labels(slot)[axis]
            if axis in summed or leaving.count(letter) != 1 or labels.ndim > 1 or not (labels >= 0).all():
                continue
            free = groups.group_of[groups.classes.of[labels]] >= 0
            lines = np.moveaxis(np.broadcast_to(own.known, low.shape), axis, 0).reshape(low.shape[axis], -1)
            line = (lines.all(axis=1) & free).reshape([-1 if x == letter else 1 for x in leaving])
            is_known = is_known | line
        self._put_known(is_known, found)

    def _limit(self, traits: Traits) -> None:
        """What an operator gives whatever it is given."""
        name, (least, most) = self.node.output[0], traits.limits
        if not name or traits.limits == (-math.inf, math.inf):
            return
        ends = (np.full((1,) * len(self.walk.groups.static.shapes[name]), end, np.float32) for end in (least, most))
        self._narrow(*ends)

    def _narrow(self, low: Array, high: Array) -> None:
        """Note bounds of the first output beside those that are known."""
        name = self.node.output[0]
        known = self.walk.known.get(name)
        if known is not None:
            dtype = known.low.dtype
            low, high = np.maximum(known.low, low).astype(dtype), np.minimum(known.high, high).astype(dtype)
        self.walk.put(name, low, high)

    def _put_known(self, is_known: Array, value: Array) -> None:
        """Note the elements that are known, and nothing of the others."""
        ends = {"f": (-BIG, BIG), "b": (False, True)}.get(value.dtype.kind)
        if ends is not None:
            low, high = (np.where(is_known, value, np.array(end, value.dtype)) for end in ends)
            self.walk.put(self.node.output[0], low, high)

    # --- numbers -----------------------------------------------------------------------------------------

    def _unbounded(self, slot: int) -> Bounds:
        """Nothing known of an input."""
        shape, dtype = self._about(slot)
        if dtype == onnx.TensorProto.BOOL:
            ends = np.zeros((1,) * len(shape), bool)
            return Bounds(ends, ~ends)
        if dtype not in WEIGHT_TYPES:
            raise ValueError(f"input {slot} is not float, and not constant")
        wide = np.full((1,) * len(shape), BIG, np.float64 if dtype == onnx.TensorProto.DOUBLE else np.float32)
        return Bounds(-wide, wide)

    def _about(self, slot: int) -> tuple[tuple[int, ...], int]:
        static, name = self.walk.groups.static, self.node.input[slot]
        return tuple(static.shapes[name]), static.dtypes[name]

    def _full(self, slot: int, value: Array) -> Array:
        """A value in the size of the input."""
        return np.asarray(np.broadcast_to(value, self._about(slot)[0]), order="C")  # also of no axes

    def _run(self, given: Mapping[int, Array], *, thin: bool = False) -> Sequence[Array]:
        """The outputs; `thin` inputs of an elementwise operator keep their axes of size 1 where it takes them."""
        if thin:
            try:
                return self.run(given)
            except OnnxPruneError:
                pass
        return self.run({slot: self._full(slot, value) for slot, value in given.items()})

    def _put_all(self, values: Sequence[Array]) -> None:
        for name, value in zip(self.node.output, values, strict=False):
            if name:
                self.walk.put(name, value, value)


def _attributes(node: onnx.NodeProto) -> Collection[str]:
    """The names of the attributes that an operator has."""
    try:
        return frozenset(defs.get_schema(node.op_type, domain=node.domain).attributes)
    except defs.SchemaError:
        return frozenset()
