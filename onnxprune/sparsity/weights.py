"""The weights that contractions read, as matrices whose zeros cost nothing but accuracy.

A weight may lie behind nodes that only move, convert or decode it. Whatever its layout, it is seen as [groups, D, O]: D
are the inputs of one product, with the channels of one position of a kernel side by side, and O the outputs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from onnxprune.layers import WEIGHT_CARRIERS, LinearLayer, layer_at, operands_of
from onnxprune.model.graph import captured
from onnxprune.model.traits import TRAITS
from onnxprune.tracing import Groups, Letter, NodeView, TraceResult
from onnxprune.typing import Array

# Operators that change the layout of a weight and nothing else, and those that round it to where zero stays zero.
_LAID_OUT = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))
_CARRIERS = WEIGHT_CARRIERS | {"QuantizeLinear"}
# Rules call the axes of a kernel k0, k1, ...
_KERNEL = re.compile(r"k\d+")
# Their letter for what a recurrence reads of what it made before.
_BEFORE = "h before"

COMPUTED = "the graph computes it from other weights"
DEFAULT = "is a default that a caller may override"


@dataclass(frozen=True, eq=False)
class _Roles:
    """What the axes of a weight are, after it is split into `sizes`: axes of groups, of D in order, and of O."""

    sizes: tuple[int, ...]
    batch: tuple[int, ...]
    kernel: tuple[int, ...]
    inner: tuple[int, ...]
    outer: tuple[int, ...]

    @property
    def order(self) -> tuple[int, ...]:
        return (*self.batch, *self.kernel, *self.inner, *self.outer)

    def count(self, axes: Sequence[int]) -> int:
        return math.prod(self.sizes[a] for a in axes)


@dataclass(frozen=True, eq=False)
class ContractionWeight:
    """A stored weight that a contraction multiplies with an activation.

    Attributes:
        name: of the stored tensor.
        view: the first node that reads it, and from where its layout is seen.
        slot: the input of that node.
        uses: how many nodes read it.
        moves: from the stored tensor to the node: (order of the axes, or None; sizes after it).
        roles: what the axes are.
        is_float: stored as floats of at least 16 bits, as they act.
    """

    name: str
    view: NodeView
    slot: int
    uses: int
    moves: tuple[tuple[tuple[int, ...] | None, tuple[int, ...]], ...]
    roles: _Roles
    shape: tuple[int, ...]
    is_float: bool

    @property
    def channels(self) -> int:
        """Inputs of a product that lie side by side, at one position of a kernel."""
        return self.roles.count(self.roles.inner)

    @property
    def groups(self) -> int:
        """Products that lie side by side: groups of a convolution, batches of weights."""
        return self.roles.count(self.roles.batch)

    @property
    def width(self) -> int:
        """Inputs of a product: D."""
        return self.channels * self.roles.count(self.roles.kernel)

    @property
    def outputs(self) -> int:
        """Outputs of the layer, of all groups."""
        return self.roles.count(self.roles.outer) * self.roles.count(self.roles.batch)

    @property
    def nodes(self) -> tuple[str, str]:
        """The name and the operator of the node that reads it."""
        return self.view.name, self.view.node.op_type

    def as_matrix(self, value: Array) -> Array:
        """A tensor of the stored layout as [groups, D, O]."""
        roles = self.roles
        for order, sizes in self.moves:
            value = value.reshape(sizes) if order is None else value.transpose(order)
        turned = value.reshape(roles.sizes).transpose(roles.order)
        return turned.reshape(roles.count(roles.batch), -1, roles.count(roles.outer))

    def tensor(self, matrix: Array) -> Array:
        """The inverse of `matrix`."""
        roles = self.roles
        split = matrix.reshape([roles.sizes[a] for a in roles.order])
        value = split.transpose(np.argsort(roles.order))
        before = [self.shape, *(sizes for _, sizes in self.moves)]
        value = value.reshape(before[-1])
        for (order, _), sizes in zip(reversed(self.moves), reversed(before[:-1]), strict=True):
            value = value.reshape(sizes) if order is None else value.transpose(np.argsort(order))
        return value

    @cached_property
    def layer(self) -> LinearLayer | None:
        """The product that it is part of, with its inputs; None where these cannot be read."""
        return layer_at(self.view, self.slot)

    @cached_property
    def order(self) -> Array:
        """int[D]: the place of every input of `matrix` among those of the layer's rows."""
        layer = self.layer
        assert layer is not None
        ids = np.arange(math.prod(self.shape)).reshape(self.shape)
        seen = ids
        for order, sizes in self.moves:
            seen = seen.reshape(sizes) if order is None else seen.transpose(order)
        theirs, ours = layer.as_matrix(seen)[0, :, 0], self.as_matrix(ids)[0, :, 0]
        places = np.argsort(theirs, kind="stable")
        return places[np.searchsorted(theirs[places], ours)]


