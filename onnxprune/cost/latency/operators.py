"""A model's contractions, each as something that can be run alone at any widths."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.cost.axis_lengths import AxisLengths
from onnxprune.cost.latency.coders import coders_of, decoders_of
from onnxprune.model.graph import first_output
from onnxprune.model.shapes.infer import StaticInfo
from onnxprune.model.tensors import dtype_of
from onnxprune.tracing import Edit, NodeView, resize_node
from onnxprune.tracing.rules import Rule
from onnxprune.typing import Array, Shape

# Axes whose lengths stay in proportion under this many random removals shrink together.
PROBES = 5
# Elements of all tensors of an operator, above which fewer lengths are measured.
LARGE = 1 << 22
# A tensor of an input (its slot) or of an output (-1 - its number).
Port = int


@dataclass(frozen=True)
class Letter:
    """Axes of an operator that shrink in proportion.

    Attributes:
        axis: the number of one of them in `AxisLengths`.
        full: its length there.
        base: greatest common divisor of the lengths of all; a *length* of the letter is how many of these remain.
        step: lengths that can be reached differ from `base` by multiples of this.
        is_large: the operator is so large that fewer lengths are measured.
    """

    axis: int
    full: int
    base: int
    step: int
    is_large: bool = False


@dataclass(frozen=True, eq=False)
class Operator:
    """One contraction, with the nodes around it that make whole numbers of floats, or floats of whole numbers.

    A runtime makes one kernel of these, which multiplies whole numbers: alone, the contraction is timed as one of
    floats.

    Attributes:
        view: the node, with shapes as they are when the model is timed.
        rule: its rule.
        letters: what can shrink.
        ports: of every given input and output, the letter of every axis; -1 for an axis that stays.
        decoders: the nodes in front of it, in the order in which they run, which share its letters.
        coders: the nodes behind it.
    """

    view: NodeView
    rule: Rule
    letters: tuple[Letter, ...]
    ports: Mapping[Port, tuple[int, ...]]
    decoders: tuple[Operator, ...] = ()
    coders: tuple[Operator, ...] = ()

    @property
    def base(self) -> tuple[int, ...]:
        """The lengths of the letters where nothing is removed."""
        return tuple(letter.base for letter in self.letters)

    def name(self, port: Port) -> str:
        """The tensor at a port."""
        return self.view.node.input[port] if port >= 0 else self.view.node.output[-1 - port]

    def shape(self, port: Port, lengths: Sequence[int]) -> Shape:
        """Sizes at a port for some lengths of the letters."""
        whole = self.view.static.shapes[self.name(port)]
        return tuple(
            n if j < 0 else n // self.letters[j].base * lengths[j] for n, j in zip(whole, self.ports[port], strict=True)
        )

    def elements(self, lengths: Sequence[int]) -> int:
        """Elements of all inputs and outputs."""
        around = sum(one.elements(lengths) for one in (*self.decoders, *self.coders))
        return around + sum(math.prod(self.shape(port, lengths)) for port in self.ports)

    @cached_property
    def signature(self) -> dict[str, Any]:
        """What its time depends on, but for lengths and the machine, as plain values."""
        around = {"decoders": self.decoders, "coders": self.coders}
        return self._own_signature | {key: [one.signature for one in found] for key, found in around.items() if found}

    @property
    def _own_signature(self) -> dict[str, Any]:
        node, static = self.view.node, self.view.static
        attributes = sorted(a.SerializeToString(deterministic=True).hex() for a in node.attribute)
        digest = hashlib.sha256(" ".join(attributes).encode()).hexdigest()[:16]
        return {
            "op": f"{node.domain}::{node.op_type}",
            "version": self.view.version,
            "attributes": digest,
            "tensors": [
                [
                    port,
                    int(static.dtypes.get(self.name(port), 0)),
                    bool(port >= 0 and self.view.constant[port]),
                    list(static.shapes[self.name(port)]),
                    list(letters),
                ]
                for port, letters in self.ports.items()
            ],
            "letters": [letter.base for letter in self.letters],
        }

    def place(self, lengths: Sequence[int], graph: Micrograph, mark: str) -> None:
        """Add the operator at some lengths to a graph.

        Args:
            lengths: of the letters.
            graph: where it goes.
            mark: its node, and those that it becomes, are called this, and something behind it; so are tensors. Nodes
                around it have other names: what they take unless they become one with it is their own time.
        """
        made: dict[str, str] = {}
        around = (*self.decoders, self, *self.coders)
        for number, one in enumerate(around):
            one._add(lengths, graph, mark if one is self else f"around_{mark}_{number}", made)
        last = around[-1]
        shape = last.shape(-1 - list(last.view.node.output).index(first_output(last.view.node)), lengths)
        graph.observe(made[first_output(last.view.node)], shape, mark)

    def _add(self, lengths: Sequence[int], graph: Micrograph, mark: str, made: dict[str, str]) -> None:
        """Add the node alone.

        Args:
            lengths: of the letters.
            graph: where it goes.
            mark: what its nodes and tensors are called.
            made: tensor of the model -> what it is called in the graph; the node's outputs are added.
        """
        node = onnx.NodeProto()
        node.CopyFrom(self.view.node)
        edit = self._edit(node, lengths, mark)
        if self.rule.resize is not None:
            resize_node(self.rule.resize, edit)
        self._set_group(edit, lengths)
        renamed = {name: f"{mark}_out{i}" for i, name in enumerate(self.view.node.output) if name}
        for slot, name in enumerate(node.input):
            if slot in self.ports and name == self.name(slot):
                node.input[slot] = made.get(name) or self._given(slot, lengths, graph, mark)
        for number, one in enumerate([*edit.before, node, *edit.after]):
            one.name = f"{mark}_{number}"
            for names in (one.input, one.output):
                names[:] = [renamed.get(name, name) for name in names]
            graph.nodes.append(one)
        graph.weights += [numpy_helper.from_array(value, name) for name, value in edit.constants.items()]
        made.update(renamed)

    def _edit(self, node: onnx.NodeProto, lengths: Sequence[int], mark: str) -> Edit:
        inputs = [self.shape(s, lengths) if s in self.ports else None for s in range(len(node.input))]
        outputs = [self.shape(-1 - s, lengths) if -1 - s in self.ports else None for s in range(len(node.output))]

        def kept(slot: int | None, axis: int) -> Array:
            whole = self.view.out_shape() if slot is None else self.view.shape(slot)
            new = outputs[0] if slot is None else inputs[slot]
            return np.arange(whole[axis]) < (whole if new is None else new)[axis]

        return Edit(
            self.view,
            node,
            new_in=inputs,
            new_out=outputs,
            kept=kept,
            unique=lambda name: f"{mark}_{name}",
            constants={},
        )

    def _set_group(self, edit: Edit, lengths: Sequence[int]) -> None:
        """Which rows go is not known here: the number of groups follows from the sizes."""
        if self.view.attrs.get("group", 1) > 1:
            whole = self.shape(-1 if self.view.node.op_type == "ConvTranspose" else 0, lengths)
            edit.set_attribute("group", whole[1] // self.shape(1, lengths)[1])

    def _given(self, slot: int, lengths: Sequence[int], graph: Micrograph, mark: str) -> str:
        view, shape = self.view, self.shape(slot, lengths)
        kind = view.static.dtypes[self.name(slot)]
        known = view.state.stored_value(self.name(slot)) if view.is_weight(slot) else view.value(slot)
        if known is None and not view.constant[slot]:
            return graph.input(f"{mark}_given{slot}", shape, kind)
        if known is None:
            known = graph.pool.astype(dtype_of(kind))
        graph.weights.append(numpy_helper.from_array(np.resize(known, shape), f"{mark}_in{slot}"))
        return f"{mark}_in{slot}"


@dataclass(eq=False)
class Micrograph:
    """A graph of operators that have nothing to do with each other."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: dict[str, tuple[Shape, int]] = field(default_factory=dict)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    pool: Array = field(default_factory=lambda: np.random.default_rng(0).standard_normal(4096).astype(np.float32))

    def input(self, name: str, shape: Shape, kind: int) -> str:
        """A graph input; were operators to share one, the runtime would make one of those that are equal."""
        self.inputs[name] = shape, kind
        return name

    def observe(self, tensor: str, shape: Shape, mark: str) -> None:
        """Let the graph give one element of a tensor, so that it is computed; all of it would have to be copied."""
        rank, name = len(shape), f"seen_{mark}"
        for role, number in (("starts", 0), ("ends", 1)):
            self.weights.append(numpy_helper.from_array(np.full(rank, number, np.int64), f"{name}_{role}"))
        self.nodes.append(helper.make_node("Slice", [tensor, f"{name}_starts", f"{name}_ends"], [name], name=name))
        self.outputs.append(onnx.ValueInfoProto(name=name))

    def proto(self, like: onnx.ModelProto) -> onnx.ModelProto:
        """A model of the operator sets of another."""
        inputs = [helper.make_tensor_value_info(name, kind, shape) for name, (shape, kind) in self.inputs.items()]
        graph = helper.make_graph(self.nodes, "micro", inputs, self.outputs, self.weights)
        made = helper.make_model(graph, opset_imports=like.opset_import)
        made.ir_version = max(like.ir_version, 4)
        return made

    def feeds(self) -> dict[str, np.ndarray]:
        """Inputs: normal floats, ones."""
        made: dict[tuple[Shape, int], np.ndarray] = {}
        for shape, kind in set(self.inputs.values()):
            dtype = dtype_of(kind)
            is_number = dtype.kind == "f" or dtype.itemsize < 4
            made[shape, kind] = np.resize(self.pool, shape).astype(dtype) if is_number else np.ones(shape, dtype)
        return {name: made[about] for name, about in self.inputs.items()}


