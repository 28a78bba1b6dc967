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
from onnxprune.model.graph import first_output
from onnxprune.model.shapes.infer import StaticInfo
from onnxprune.model.tensors import dtype_of
from onnxprune.tracing import Edit, NodeView, TraceResult, resize_node
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
    """One contraction.

    Attributes:
        view: the node, with shapes as they are when the model is timed.
        rule: its rule.
        letters: what can shrink.
        ports: of every given input and output, the letter of every axis; -1 for an axis that stays.
    """

    view: NodeView
    rule: Rule
    letters: tuple[Letter, ...]
    ports: Mapping[Port, tuple[int, ...]]

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
        return sum(math.prod(self.shape(port, lengths)) for port in self.ports)

    @cached_property
    def signature(self) -> dict[str, Any]:
        """What its time depends on, but for lengths and the machine, as plain values."""
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
            mark: its nodes and tensors are called this, and something behind it.
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
                node.input[slot] = self._given(slot, lengths, graph, mark)
        for number, one in enumerate([*edit.before, node, *edit.after]):
            one.name = f"{mark}_{number}"
            for names in (one.input, one.output):
                names[:] = [renamed.get(name, name) for name in names]
            graph.nodes.append(one)
        graph.weights += [numpy_helper.from_array(value, name) for name, value in edit.constants.items()]
        made = first_output(self.view.node)
        graph.observe(renamed[made], self.shape(-1 - list(self.view.node.output).index(made), lengths), mark)

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
    found = [(view, rule) for view, rule in tracing.views if rule is not None and rule.contractions is not None]
    numbers = [_numbers(tracing, widths, view, static) for view, _ in found]
    shrinking = _Shrinking(widths)
    made = (
        _operator(view, rule, axes, static, shrinking)
        for (view, rule), axes in zip(found, numbers, strict=True)
        if axes is not None
    )
    return [operator for operator in made if operator.letters]


def _numbers(
    tracing: TraceResult, widths: AxisLengths, view: NodeView, static: StaticInfo
) -> dict[Port, tuple[int, ...]] | None:
    """Of every tensor of a node, the numbers of its axes; None if a shape is not known."""
    node = view.node
    keys = {s: tracing.use_key(node, s) for s, name in enumerate(node.input) if name}
    keys |= {-1 - s: name for s, name in enumerate(node.output) if name}
    names = [*node.input, *node.output]
    if not all(name in static.shapes and name in tracing.static.shapes for name in names if name):
        return None
    return {port: widths.axes(key) for port, key in keys.items()}


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
    view: NodeView, rule: Rule, axes: Mapping[Port, Sequence[int]], static: StaticInfo, shrinking: _Shrinking
) -> Operator:
    sizes: dict[tuple[float, ...], list[int]] = {}
    first: dict[tuple[float, ...], int] = {}
    ports: dict[Port, tuple[int, ...]] = {}
    for port, numbers in axes.items():
        whole = static.shapes[view.node.input[port] if port >= 0 else view.node.output[-1 - port]]
        letters = []
        for axis, size in zip(numbers, whole, strict=True):
            key = shrinking.key(axis)
            if key is not None:
                first.setdefault(key, axis)
                sizes.setdefault(key, []).append(size)
            letters.append(-1 if key is None else list(first).index(key))
        ports[port] = tuple(letters)
    elements = sum(math.prod(static.shapes[name]) for name in (*view.node.input, *view.node.output) if name)
    made = tuple(shrinking.letter(first[key], sizes[key], elements > LARGE) for key in first)
    return Operator(replace(view, static=static), rule, made, ports)
