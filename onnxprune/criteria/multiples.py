"""Positions of a tensor that are multiples of each other, whatever the inputs are.

An element of a tensor is `scale * F_id`, with the same F for all elements of an id. Ids and scales are laid along those
axes only on which something is known; F may be anything along the others. They go through the graph by traits:

* a contraction gives y_o = sum_d w_do x_d + b_o, so that outputs whose weights and bias are multiples are multiples
  (inputs of one id count as one);
* what is affine in its inputs (a sum, a product with a scale, an inference norm) is a combination of F and 1, and
  positions with proportional coefficients are multiples;
* what passes positive factors (Relu, a pooling) hands ids and scales on, and so does a product of two computed
  tensors, along the axes of each that it does not sum over;
* any other elementwise operator makes equal outputs of equal inputs, constants included;
* a layout moves ids as it moves elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.criteria.clusters import clusters
from onnxprune.errors import OnnxPruneError
from onnxprune.layers import LinearLayer, linear_layer
from onnxprune.model.graph import WEIGHT_TYPES
from onnxprune.model.traits import Traits, traits_of
from onnxprune.runtime import NodeRunner, in_single
from onnxprune.tracing import Groups, NodeView
from onnxprune.typing import Array

# Elements that are told apart one by one, of a tensor whose elements change places, and positions that are compared.
LARGEST, MOST = 1 << 22, 1 << 15


@dataclass(frozen=True, eq=False)
class Multiples:
    """The ids and scales of a tensor's elements.

    Attributes:
        ids: int64, with the tensor's number of axes; size 1 along axes on which nothing is known.
        scale: float64, of the same shape.
    """

    ids: Array
    scale: Array

    @classmethod
    def unknown(cls, rank: int) -> Multiples:
        """Nothing is known."""
        return cls(np.zeros((1,) * rank, np.int64), np.ones((1,) * rank))

    def spread(self, shape: Sequence[int], axes: Sequence[int]) -> Multiples:
        """The same with `axes` written out: positions of which nothing is known differ."""
        ids, scale = self.ids, self.scale
        for axis in axes:
            if ids.shape[axis] == 1 and shape[axis] > 1:
                line = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(ids.ndim)])
                ids = ids * shape[axis] + line
        return Multiples(ids, np.ascontiguousarray(np.broadcast_to(scale, ids.shape)))

    def apart(self, axes: Sequence[int]) -> Multiples:
        """The same where positions along `axes` are no multiples of each other."""
        ids = self.ids
        for axis in axes:
            line = np.arange(ids.shape[axis]).reshape([-1 if a == axis else 1 for a in range(ids.ndim)])
            ids = ids * ids.shape[axis] + line
        return Multiples(ids, self.scale)


def multiples_of(groups: Groups, tolerance: float) -> Mapping[str, Multiples]:
    """The multiples in every tensor of the flat graph of which anything is known.

    Args:
        groups: the traced model.
        tolerance: largest difference of two coefficients that count as equal, relative to the largest.
    """
    walk = _Walk(groups, tolerance)
    for view, rule in groups.tracing.views:
        if rule is not None:
            try:
                walk.node(view)
            except (OnnxPruneError, ValueError, TypeError):  # then nothing is known of its outputs
                continue
    return walk.known


def rows(layer: LinearLayer, known: Multiples, shape: Sequence[int]) -> tuple[Array, Array] | None:
    """The ids and scales of a layer's rows, [groups, D] each; None where they differ from row to row.

    Args:
        layer: the layer.
        known: the multiples of its input.
        shape: that of its input.
    """
    if any(known.ids.shape[axis] > 1 for axis in layer.drawn):
        return None
    full = known.spread(shape, [a for a in range(len(shape)) if a not in layer.drawn])
    places = covering_places(layer, shape)
    names, numbers = np.unique(full.ids, return_inverse=True)
    if len(names) >= 1 << 24:  # rows are in single precision
        return None
    ids = layer.input_rows(np.broadcast_to(numbers.reshape(full.ids.shape) + 1.0, shape), places)
    scale = layer.input_rows(np.broadcast_to(full.scale, shape), places)
    seen = ids.argmax(axis=1)[:, None]
    ids, scale = (np.take_along_axis(part, seen, axis=1)[:, 0] for part in (ids, scale))
    return ids.astype(np.int64), scale.astype(np.float64)


def covering_places(layer: LinearLayer, shape: Sequence[int]) -> Array:
    """Places of a layer whose rows together are whole if any are: one, but for transposed convolutions with strides."""
    ones = np.ones(shape, np.float32)
    places = layer.sample_positions(ones, 256, np.random.default_rng(0))
    whole = layer.input_rows(ones, places).sum(axis=0) > 0
    chosen: list[int] = []
    left = whole.any(axis=0)
    while left.any() or not chosen:
        chosen.append(int((whole & left).sum(axis=1).argmax()))
        left = left & ~whole[chosen[-1]]
    return places[chosen]


@dataclass
class _Walk:
    """A pass in graph order."""

    groups: Groups
    tolerance: float
    known: dict[str, Multiples] = field(default_factory=dict)

    def of(self, name: str) -> Multiples:
        """What is known of a tensor."""
        return self.known.get(name) or Multiples.unknown(len(self.groups.static.shapes[name]))

    def constant(self, name: str) -> Array | None:
        """The value of a constant; None for anything else."""
        tracing = self.groups.tracing
        if tracing.is_overridable(name):
            return None
        if tracing.is_weight(name):
            value = tracing.weight_value(name)
            return None if value is None else in_single(value)
        seen = tracing.static.example_values.get(name)
        return seen if tracing.static.dtypes.get(name) not in WEIGHT_TYPES else None

    def node(self, view: NodeView) -> None:
        """Note what is known of a node's outputs."""
        node, traits = view.node, traits_of(view.node)
        if any(name and name not in self.groups.static.shapes for name in (*node.input, *node.output)):
            return
        values = {s: self.constant(name) for s, name in enumerate(node.input) if name}
        moving = [s for s, value in values.items() if value is None]
        given = {s: value for s, value in values.items() if value is not None}
        layer = linear_layer(view)
        if not moving or traits.draws or view.attrs.get("training_mode"):
            return
        if layer is not None:
            self._contracted(view, layer)
        elif traits.same and moving == [0]:
            self.known[node.output[0]] = self.of(node.input[0])
        elif traits.moves and moving == [0]:
            self._moved(view, given)
        elif traits.joins:
            self._joined(view, moving)
        elif traits.elementwise or (traits.affine and moving == [0]):
            self._pointwise(view, traits, moving, given)
        elif len(moving) == len(node.input) == 2 and set(moving) <= {*traits.multilinear}:
            self._multiplied(view)
        elif moving == [0] and not any(v.dtype.kind == "f" and v.size > 1 for v in given.values()):
            self._along_letters(view, passes=traits.homogeneous or traits.linear)

    def _contracted(self, view: NodeView, layer: LinearLayer) -> None:
        """Outputs with proportional weights and biases."""
        name, shape = view.node.input[layer.weight], view.shape(layer.weight)
        value = self.constant(name)
        found = rows(layer, self.of(layer.input), view.shape(1 - layer.weight))
        if value is None or found is None:
            return
        matrix = layer.as_matrix(value).astype(np.float64) * layer.scale
        bias = self._bias(view, layer, matrix.shape[0] * matrix.shape[2])
        if bias is None or matrix.shape[0] * matrix.shape[2] > MOST:
            return
        bias = bias.reshape(matrix.shape[0], -1)
        taps = np.arange(matrix.shape[1]) % layer.positions if layer.positions > 1 else np.zeros(matrix.shape[1], int)
        ids, scale, first = np.empty(bias.shape, np.int64), np.empty(bias.shape), 0
        alike: dict[bytes, list[int]] = {}
        for group in range(len(matrix)):
            alike.setdefault(found[0][group].tobytes(), []).append(group)
        for members in alike.values():  # groups that read the same: one channel each, of a depthwise convolution
            one, which = np.unique(found[0][members[0]] * layer.positions + taps, return_inverse=True)
            weights = np.zeros((len(members), len(one) + 1, matrix.shape[2]))
            for place, group in enumerate(members):
                np.add.at(weights[place], which.reshape(-1), found[1][group][:, None] * matrix[group])
                weights[place, -1] = bias[group]
            vectors = weights.transpose(0, 2, 1).reshape(-1, len(one) + 1)
            names, factor = clusters(np.zeros((len(vectors), 1), np.int64), vectors, self.tolerance)
            ids[members], scale[members] = (names + first).reshape(len(members), -1), factor.reshape(len(members), -1)
            first += len(vectors)
        made = (layer.laid_out(values, shape) for values in (ids, scale))
        self.known[view.node.output[0]] = Multiples(*made)

    def _bias(self, view: NodeView, layer: LinearLayer, outputs: int) -> Array | None:
        if not view.has(2):
            return np.zeros(outputs)
        value = self.constant(view.node.input[2])
        if value is None or layer.bias is None or value.size not in (1, outputs):
            return None
        return np.broadcast_to(value.astype(np.float64).reshape(-1), (outputs,))

    def _moved(self, view: NodeView, given: Mapping[int, Array]) -> None:
        """What is laid out in another order: every element is told apart."""
        known, shape = self.of(view.node.input[0]), view.shape(0)
        if known.ids.size == 1 or np.prod(shape, dtype=float) > LARGEST:
            return
        full = known.spread(shape, range(len(shape)))
        names = np.unique(full.ids, return_inverse=True)[1].reshape(full.ids.shape)
        run = NodeRunner(self.groups.tracing.model, view.node)
        ids = run({**given, 0: names.astype(np.float32)})  # below 2^24, which single precision holds exactly
        scale = run({**given, 0: full.scale.astype(np.float32)})
        for index, name in enumerate(view.node.output):
            if name:
                self._note(name, ids[index].astype(np.int64), scale[index].astype(np.float64))

    def _note(self, name: str, ids: Array, scale: Array) -> None:
        """Note what is known of a tensor, without axes along which that is the same everywhere."""
        self.known[name] = _thinned(ids, scale, self.tolerance)

    def _joined(self, view: NodeView, moving: Sequence[int]) -> None:
        """Tensors one behind the other: what is known of each."""
        rank = len(view.out_shape())
        axis = int(view.attrs.get("axis", 1)) % rank
        known = {s: self.of(view.node.input[s]) for s in moving}
        if all(m.ids.size == 1 for m in known.values()):
            return
        slots = [s for s in range(len(view.node.input)) if view.has(s)]
        full = [known.get(s, Multiples.unknown(rank)).spread(view.shape(s), [axis]) for s in slots]
        wide = [int(n) for n in np.max([m.ids.shape for m in full], axis=0)]
        axes = [a for a in range(rank) if wide[a] > 1]
        full = [m.spread(view.shape(s), axes) for m, s in zip(full, slots, strict=True)]
        starts = np.cumsum([0, *(int(m.ids.max()) + 1 for m in full)])
        ids = np.concatenate([m.ids + start for m, start in zip(full, starts, strict=False)], axis)
        self._note(view.node.output[0], ids, np.concatenate([m.scale for m in full], axis))

    def _pointwise(self, view: NodeView, traits: Traits, moving: Sequence[int], given: Mapping[int, Array]) -> None:
        """Position by position: combinations of F and 1, or anything of equal inputs."""
        out = view.out_shape()
        rank, per_channel = len(out), not traits.elementwise
        if "axis" in view.attrs and traits.elementwise:  # broadcasting of old
            return
        sizes = {s: (1,) * (rank - len(view.shape(s))) + tuple(view.shape(s)) for s in moving}
        known = {s: _raised(self.of(view.node.input[s]), rank) for s in moving}
        fixed = {
            s: value if per_channel else value.reshape((1,) * (rank - value.ndim) + value.shape)
            for s, value in given.items()
        }
        lines = [] if per_channel else [_thin(v).shape for v in fixed.values()]
        if per_channel:
            lines = [(1, out[1], *[1] * (rank - 2))]
        wide = np.broadcast_shapes(*(m.ids.shape for m in known.values()), *lines)
        if np.prod(wide, dtype=float) > MOST:
            return
        axes = [a for a in range(rank) if wide[a] > 1]
        full = {s: m.spread(sizes[s], axes) for s, m in known.items()}
        if len(moving) == 1 and traits.homogeneous and not given:
            self.known[view.node.output[0]] = full[moving[0]]
            return
        keys = np.stack([np.broadcast_to(full[s].ids, wide).reshape(-1) for s in moving], axis=1)
        scales = [np.broadcast_to(full[s].scale, wide).reshape(-1) for s in moving]
        is_affine = traits.linear or (len(moving) == 1 and moving[0] in traits.affine)
        if is_affine:
            slopes, rest = self._coefficients(view, moving, fixed, wide)
            vectors = np.stack([*(a * b for a, b in zip(slopes, scales, strict=True)), rest], axis=1)
        else:
            numbers = [np.broadcast_to(v.astype(np.float64), wide).reshape(-1) for v in map(_thin, fixed.values())]
            vectors = np.stack([*scales, *numbers], axis=1)
        ids, scale = clusters(keys, vectors, self.tolerance, up_to_factor=is_affine)
        self._note(view.node.output[0], ids.reshape(wide), scale.reshape(wide))

    def _coefficients(
        self, view: NodeView, moving: Sequence[int], fixed: Mapping[int, Array], wide: Sequence[int]
    ) -> tuple[list[Array], Array]:
        """What an affine operator multiplies each of its inputs with, and what it adds, position by position."""
        run = NodeRunner(self.groups.tracing.model, view.node)
        numbers = {s: v.astype(np.float64) if v.dtype.kind == "f" else v for s, v in fixed.items()}

        def at(one: int | None) -> Array:
            inputs = {s: np.full(wide, float(s == one)) for s in moving}
            return np.broadcast_to(run({**numbers, **inputs})[0].astype(np.float64), wide).reshape(-1)

        rest = at(None)
        return [at(slot) - rest for slot in moving], rest

    def _along_letters(self, view: NodeView, *, passes: bool) -> None:
        """Axes that go through as they are; along all others nothing must be known.

        Args:
            view: the node.
            passes: whether positive factors go through too.
        """
        known, (inputs, outputs) = self.of(view.node.input[0]), view.letters
        if known.ids.size == 1 or not inputs or inputs[0] is None or not outputs:
            return
        if not passes:
            keys, scale = known.ids.reshape(-1, 1), known.scale.reshape(-1, 1)
            ids, _ = clusters(keys, scale, self.tolerance, up_to_factor=False)
            known = Multiples(ids.reshape(known.ids.shape), np.ones(known.ids.shape))
        self._handed_on(view, 0, known)

    def _multiplied(self, view: NodeView) -> None:
        """A product of two computed tensors: what is known of one along the axes that it has alone."""
        inputs = view.letters[0]
        for slot, name in enumerate(view.node.input):
            known, letters, others = self.of(name), inputs[slot], inputs[1 - slot]
            if known.ids.size > 1 and letters is not None and others is not None:
                axes = [axis for axis, letter in enumerate(letters) if letter in others and known.ids.shape[axis] > 1]
                self._handed_on(view, slot, known.apart(axes))

    def _handed_on(self, view: NodeView, slot: int, known: Multiples) -> None:
        """Note what is known of an input, of an output that has the same axes."""
        inputs, outputs = view.letters
        entering, leaving = list(inputs[slot] or ()), list(outputs[0] or ())
        wide = [a for a, n in enumerate(known.ids.shape) if n > 1]
        summed = {masked_axis.axis for masked_axis in view.masked_axes if masked_axis.slot == slot}
        if any(entering[a] not in leaving or entering.count(entering[a]) > 1 or a in summed for a in wide):
            return
        order = [entering.index(x) for x in leaving if x in entering and entering.index(x) in wide]
        sizes = [known.ids.shape[entering.index(x)] if x in entering else 1 for x in leaving]
        rest = [a for a in range(known.ids.ndim) if a not in order]
        made = (part.transpose(*order, *rest).reshape(sizes) for part in (known.ids, known.scale))
        self.known[view.node.output[0]] = Multiples(*made)


