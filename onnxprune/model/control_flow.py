"""Semantics of If, Loop and Scan in a flat graph (see `model/flatten.py`).

The nodes of a body stand between a `BodyStart`, whose outputs are what the body is given, and the node that the body
belongs to, which gets the outputs of its bodies as inputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from onnxprune.model.graph import first_output
from onnxprune.model.names import Names
from onnxprune.model.protos import keep

if TYPE_CHECKING:
    from onnxprune.model.model import Model

DOMAIN = "onnxprune.flow"
BODY_START = "BodyStart"
# Where a body is: (first output of the node, attribute) from the outermost node on.
Path = tuple[tuple[str, str], ...]
# Steps whose results are followed.
LONGEST_LOOP = 1 << 20
# The three operators that this module has code for; functions with bodies, as SequenceMap, are inlined before.
FLAT = frozenset(("If", "Loop", "Scan"))


def is_body_start(node: NodeProto) -> bool:
    """Whether `node` stands in front of a body."""
    return node.domain == DOMAIN


def is_flat(node: NodeProto) -> bool:
    """Whether `node` had bodies, which stand in front of it now."""
    return node.op_type in FLAT and any(a.name == "bodies" for a in node.attribute)


def is_loop(body_start: NodeProto) -> bool:
    """Whether a `BodyStart` stands in front of the body of a Loop, whose count is its first input."""
    return body_start_outputs(body_start)[0] == 2


@dataclass(frozen=True)
class Steps:
    """The inputs of a flat Loop or Scan, and the outputs of its body among them, by slot.

    Attributes:
        states: what is carried from step to step, as the body gets it.
        ends: the same as the body returns it.
        parts: what every step adds to an output.
        axes: where the outputs that are made of parts have their new axis.
        whole: a tensor of which every step gets a slice; empty if there is none.
        along: the axis that it is sliced along.
    """

    states: range
    ends: range
    parts: range
    axes: tuple[int, ...]
    whole: str
    along: int


def steps(node: NodeProto) -> Steps:
    """What goes around in a flat Loop or Scan."""
    states, first = _number(node, "states"), _number(node, "first")
    start = 1 if node.op_type == "Loop" else 0
    ends = first + (1 if node.op_type == "Loop" else 0)
    parts = range(ends + states, len(node.input))
    given = attributes(node)
    axes = given.get("axes") or [0] * len(parts)
    return Steps(
        states=range(start, start + states),
        ends=range(ends, ends + states),
        parts=parts,
        axes=tuple(axes),
        whole=given.get("whole", b"").decode(),
        along=given.get("along", 0),
    )


def body_start_outputs(node: NodeProto) -> tuple[int, int, tuple[int, ...]]:
    """Of a `BodyStart`: how many outputs count, how many are state, and the axes along which the others are sliced."""
    return _number(node, "counted"), _number(node, "states"), tuple(attributes(node).get("axes") or ())


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _number(node: NodeProto, name: str) -> int:
    return int(next(a.i for a in node.attribute if a.name == name))


def branches(node: NodeProto) -> dict[str, range]:
    """The slots of a flat If that hold the outputs of each of its branches."""
    names = next(a.strings for a in node.attribute if a.name == "bodies")
    count = (len(node.input) - 1) // len(names)
    return {name.decode(): range(1 + i * count, 1 + (i + 1) * count) for i, name in enumerate(names)}


def branch_for(condition: np.ndarray | None) -> str:
    """The branch that an If takes for a condition; empty where the condition is unknown or no single value."""
    if condition is None or condition.size != 1:
        return ""
    return "then_branch" if condition.reshape(-1)[0] else "else_branch"


class Shapes(Protocol):
    """What a scan knows about the tensors so far."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, int]
    values: dict[str, np.ndarray]

    def put(self, name: str, dtype: int, shape: Sequence[int]) -> None:
        """Note the type and the sizes of a tensor."""

    def assume(self, name: str, dtype: int, found: Sequence[int | None]) -> None:
        """The same, where the sizes that are None depend on values."""


def infer_body(node: NodeProto, known: Shapes, unsteady: set[str], condition: np.ndarray | None) -> None:
    """Shapes of what a `BodyStart` or a flat node gives.

    Args:
        node: the node.
        known: the shapes so far, which grow.
        unsteady: what loops carry from step to step whose shape is found to change on the way; grows.
        condition: the condition of an If, where it depends on nothing.
    """
    if is_body_start(node):
        counted, states, axes = body_start_outputs(node)
        for name, dtype in zip(node.output[:counted], (TensorProto.INT64, TensorProto.BOOL), strict=False):
            known.put(name, dtype, ())
        if counted == 2:  # no step is made where the condition does not hold
            known.values[node.output[1]] = np.array(True)
        for slot in range(counted, len(node.output)):
            axis = axes[slot - counted - states] if slot >= counted + states else None
            if node.output[slot] not in unsteady:
                _like(known, node.output[slot], [node.input[slot]], axis)
    elif node.op_type == "If":
        for name, sources in zip(node.output, _sources(node, condition), strict=True):
            _either(known, name, sources)
    else:
        _infer_steps(node, known, unsteady)