def operators(widths: AxisLengths, static: StaticInfo) -> list[Operator]:
    """The contractions of a model that change with its groups.

    Args:
        widths: lengths as functions of what the groups lose.
        static: shapes as they are when the model is timed.
    """
    tracing = widths.groups.tracing
    by_output = tracing.by_output
    contracting = [view.node for view, rule in tracing.views if rule is not None and rule.contractions is not None]

    def numbered(nodes: Sequence[onnx.NodeProto]) -> list[_Numbered]:
        found = (_numbered(widths, *by_output[first_output(node)], static) for node in nodes)
        return [one for one in found if one is not None]

    cells = [
        [numbered(side) for side in ([node], decoders_of(tracing, node), coders_of(tracing, node))]
        for node in contracting
    ]
    shrinking = _Shrinking(widths)  # once all axes have their numbers
    made = (_operator(node[0], (decoders, coders), static, shrinking) for node, decoders, coders in cells if node)
    return [operator for operator in made if operator.letters]


@dataclass(frozen=True, eq=False)
class _Numbered:
    """A node with its rule, and the numbers of the axes of its tensors."""

    view: NodeView
    rule: Rule
    axes: Mapping[Port, Sequence[int]]


def _numbered(widths: AxisLengths, view: NodeView, rule: Rule | None, static: StaticInfo) -> _Numbered | None:
    """A node with the axes of its tensors; None without a rule, or if a shape is not known."""
    tracing, node = widths.groups.tracing, view.node
    keys = {s: tracing.use_key(node, s) for s, name in enumerate(node.input) if name}
    keys |= {-1 - s: name for s, name in enumerate(node.output) if name}
    names = [*node.input, *node.output]
    if rule is None or not all(n in static.shapes and n in tracing.static.shapes for n in names if n):
        return None
    return _Numbered(replace(view, static=static), rule, {port: widths.axes(key) for port, key in keys.items()})