def _thinned(ids: Array, scale: Array, tolerance: float) -> Multiples:
    """The same without axes along which the ids only are others at every position, and factors the same."""
    for axis in range(ids.ndim):
        if ids.shape[axis] == 1:
            continue
        slices = np.moveaxis(ids, axis, 0).reshape(ids.shape[axis], -1)
        if slices.shape[1] == 1:
            if len(np.unique(slices)) == len(slices) and np.ptp(scale) == 0:
                first = (slice(None),) * axis + (slice(0, 1),)
                ids, scale = ids[first], scale[first]
            continue
        factors = np.moveaxis(scale, axis, 0).reshape(len(slices), -1)
        same = _tells_nothing(slices) and all(_pattern(line) == _pattern(slices[0]) for line in slices)
        same = same and np.allclose(factors, factors[0], tolerance, 0)
        if same:
            first = (slice(None),) * axis + (slice(0, 1),)
            ids, scale = ids[first], scale[first]
    return Multiples(ids, scale)


def _tells_nothing(slices: Array) -> bool:
    """Whether the ids of a line across the slices are all different, or all the same as those of constants are."""
    steps = np.diff(np.sort(slices, axis=0), axis=0) != 0
    differ = steps.all(axis=0)
    return bool(differ.any() and (differ | ~steps.any(axis=0)).all())


def _pattern(line: Array) -> bytes:
    """Equal for lines whose entries are equal to each other at the same places."""
    _, first, inverse = np.unique(line, return_index=True, return_inverse=True)
    return bytes(first[inverse.reshape(-1)].astype(np.int64).tobytes())


def _raised(known: Multiples, rank: int) -> Multiples:
    """The same with axes in front, as broadcasting puts them there."""
    shape = (1,) * (rank - known.ids.ndim) + known.ids.shape
    return Multiples(known.ids.reshape(shape), known.scale.reshape(shape))


def _thin(value: Array) -> Array:
    """A constant without the axes along which it does not vary."""
    for axis in range(value.ndim):
        first = (slice(None),) * axis + (slice(0, 1),)
        if value.shape[axis] > 1 and (value == value[first]).all():
            value = value[first]
    return value
