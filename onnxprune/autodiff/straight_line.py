"""Graphs without branches and loops: the branch that a decided If takes, and the steps of loops of known length.

A condition or a length is known where it depends on constants and shapes alone; other branches and loops stay.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.model.protos import bodies, keep
from onnxprune.model.traits import operators_where
from onnxprune.typing import Array

Run = Callable[[ModelProto], Mapping[str, Any]]

# Operators that give something else at every run: nothing that they reach is a constant.
_RANDOM = operators_where(lambda traits: traits.draws, "")
_SHAPES = operators_where(lambda traits: traits.tells_sizes, "")
# Nodes that a graph may have when its loops are written out.
_LARGEST = 100_000


def straightened(proto: ModelProto, arrays: dict[str, Array], run: Run) -> ModelProto:
    """Write out decided branches and loops of known length until none is left.

    Args:
        proto: the graph, its weights apart; its nodes are replaced.
        arrays: elements of the weights; constants that are made here are added.
        run: gives every tensor of a graph but the weights.
    """
    flow = ("If", "Loop", "Scan")
    while any(node.op_type in flow and not node.domain for node in proto.graph.node):
        fixed = fixed_tensors(proto.graph.node, arrays)
        known = [n for n in proto.graph.node if n.op_type in flow and _is_known(n, fixed)]
        if not known or len(proto.graph.node) > _LARGEST:
            break
        counted = [node for node in known if node.op_type == "Loop"]
        results = {**arrays, **run(_with_counts(proto, counted))}
        taken = {id(node) for node in known}
        nodes: list[NodeProto] = []
        for node in proto.graph.node:
            if id(node) in taken:
                nodes.extend(_written_out(node, _Unrolling(proto, arrays, results, node.output[0] or str(len(nodes)))))
            else:
                nodes.append(node)
        copies = [NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del proto.graph.node[:]
        proto.graph.node.extend(copies)
    return proto


def fixed_tensors(nodes: Iterable[NodeProto], known: Iterable[str]) -> set[str]:
    """Tensors that depend on constants and shapes alone.

    Args:
        nodes: nodes in order.
        known: the constants.
    """
    fixed = set(known)
    for node in nodes:
        if node.op_type in _RANDOM:
            continue
        if node.op_type in _SHAPES or all(i in fixed for i in names_read([node])):
            fixed.update(o for o in node.output if o)
    return fixed


def names_read(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Names that nodes and their bodies read."""
    for node in nodes:
        yield from (i for i in node.input if i)
        for body in bodies(node):
            yield from names_read(body.node)
            yield from (o.name for o in body.output)


# --- what is known -----------------------------------------------------------------------------------------


def _is_known(node: NodeProto, fixed: set[str]) -> bool:
    """Whether the branch or the number of steps of a node depends on constants and shapes alone."""
    if node.op_type == "If":
        return node.input[0] in fixed
    if node.op_type == "Scan":
        return True
    if not all(name in fixed for name in node.input[:2] if name):
        return False
    return _decides_its_end(node, fixed)


def _decides_its_end(node: NodeProto, fixed: set[str]) -> bool:
    """Whether the condition of a Loop follows from what is fixed, step after step."""
    body = next(bodies(node))
    states = [value.name for value in body.input[2:]]
    steady = {inner for inner, outer in zip(states, node.input[2:], strict=True) if outer in fixed}
    while True:
        inside = {value.name for value in body.input[:2]} | steady | {t.name for t in body.initializer}
        made = fixed_tensors(body.node, fixed | inside)
        still = {s for s, o in zip(states, body.output[1:], strict=False) if s in steady and o.name in made}
        if still == steady:
            return body.output[0].name in made
        steady = still


def _with_counts(proto: ModelProto, loops: Sequence[NodeProto]) -> ModelProto:
    """The graph with the numbers of the steps of each loop as one more output of it."""
    if not loops:
        return proto
    probe = ModelProto()
    probe.CopyFrom(proto)
    wanted = {node.output[0] for node in loops}
    for node in probe.graph.node:
        if node.op_type == "Loop" and node.output[0] in wanted:
            body = next(bodies(node))
            name = f"{body.input[0].name}/step"
            body.node.append(helper.make_node("Identity", [body.input[0].name], [name]))
            body.output.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
            while len(node.output) < len(body.output) - 2:
                node.output.append(f"{node.output[0]}/unused{len(node.output)}")
            node.output.append(_steps_of(node))
    return probe