def contraction_weights(groups: Groups) -> tuple[list[ContractionWeight], dict[str, str]]:
    """Find the weights whose elements may be set to zero.

    Args:
        groups: the traced model.

    Returns:
        The weights, in graph order, and for weights of contractions that must stay as they are: name -> why.
    """
    tracing = groups.tracing
    found: dict[str, list[tuple[NodeView, int, list[onnx.NodeProto]]]] = {}
    left: dict[str, str] = {}
    for view, slot in _operands(tracing):
        name, chain = _origin(tracing, view.node.input[slot])
        if name in tracing.given:
            found.setdefault(name, []).append((view, slot, chain))
        elif view.node.input[slot] in tracing.constants or name in tracing.sources:
            left[name] = COMPUTED
    weights = []
    for name, uses in found.items():
        why = _obstacle(groups, name, uses)
        made = None if why else _contraction(tracing, name, uses)
        if made is not None:
            weights.append(made)
        else:
            left[name] = why or "its layout is not known"
    return weights, left


def _operands(tracing: TraceResult) -> Iterator[tuple[NodeView, int]]:
    """Every constant input of a contraction that is summed over together with an activation."""
    for view, rule in tracing.views:
        if rule is None or rule.contractions is None or all(view.constant):
            continue
        for slot in range(len(view.node.input)):
            if view.has(slot) and view.constant[slot] and _is_summed(view, slot):
                yield view, slot


def _is_summed(view: NodeView, slot: int) -> bool:
    if not view.letters[0]:
        traits = TRAITS.get((view.node.domain, view.node.op_type))
        return traits is not None and slot == traits.weight
    letters = view.letters[0][slot] if slot < len(view.letters[0]) else None
    made, others = _around(view, slot)
    return letters is not None and any(x not in made and (x in others or _is_kernel(x)) for x in letters)


def _around(view: NodeView, slot: int) -> tuple[set[Letter], set[Letter]]:
    """Letters of the outputs, and of what a weight is multiplied with."""
    given = zip(view.letters[0], view.constant, strict=False)
    others = {x for s, (letters, constant) in enumerate(given) if s != slot and not constant for x in letters or ()}
    return {x for letters in view.letters[1] for x in letters}, others | {_BEFORE}


def _is_kernel(letter: object) -> bool:
    return isinstance(letter, str) and _KERNEL.fullmatch(letter) is not None


def _origin(tracing: TraceResult, tensor: str) -> tuple[str, list[onnx.NodeProto]]:
    """The tensor that a weight is stored in, and the nodes between, from there on."""
    chain: list[onnx.NodeProto] = []
    while tensor not in tracing.given:
        node = tracing.producer(tensor)
        if node is None or node.op_type not in {*_CARRIERS, *_LAID_OUT, "Transpose"}:
            break
        chain.insert(0, node)
        tensor = node.input[0]
    return tensor, chain