class _Shrinking:
    """How axes shrink, seen at random removals."""

    def __init__(self, widths: AxisLengths) -> None:
        rng = np.random.default_rng(0)
        units = np.array([widths.units(group) for group in range(widths.count)], np.int64)
        self.full = widths.lengths(np.zeros(widths.count, np.int64))
        probes = [widths.lengths((rng.random(widths.count) * units).astype(np.int64)) for _ in range(PROBES)]
        self.shares = np.array(probes) / np.maximum(self.full, 1)
        self._steps: dict[int, int] = {}
        for group in range(widths.count):
            axes, removed = widths.along(group)
            for axis, step in zip(axes, np.gcd.reduce(np.diff(removed, axis=0), axis=0), strict=True):
                self._steps[axis] = math.gcd(self._steps.get(axis, 0), int(step))

    def key(self, axis: int) -> tuple[float, ...] | None:
        """Equal for axes that shrink in proportion; None for one that stays."""
        shares = self.shares[:, axis]
        return None if (shares == 1).all() else tuple(np.round(shares, 9))

    def letter(self, axis: int, sizes: Sequence[int], is_large: bool) -> Letter:
        """A letter, given one of its axes and the lengths of all."""
        base, full = math.gcd(*sizes), int(self.full[axis])
        return Letter(axis, full, base, max(1, self._steps.get(axis, 1) * base // full), is_large)


def _operator(
    contraction: _Numbered, around: tuple[list[_Numbered], list[_Numbered]], static: StaticInfo, shrinking: _Shrinking
) -> Operator:
    sizes: dict[tuple[float, ...], list[int]] = {}
    first: dict[tuple[float, ...], int] = {}

    def lettered(one: _Numbered) -> dict[Port, tuple[int, ...]]:
        ports: dict[Port, tuple[int, ...]] = {}
        for port, numbers in one.axes.items():
            whole = static.shapes[one.view.node.input[port] if port >= 0 else one.view.node.output[-1 - port]]
            letters = []
            for axis, size in zip(numbers, whole, strict=True):
                key = shrinking.key(axis)
                if key is not None:
                    first.setdefault(key, axis)
                    sizes.setdefault(key, []).append(size)
                letters.append(-1 if key is None else list(first).index(key))
            ports[port] = tuple(letters)
        return ports

    ports = [(one, lettered(one)) for one in (contraction, *around[0], *around[1])]
    node = contraction.view.node
    elements = sum(math.prod(static.shapes[name]) for name in (*node.input, *node.output) if name)
    made = tuple(shrinking.letter(first[key], sizes[key], elements > LARGE) for key in first)
    whole, *others = (Operator(one.view, one.rule, made, own) for one, own in ports)
    count = len(around[0])
    return replace(whole, decoders=tuple(others[:count]), coders=tuple(others[count:]))