def _steps_of(node: NodeProto) -> str:
    return f"{node.output[0]}/steps"


# --- writing out -------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Unrolling:
    """One node on its way to straight code.

    Attributes:
        proto: the graph.
        arrays: elements of the constants; those of bodies are added.
        results: every tensor, from a run.
        stem: beginning of the names that are made.
        nodes: what stands for the node so far.
    """

    proto: ModelProto
    arrays: dict[str, Array]
    results: Mapping[str, Any]
    stem: str
    nodes: list[NodeProto] = field(default_factory=list)

    def constant(self, name: str, array: Array) -> str:
        """Add a constant."""
        made = f"{self.stem}/{name}"
        self.arrays.setdefault(made, array)
        return made

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def body(self, graph: GraphProto, given: Mapping[str, str], step: str) -> list[str]:
        """Add the nodes of a body.

        Args:
            graph: the body.
            given: input of the body -> tensor.
            step: makes the names of its tensors differ from those of other steps.

        Returns:
            The tensors that its outputs are.
        """
        names = {**given, **{t.name: f"{self.stem}/{t.name}" for t in graph.initializer}}
        for tensor in graph.initializer:
            self.arrays.setdefault(names[tensor.name], numpy_helper.to_array(tensor))
        names |= {o: f"{self.stem}/{step}{o}" for node in graph.node for o in node.output if o}
        for node in graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            _rename_tensors(copy, names)
            self.nodes.append(copy)
        return [names.get(output.name, output.name) for output in graph.output]


def _written_out(node: NodeProto, work: _Unrolling) -> list[NodeProto]:
    {"If": _branch, "Loop": _loop, "Scan": _scan}[node.op_type](node, work)
    return work.nodes


def _branch(node: NodeProto, work: _Unrolling) -> None:
    taken = "then_branch" if np.asarray(work.results[node.input[0]]).reshape(-1)[0] else "else_branch"
    made = work.body(next(a.g for a in node.attribute if a.name == taken), {}, "")
    _handed_over(work, made, node.output)


def _loop(node: NodeProto, work: _Unrolling) -> None:
    body, states = next(bodies(node)), list(node.input[2:])
    condition = work.constant("true", np.array(True))
    parts: list[list[str]] = [[] for _ in body.output[1 + len(states) :]]
    for step in range(len(work.results[_steps_of(node)])):
        number = work.constant(str(step), np.array(step, np.int64))
        given = [number, condition, *states]
        made = work.body(body, dict(zip((i.name for i in body.input), given, strict=True)), f"{step}/")
        condition, states = made[0], made[1 : 1 + len(states)]
        for part, name in zip(parts, made[1 + len(states) :], strict=True):
            part.append(name)
    joined = [_stacked(work, part, 0, f"part{i}", node.output[len(states) + i :]) for i, part in enumerate(parts)]
    _handed_over(work, [*states, *joined], node.output)


def _scan(node: NodeProto, work: _Unrolling) -> None:
    body = next(bodies(node))
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.type != AttributeProto.GRAPH}
    sliced = options["num_scan_inputs"]
    states, scanned = list(node.input[: len(node.input) - sliced]), node.input[len(node.input) - sliced :]
    parts: list[list[str]] = [[] for _ in body.output[len(states) :]]
    axes = options.get("scan_input_axes") or [0] * sliced
    cut = [_cut(work, name, axis, f"cut{i}") for i, (name, axis) in enumerate(zip(scanned, axes, strict=True))]
    back = options.get("scan_input_directions") or [0] * sliced
    ordered = [pieces[::-1] if backwards else pieces for pieces, backwards in zip(cut, back, strict=True)]
    for step, slices in enumerate(zip(*ordered, strict=True)):
        given = dict(zip((i.name for i in body.input), [*states, *slices], strict=True))
        made = work.body(body, given, f"{step}/")
        states = made[: len(states)]
        for part, name in zip(parts, made[len(states) :], strict=True):
            part.append(name)
    axes_out = options.get("scan_output_axes") or [0] * len(parts)
    back_out = options.get("scan_output_directions") or [0] * len(parts)
    joined = [
        _stacked(work, part[::-1] if backwards else part, axis, f"part{i}", node.output[len(states) + i :])
        for i, (part, axis, backwards) in enumerate(zip(parts, axes_out, back_out, strict=True))
    ]
    _handed_over(work, [*states, *joined], node.output)


