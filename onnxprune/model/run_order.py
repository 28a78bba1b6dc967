"""Order of execution in a flat graph (see `model/flatten.py`): branches that are taken, and what runs when.

An If whose condition is known is gone: the nodes of the branch that is taken run like any others, those of the other
branch do not run. A loop runs in one go; what its body makes in every step can be had as one array of all steps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import onnx
from onnx import GraphProto, NodeProto, ValueInfoProto, helper

from onnxprune.model import control_flow
from onnxprune.model.flatten import closed, handed_on, rename
from onnxprune.model.graph import captured
from onnxprune.model.model import Model
from onnxprune.typing import Array

# First output of a flat If -> the branch that is taken.
Route = Mapping[str, str]
# The route through a graph without branches.
NO_ROUTE: Route = {}
# What a name gets inside of a loop whose steps are looked at: outside it stands for all steps.
INSIDE = "__in_a_step"


@dataclass(frozen=True, eq=False)
class CourseStep:
    """What runs in one go: a node, or one with all of its bodies.

    Attributes:
        nodes: the node, behind those of its bodies.
        body: the steps of the body of a loop, as often as it runs, behind its `BodyStart`.
    """

    nodes: tuple[NodeProto, ...]
    body: tuple[CourseStep, ...] = ()

    @cached_property
    def inner(self) -> frozenset[str]:
        """What the nodes of the body of a loop make; what comes of bodies in it is not among it."""
        return frozenset(o for step in self.body if len(step.nodes) == 1 for o in step.output if o)

    @cached_property
    def depths(self) -> dict[str, int]:
        """Tensor that is made in the body of a loop, or in one in it -> how many loops make it again and again."""
        found = {o: 1 for step in self.body for o in step.output if o}
        return found | {name: 1 + depth for step in self.body for name, depth in step.depths.items()}

    @property
    def output(self) -> Sequence[str]:
        """The tensors that it gives."""
        return self.nodes[-1].output

    @property
    def reads(self) -> set[str]:
        """The tensors that it reads, as the nodes are now."""
        made = {o for node in self.nodes[:-1] for o in node.output}
        return {name for node in self.nodes for name in reads(node)} - made


@dataclass(frozen=True, eq=False)
class Course:
    """The way of some runs through a flat graph.

    Attributes:
        model: the model; a step knows its nodes as they are when it is asked.
        route: the branches that are taken; an If that is not named runs in one go with both of its branches.
    """

    model: Model
    route: Route

    @cached_property
    def steps(self) -> list[CourseStep]:
        """What runs, in order."""
        stack: list[list[CourseStep]] = [[]]
        for node in self.model.proto.graph.node:
            if control_flow.is_body_start(node):
                stack.append([CourseStep((node,))])
            elif control_flow.is_flat(node):
                count = sum(len(a.strings) for a in node.attribute if a.name == "bodies")
                frames = stack[-count:]
                del stack[-count:]
                stack[-1] += self._joined(node, frames)
            else:
                stack[-1].append(CourseStep((node,)))
        return stack[0]

    def _joined(self, node: NodeProto, frames: Sequence[Sequence[CourseStep]]) -> Iterator[CourseStep]:
        taken = self.route.get(node.output[0]) if node.op_type == "If" else None
        if taken is not None:
            slots = control_flow.branches(node)
            yield from frames[list(slots).index(taken)][1:]
            yield from (CourseStep((handed,)) for handed in handed_on(node, slots[taken]))
            return
        nodes = tuple(n for frame in frames for step in frame for n in step.nodes)
        yield CourseStep((*nodes, node), () if node.op_type == "If" else tuple(frames[0]))

    @cached_property
    def choices(self) -> dict[str, str]:
        """First output of every If that the route says nothing of -> its condition; those in loops are left out."""
        nodes = (step.nodes for step in self.steps)
        return {n[-1].output[0]: n[-1].input[0] for n in nodes if control_flow.is_flat(n[-1]) and _passes_tensors(n)}

    @cached_property
    def stacked(self) -> frozenset[str]:
        """The tensors that bodies of loops make: they can be had as arrays of all steps."""
        return frozenset(name for step in self.steps for name in step.inner)

    @cached_property
    def depths(self) -> dict[str, int]:
        """Tensor of a loop, or of one in it -> how many loops it is in: an array of all steps has an axis for each."""
        return {name: depth for step in self.steps for name, depth in step.depths.items()}

    @cached_property
    def known(self) -> frozenset[str]:
        """All tensors that can be had, but for those of loops in loops."""
        given = (v.name for v in self.model.proto.graph.input)
        return self.stacked.union(given, (o for step in self.steps for o in step.output if o))

    @cached_property
    def _producer(self) -> Mapping[str, int]:
        return {o: i for i, step in enumerate(self.steps) for o in (*step.output, *step.inner) if o}

    def ancestors(self, tensors: Iterable[str], held: Collection[str] = ()) -> set[int]:
        """The steps that compute `tensors`, by their places, where the tensors `held` are known."""
        found: set[int] = set()
        open_names = list(tensors)
        while open_names:
            name = open_names.pop()
            index = None if name in held else self._producer.get(name)
            if index is not None and index not in found:
                found.add(index)
                open_names.extend(self.steps[index].reads)
        return found

    def descendants(self, tensors: Iterable[str]) -> set[str]:
        """`tensors`, and all that is computed from them; all of a loop in which there are some of them."""
        found = set(tensors)
        for step in self.steps:
            if not (found.isdisjoint(step.reads) and found.isdisjoint(step.inner)):
                found.update(step.output, step.inner)
        return found - {""}

    def boundary_inputs(self, changed: Collection[str]) -> list[str]:
        """What the steps that make the tensors `changed` read of others that are computed, or given."""
        changed = frozenset(changed)
        nodes = self.model.proto.graph.node
        constants = self.model.initializers.keys() | {o for n in nodes if not n.input for o in n.output}
        others = self.known - changed - constants
        steps = [step for step in self.steps if not changed.isdisjoint(step.output)]
        return list(dict.fromkeys(name for step in steps for name in sorted(step.reads) if name in others))

    def subgraph(self, places: Iterable[int], held: Mapping[str, Array], outputs: Sequence[str]) -> Model:
        """A model of some of the steps, from values that are held, also in place of stored ones, to `outputs`."""
        chosen, source = [self.steps[i] for i in places], self.model.proto.graph
        proto = onnx.ModelProto(ir_version=self.model.proto.ir_version)
        proto.opset_import.extend(self.model.proto.opset_import)
        proto.functions.extend(self.model.proto.functions)
        graph = proto.graph
        graph.name = "slice"
        for step in chosen:
            if len(step.nodes) > 1:
                made = {o for node in step.nodes for o in node.output}
                graph.value_info.extend(info for info in source.value_info if info.name in made)
            append(graph, step, outputs)
        read = {name for node in graph.node for name in reads(node)}.union(outputs)
        graph.initializer.extend(t for t in source.initializer if t.name in read and t.name not in held)
        graph.sparse_initializer.extend(s for s in source.sparse_initializer if s.values.name in read)
        for name in sorted(read & held.keys()):
            kind = helper.np_dtype_to_tensor_dtype(held[name].dtype)
            graph.input.append(helper.make_tensor_value_info(name, kind, [None] * held[name].ndim))
        graph.output.extend(ValueInfoProto(name=name) for name in outputs)
        return closed(replace(self.model, proto=proto))


def _passes_tensors(nodes: Sequence[NodeProto]) -> bool:
    """Whether a flat node is an If, of whose branches tensors come: a sequence needs a later opset to be handed on."""
    if nodes[-1].op_type != "If":
        return False
    bodies = (
        GraphProto.FromString(a.s)
        for n in nodes
        if control_flow.is_body_start(n)
        for a in n.attribute
        if a.name == "body"
    )
    return all(o.type.WhichOneof("value") in ("tensor_type", None) for body in bodies for o in body.output)


def append(graph: GraphProto, step: CourseStep, shown: Sequence[str] = (), depth: int = 1) -> None:
    """Append a step to a graph.

    Args:
        graph: the graph.
        step: what is appended.
        shown: tensors that bodies of loops make, which a loop then gives, too, as arrays of all steps.
        depth: the loops around the body of a loop, with that loop.
    """
    names, first = [name for name in shown if name in step.depths], len(graph.node)
    if not names:
        graph.node.extend(step.nodes)
        return
    for inner in step.body:
        append(graph, inner, names, depth + 1)
    graph.node.append(step.nodes[-1])
    _hand_out(graph, first, {name: name + INSIDE * depth for name in names})


def _hand_out(graph: GraphProto, first: int, inside: Mapping[str, str]) -> None:
    """Let a loop, the last node of a graph, give more tensors of its body as arrays of all steps.

    Args:
        graph: the graph.
        first: the place of the `BodyStart` of the loop.
        inside: tensor -> the name that it gets in the body.
    """
    ends = [f"{name}_ends" for name in inside.values()]
    loop = NodeProto.FromString(graph.node.pop().SerializeToString())
    body_start = graph.node[first]
    body_start.output[:] = [inside.get(o, o) for o in body_start.output]
    for node in graph.node[first + 1 :]:
        rename(node, inside)
    for info in graph.value_info:
        info.name = inside.get(info.name, info.name)
    loop.input[:] = [*(inside.get(i, i) for i in loop.input), *ends]
    loop.output.extend(inside)
    for name, end in zip(inside.values(), ends, strict=True):
        graph.node.append(helper.make_node("Identity", [name], [end]))
    body = next(a for a in body_start.attribute if a.name == "body")
    skeleton = GraphProto.FromString(body.s)
    for value, name in zip(skeleton.input, body_start.output, strict=True):
        value.name = name if name in inside.values() else value.name
    skeleton.output.extend(ValueInfoProto(name=end) for end in ends)
    body.s = skeleton.SerializeToString()
    whole = next(a for a in loop.attribute if a.name == "node")
    bare = NodeProto.FromString(whole.s)
    for attribute in (a for a in bare.attribute if a.name in ("scan_output_axes", "scan_output_directions")):
        attribute.ints.extend(0 for _ in inside)
    whole.s = bare.SerializeToString()
    graph.node.append(loop)


def reads(node: NodeProto) -> Iterator[str]:
    """The tensors that a node reads, in its bodies too."""
    yield from (name for name in node.input if name)
    yield from captured(node)


def route_key(route: Route) -> tuple[tuple[str, str], ...]:
    """A route as a key of a dictionary."""
    return tuple(sorted(route.items()))


def tappable(model: Model, routes: Sequence[Route]) -> frozenset[str]:
    """The tensors that a walk along some routes can take: those outside of branches that no run takes."""
    ways = {route_key(route): route for route in routes}
    return frozenset[str]().union(*(Course(model, route).known for route in ways.values()))


def counted(routes: Sequence[Route]) -> dict[str, dict[str, int]]:
    """First output of every If that is met -> branch -> how many of the runs take it."""
    found: dict[str, dict[str, int]] = {}
    for route in routes:
        for name, branch in route.items():
            taken = found.setdefault(name, {})
            taken[branch] = taken.get(branch, 0) + 1
    return found