def _sources(node: NodeProto, condition: np.ndarray | None) -> list[list[str]]:
    """Of every output of a flat If, what may come out there."""
    decided = branch_for(condition)
    used = [part for branch, part in branches(node).items() if decided in ("", branch)]
    return [[node.input[part[i]] for part in used] for i in range(len(node.output))]


def common(shapes: Sequence[tuple[int, ...] | None]) -> list[int | None] | None:
    """Find the sizes that the outputs of branches have in common.

    A tensor without elements stands for others where there are any: exporters that merge a decoder for the first token
    with one for the next hand it out in place of caches that do not change.

    Args:
        shapes: of the tensors, as far as they are known.

    Returns:
        The sizes, None for an axis where they differ; None where a shape is not known, or ranks differ.
    """
    full = [shape for shape in shapes if shape is not None and 0 not in shape] or shapes
    if None in shapes or len({len(shape or ()) for shape in shapes}) > 1:
        return None
    return list(_agreed([shape for shape in full if shape is not None]))


# The sizes of a tensor as far as they are known at all: some are polynomials, see `model/shapes/polynomials.py`.
Dims = Sequence[Any]


def dims(
    node: NodeProto,
    dims_of: Callable[[str], Dims],
    varying: set[tuple[str, int]],
    condition: np.ndarray | None,
) -> list[Dims]:
    """Sizes of what a `BodyStart` or a flat node gives; None for an axis whose size the run alone knows.

    Args:
        node: the node.
        dims_of: the sizes of a tensor.
        varying: axes, of what loops carry from step to step, whose size is found to change on the way; grows.
        condition: the condition of an If, where it depends on nothing.

    Raises:
        LookupError: the sizes of an input are not known.
    """
    if is_body_start(node):
        counted, states, axes = body_start_outputs(node)
        made: list[Dims] = [() for _ in node.output[:counted]]
        for slot in range(counted, len(node.output)):
            given = list(dims_of(node.input[slot]))
            if slot >= counted + states:
                del given[axes[slot - counted - states] % len(given)]
            name = node.output[slot]
            made.append([None if (name, a) in varying else d for a, d in enumerate(given)])
        return made
    if node.op_type == "If":
        return [_agreed([dims_of(s) for s in sources]) for sources in _sources(node, condition)]
    of = steps(node)
    made = []
    for state, end in zip(of.states, of.ends, strict=True):
        made.append(_agreed([dims_of(node.input[state]), dims_of(node.input[end])]))
        varying.update((node.input[state], a) for a, d in enumerate(made[-1]) if d is None)
    for slot, axis in zip(of.parts, of.axes, strict=True):
        part = list(dims_of(node.input[slot]))
        part.insert(axis % (len(part) + 1), dims_of(of.whole)[of.along] if of.whole else None)
        made.append(part)
    return made


def _agreed(found: Sequence[Dims]) -> Dims:
    """The sizes that all have in common, None where they differ."""
    return [sizes[0] if all(s == sizes[0] for s in sizes) else None for sizes in zip(*found, strict=True)]


def _infer_steps(node: NodeProto, known: Shapes, unsteady: set[str]) -> None:
    of = steps(node)
    for state, end in zip(of.states, of.ends, strict=True):
        if known.shapes.get(node.input[state]) != known.shapes.get(node.input[end]):
            unsteady.add(node.input[state])
    for name, state in zip(node.output, of.states, strict=False):
        if node.input[state] not in unsteady:
            _like(known, name, [node.input[state]])
    length = _count(node, known)
    for name, slot, axis in zip(node.output[len(of.states) :], of.parts, of.axes, strict=True):
        part = known.shapes.get(node.input[slot])
        if length is not None:
            _like(known, name, [node.input[slot]], axis, length)
        elif name and part is not None and -1 - len(part) <= axis <= len(part):
            place = axis % (len(part) + 1)
            known.assume(name, known.dtypes[node.input[slot]], [*part[:place], None, *part[place:]])


def _count(node: NodeProto, known: Shapes) -> int | None:
    """How many steps a flat Loop or Scan makes; None where that depends on what is computed."""
    of = steps(node)
    if node.op_type == "Scan":
        whole = known.shapes.get(of.whole, ())
        return whole[of.along] if -len(whole) <= of.along < len(whole) else None
    go = attributes(node).get("go", b"").decode()
    conditions = [known.values.get(name) for name in (go, node.input[of.ends.start - 1]) if name]
    most = known.values.get(node.input[0])
    if most is None or most.size != 1 or not all(c is not None and c.size == 1 and c.all() for c in conditions):
        return None
    return max(0, int(most.item())) if most.item() <= LONGEST_LOOP else None


def _either(known: Shapes, name: str, sources: Sequence[str]) -> None:
    """Give a tensor the sizes that all of `sources` have; axes where they differ are those that values decide."""
    dtype = known.dtypes.get(sources[0])
    if dtype is None or not name:
        return
    known.dtypes[name] = dtype
    sizes = common([known.shapes.get(source) for source in sources])
    if sizes is not None:
        known.assume(name, dtype, sizes)