def _cut(work: _Unrolling, name: str, axis: int, stem: str) -> list[str]:
    """The positions of an axis as tensors of their own."""
    shape = np.shape(work.results[name])
    along = axis % len(shape)
    pieces = [f"{work.stem}/{stem}/{i}" for i in range(shape[along])]
    sizes = work.constant(f"{stem}/sizes", np.ones(len(pieces), np.int64))
    work.nodes.append(helper.make_node("Split", [name, sizes], [f"{p}/slice" for p in pieces], axis=along))
    at = work.constant(f"axis{along}", np.array([along], np.int64))
    return [work.add("Squeeze", [f"{piece}/slice", at], piece) for piece in pieces]


def _stacked(work: _Unrolling, parts: Sequence[str], axis: int, stem: str, outputs: Sequence[str]) -> str:
    """What the steps gave, along a new axis."""
    made = f"{work.stem}/{stem}"
    if not parts:
        result = work.results.get(outputs[0]) if outputs else None
        return work.constant(stem, np.asarray(result if result is not None else 0))
    at = work.constant(f"axis{axis}", np.array([axis], np.int64))
    slices = [work.add("Unsqueeze", [part, at], f"{made}/{i}") for i, part in enumerate(parts)]
    return work.add("Concat", slices, made, axis=axis)


def _handed_over(work: _Unrolling, made: Sequence[str], outputs: Sequence[str]) -> None:
    for name, output in zip(made, outputs, strict=False):
        if output:
            work.add("Identity", [name], output)


def _rename_tensors(node: NodeProto, names: Mapping[str, str]) -> None:
    """Give the tensors of a node other names, in its bodies too, but for those that a body makes itself."""
    node.input[:] = [names.get(i, i) for i in node.input]
    node.output[:] = [names.get(o, o) for o in node.output]
    for body in bodies(node):
        inside = {o for inner in body.node for o in inner.output} | {i.name for i in body.input}
        outer = {k: v for k, v in names.items() if k not in inside | {t.name for t in body.initializer}}
        for inner in body.node:
            _rename_tensors(inner, outer)
        for value in body.output:
            value.name = outer.get(value.name, value.name)


# --- weights of bodies -------------------------------------------------------------------------------------

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class BodyWeight:
    """A float weight inside of a branch or a loop.

    Attributes:
        path: of the body: outputs of the nodes around it, with the names of their attributes.
        name: what the body calls it.
        tensor: its elements, where the body has them.
    """

    path: str
    name: str
    tensor: TensorProto


def body_weights(graph: GraphProto) -> dict[str, BodyWeight]:
    """Find the float weights inside of branches and loops of a model's graph.

    Returns:
        Weights by names that no other tensor of the graph has: their own, or behind the path of the body.
    """
    counts = Counter(_defined(graph))
    return {
        name if counts[name] == 1 else f"{path}/{name}": BodyWeight(path, name, tensor)
        for path, body in _inner(graph, "")
        for name, tensor in _weights(body)
    }


def hoist(graph: GraphProto, weights: Mapping[str, BodyWeight]) -> None:
    """Let branches and loops read their weights from the graph around them, under the names of `body_weights`."""
    found: dict[str, dict[str, str]] = {}
    for name, weight in weights.items():
        found.setdefault(weight.path, {})[weight.name] = name
    for path, body in _inner(graph, ""):
        names = found.get(path, {})
        _take_out(body, names)
        for node in body.node:
            _rename_tensors(node, names)
        for value in body.output:
            value.name = names.get(value.name, value.name)


def _take_out(body: GraphProto, names: Mapping[str, str]) -> None:
    keep(body.initializer, lambda tensor: tensor.name not in names)
    keep(body.node, lambda node: node.op_type != "Constant" or node.output[0] not in names)


def _inner(graph: GraphProto, path: str) -> Iterator[tuple[str, GraphProto]]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                place = f"{path}{node.output[0]}/{attribute.name}"
                yield place, attribute.g
                yield from _inner(attribute.g, f"{place}/")


def _weights(body: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Float tensors of a body that are more than one number."""
    stored = [(t.name, t) for t in body.initializer]
    stored += [
        (node.output[0], node.attribute[0].t)
        for node in body.node
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value"
    ]
    for name, tensor in stored:
        if tensor.data_type in _FLOATS and math.prod(tensor.dims) > 1:
            yield name, tensor


def _defined(graph: GraphProto) -> Iterator[str]:
    yield from {value.name for value in (*graph.initializer, *graph.input)}
    for node in graph.node:
        yield from (o for o in node.output if o)
        for body in bodies(node):
            yield from _defined(body)