def _obstacle(groups: Groups, name: str, uses: Sequence[tuple[NodeView, int, list[onnx.NodeProto]]]) -> str:
    """Why the elements of a weight must stay; empty where nothing speaks against it."""
    tracing = groups.tracing
    if tracing.is_overridable(name):
        return DEFAULT
    if tracing.is_filled(name):
        return "is filled with one number, and not stored"
    value = tracing.static.shapes.get(name)
    if value is None or math.prod(value) < 2:
        return "has a single element"
    reached = {view.node.output[0] for view, _, _ in uses} | {n.output[0] for _, _, chain in uses for n in chain}
    for tensor in [name, *(n.output[0] for _, _, chain in uses for n in chain)]:
        if tracing.is_output(tensor):
            return "is an output of the model"
        for node in tracing.model.proto.graph.node:
            if tensor in captured(node) or (tensor in node.input and node.output[0] not in reached):
                return f"{node.op_type} {node.name or node.output[0]!r} reads it too"
    real = tracing.weight_value(name)
    if real is None:
        return "its value is not known"
    if real.shape != tracing.element_shape(name):
        return "several numbers are packed into one"
    return ""


def _contraction(
    tracing: TraceResult, name: str, uses: Sequence[tuple[NodeView, int, list[onnx.NodeProto]]]
) -> ContractionWeight | None:
    view, slot, chain = uses[0]
    shape = tracing.element_shape(name)
    if _is_in_blocks(view):
        return _in_blocks(view, slot, name, shape=shape, uses=len(uses))
    moves: list[tuple[tuple[int, ...] | None, tuple[int, ...]]] = []
    for node in chain:
        after = tracing.static.shapes.get(node.output[0])
        if after is None:
            return None
        if node.op_type == "Transpose":
            order = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), tuple(range(len(after)))[::-1])
            moves.append((order, tuple(after)))
        elif node.op_type in _LAID_OUT:
            moves.append((None, tuple(after)))
    roles = _roles(view, slot)
    if roles is None:
        return None
    plain = all(node.op_type in {"Transpose", "Identity", *_LAID_OUT} for node in chain)
    is_float = tracing.static.dtypes.get(name) in _FLOATS and name not in tracing.encodings and plain
    return ContractionWeight(
        name, view, slot, len(uses), moves=tuple(moves), roles=roles, shape=shape, is_float=is_float
    )


def _in_blocks(view: NodeView, slot: int, name: str, *, shape: tuple[int, ...], uses: int) -> ContractionWeight | None:
    """A weight in rows of blocks, of which every column is an input; None where the last block is not full."""
    rows, width = shape[0], math.prod(shape[1:])
    if width != int(view.attrs.get("K", 0)):
        return None
    moves = ((None, (rows, width)), ((1, 0), (width, rows)))
    roles = _Roles((width, rows), (), (), inner=(0,), outer=(1,))
    return ContractionWeight(name, view, slot, uses, moves=moves, roles=roles, shape=shape, is_float=False)


def _is_in_blocks(view: NodeView) -> bool:
    operands = operands_of(view.node)
    return operands is not None and operands.is_packed


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def _roles(view: NodeView, slot: int) -> _Roles | None:
    sizes = tuple(view.shape(slot))
    if not view.letters[0]:
        return _grouped(view, sizes)
    letters = view.letters[0][slot]
    assert letters is not None
    made, others = _around(view, slot)
    axes: Mapping[str, list[int]] = {"batch": [], "kernel": [], "inner": [], "outer": []}
    for axis, letter in enumerate(letters):
        if _is_kernel(letter) and letter not in made:
            axes["kernel"].append(axis)
        elif letter in others:
            axes["batch" if letter in made else "inner"].append(axis)
        else:
            axes["outer"].append(axis)
    return _Roles(sizes, **{role: tuple(found) for role, found in axes.items()})


def _grouped(view: NodeView, sizes: tuple[int, ...]) -> _Roles:
    """Of a convolution in groups: [groups x out, in, ...], or [groups x in, out, ...] of a transposed one."""
    group = int(view.attrs.get("group", 1))
    split = (group, sizes[0] // group, *sizes[1:])
    first, second = ((1,), (2,)) if "Transpose" in view.node.op_type else ((2,), (1,))
    return _Roles(split, (0,), tuple(range(3, len(split))), inner=first, outer=second)