def _like(known: Shapes, name: str, sources: Sequence[str], axis: int | None = None, length: int | None = None) -> None:
    """Give a tensor the shape that all of `sources` have, but for an axis that it lacks, or has with a length."""
    shapes = {known.shapes.get(source) for source in sources}
    shape, dtype = next(iter(shapes)), known.dtypes.get(sources[0])
    if dtype is None or not name:
        return
    known.dtypes[name] = dtype
    if shape is None or len(shapes) > 1:
        return
    sizes = list(shape)
    rank = len(sizes) + (length is not None)
    if axis is not None and not -rank <= axis < rank:
        return
    if length is not None and axis is not None:
        sizes.insert(axis % (len(sizes) + 1), length)
    elif axis is not None:
        del sizes[axis % len(sizes)]
    known.put(name, dtype, sizes)


def dead(graph: GraphProto, taken: Callable[[NodeProto], str]) -> frozenset[str]:
    """First outputs of the nodes in those branches of a flat graph that are never taken.

    Args:
        graph: the flat graph.
        taken: the branch that a flat If always takes; empty if either.
    """
    stack: list[list[str]] = []
    found: set[str] = set()
    for node in graph.node:
        if is_body_start(node):
            stack.append([])
        if stack and node.output:
            stack[-1].append(first_output(node))
        if is_flat(node):
            names = list(branches(node)) if node.op_type == "If" else ["body"]
            frames = stack[-len(names) :]
            del stack[-len(names) :]
            one = taken(node) if node.op_type == "If" else ""
            mine = frames[-1].pop()
            for name, frame in zip(names, frames, strict=True):
                if one and name != one:
                    found.update(frame)
            if stack:
                stack[-1] += [*(x for frame in frames for x in frame), mine]
    return frozenset(found)


# --- one branch at a time --------------------------------------------------------------------------------


def body_path(node: NodeProto, attribute: str) -> Path:
    """Where the file has a body of a flat node."""
    given = attributes(node)
    made = NodeProto.FromString(given["node"])
    return (*((output, name) for output, name in json.loads(given["path"])), (made.output[0], attribute))


def route_to(graph: GraphProto, path: Path) -> dict[str, str]:
    """First output of a flat If -> the branch that leads to the body at `path`; loops on the way are left out."""
    flat = (node for node in graph.node if node.op_type == "If" and is_flat(node))
    ways = ((node.output[0], branch, body_path(node, branch)) for node in flat for branch in branches(node))
    return {output: branch for output, branch, way in ways if path[: len(way)] == way}


def open_branches(graph: GraphProto, taken: Callable[[NodeProto], str]) -> list[Path]:
    """Where the branches of a flat graph are that may be taken or not."""
    never = dead(graph, taken)
    found: list[Path] = []
    for node in graph.node:
        if node.op_type == "If" and is_flat(node) and not taken(node) and node.output[0] not in never:
            found += [body_path(node, branch) for branch in branches(node)]
    return found


def together(paths: Sequence[Path]) -> list[list[Path]]:
    """Put paths together that one run can take: no If is to take both of its branches."""
    found: list[tuple[dict[str, str], list[Path]]] = []
    for path in paths:
        for taken, others in found:
            if all(taken.get(output, branch) == branch for output, branch in path):
                taken.update(path)
                others.append(path)
                break
        else:
            found.append((dict(path), [path]))
    return [others for _, others in found]


def forced(model: Model, path: Path) -> Model | None:
    """`model` with the conditions changed so that the branch at `path` is taken; None if it is not there."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    for output, name in path:
        node = next((n for n in graph.node if n.output and n.output[0] == output), None)
        if node is None and (output, name) != path[-1]:
            continue  # a branch that is always taken stands in place of its If
        attribute = next((a for a in node.attribute if a.name == name), None) if node is not None else None
        if node is None or attribute is None:
            return None
        if node.op_type == "If":
            node.input[0] = _decided(proto, value=name == "then_branch")
        graph = attribute.g
    return replace(model, proto=proto)


def _decided(proto: ModelProto, *, value: bool) -> str:
    """Add a condition of this value, as the default of an input.

    ONNX Runtime puts a branch that a constant chooses in place of its If, and ends in a segmentation fault where such
    branches lie in each other (silero-vad 6.2 in ONNX Runtime 1.32); a default may be overridden, so it leaves the If.
    """
    name = Names(proto.graph).unique(f"onnxprune_{'then' if value else 'else'}")
    if proto.ir_version < 4:  # where defaults are constants
        stored = {tensor.name for tensor in proto.graph.initializer}
        keep(proto.graph.input, lambda given: given.name not in stored)
        proto.ir_version = 4
    proto.graph.initializer.append(helper.make_tensor(name, TensorProto.BOOL, (), [value]))
    proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.BOOL, ()))
    return name
