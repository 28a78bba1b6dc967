"""Models with branches in place of their Ifs, under the names of the trace: what is in them can be looked at."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper

from onnxprune.model import Model, control_flow
from onnxprune.model.control_flow import Path
from onnxprune.model.flatten import closed, flattened, places, rename
from onnxprune.model.protos import copy_without
from onnxprune.model.run_order import INSIDE, Course, CourseStep, Route, append
from onnxprune.proof.layerwise import tapped
from onnxprune.rewriting import Removal
from onnxprune.runtime import routes_of
from onnxprune.tracing import Groups

# Loops in loops are looked into, however many.
EVERY_LOOP = 1 << 10


def as_traced(groups: Groups, model: Model) -> Model:
    """A smaller model laid out flat, under the names that the flat original has.

    Args:
        groups: the traced original.
        model: the smaller model; it is returned where it has no bodies.
    """
    names = {place: name for name, place in places(groups.tracing.model.proto.graph).items()}
    return flattened(model, names)


def in_place(flat: Model, route: Route, shown: Collection[str] = ()) -> Model:
    """A flat model with the nodes of the branches that are taken in place of their Ifs; other bodies are put back.

    Args:
        flat: the model; one without bodies is changed in place.
        route: first output of an If -> the branch that is taken.
        shown: tensors that bodies of loops make, which the model then gives, too, as arrays of all steps.
    """
    if not any(map(control_flow.is_body_start, flat.proto.graph.node)):
        return closed(flat)
    proto = copy_without(flat.proto, "node")
    for step in Course(flat, route).steps:
        append(proto.graph, step, list(shown))
    return closed(replace(flat, proto=proto))


def with_steps(flat: Model, route: Route, given: Mapping[str, onnx.ValueInfoProto]) -> Model:
    """A model like that of `in_place`, in which the nodes of a step stand in front of every loop, too, also in a step.

    Args:
        flat: the model.
        route: first output of an If -> the branch that is taken.
        given: what the bodies of loops are given in a step, which become inputs.
    """
    proto = copy_without(flat.proto, "node")
    _lay_out(proto.graph, Course(flat, route).steps, given)
    return closed(replace(flat, proto=proto))


def _lay_out(
    graph: onnx.GraphProto, steps: Sequence[CourseStep], given: Mapping[str, onnx.ValueInfoProto], depth: int = 0
) -> None:
    """Append steps to a graph, and in front of every loop a step of its own.

    Args:
        graph: the graph.
        steps: what is appended.
        given: what the bodies of loops are given in a step.
        depth: how many loops the steps are in.
    """
    for step in steps:
        starts = step.nodes[0].output
        if step.body and starts[0] in given:
            graph.input.extend(given[name] for name in starts)
            _lay_out(graph, step.body[1:], given, depth + 1)
            graph.node.extend(_apart(step.nodes, depth + 1))
        else:
            graph.node.extend(map(_without_own_names, step.nodes) if depth else step.nodes)


def _apart(nodes: Sequence[onnx.NodeProto], depth: int) -> Iterator[onnx.NodeProto]:
    """Copies of the nodes of a flat loop under other names than those of a step that is laid out.

    Args:
        nodes: the nodes of the loop.
        depth: how many loops its body is in.
    """
    other = {name: name + INSIDE * depth for node in nodes[:-1] for name in node.output if name}
    return (_without_own_names(node, other) for node in nodes)


def _without_own_names(node: onnx.NodeProto, other: Mapping[str, str] = MappingProxyType({})) -> onnx.NodeProto:
    """A copy of a node under other names; a body keeps the flat graph's names and leaves its weights outside."""
    new = onnx.NodeProto()
    new.CopyFrom(node)
    rename(new, other)
    if control_flow.is_body_start(new):
        names, body = (next(a for a in new.attribute if a.name == name) for name in ("names", "body"))
        names.s = json.dumps({"original": {}, "own": []}).encode()
        graph = onnx.GraphProto.FromString(body.s)
        for value, name in zip(graph.input, new.output, strict=False):  # a branch is given nothing
            value.name = name
        body.s = graph.SerializeToString()
    return new


@dataclass(frozen=True)
class SameWay:
    """Models that must be equal, all on the same way through the branches.

    Attributes:
        removal: what goes.
        masked: the masked original, flat.
        pruned: the smaller model, as it is written but for conditions.
        flat: the smaller model, flat, under the names of the trace.
        route: first output of an If -> the branch that is taken.
        into: look at a step of every loop that is in fewer loops than these.
    """

    removal: Removal
    masked: Model
    pruned: Model
    flat: Model
    route: Route
    into: int = EVERY_LOOP

    def reference(self, tensors: Sequence[str]) -> Model:
        """The masked original, with the branches that it takes in place, and more tensors as outputs."""
        return tapped(in_place(self.masked, self.route, [t for t in tensors if t in self.depths]), tensors)

    @cached_property
    def inner(self) -> Model:
        """The smaller model, with the same branches in place, and with the steps of loops that are looked at."""
        return with_steps(self.flat, self.route, self._given) if self._given else in_place(self.flat, self.route)

    @cached_property
    def depths(self) -> Mapping[str, int]:
        """Tensor that loops of the masked original make in every step -> how many loops it is in."""
        return {name: depth for name, depth in Course(self.masked, self.route).depths.items() if depth <= self.into}

    @property
    def given(self) -> list[str]:
        """What the bodies of loops are given in a step: inputs of `inner` that the masked original makes."""
        return list(self._given)

    @cached_property
    def common(self) -> frozenset[str]:
        """The tensors that can be had of either model."""
        inner = {o for node in self.inner.proto.graph.node for o in node.output if o}
        return (Course(self.masked, self.route).known | self.depths.keys()) & inner

    @cached_property
    def _given(self) -> dict[str, onnx.ValueInfoProto]:
        dtypes, found = self.removal.groups.static.dtypes, {}
        for node in filter(control_flow.is_body_start, self.flat.proto.graph.node):
            if not (self.depths.keys() & dtypes.keys()).issuperset(node.output):
                continue
            for name in node.output:
                found[name] = helper.make_tensor_value_info(name, dtypes[name], None)
        return found

    @property
    def leaves_loops(self) -> bool:
        """Whether there is a loop that is not looked into."""
        open_steps = [*Course(self.flat, self.route).steps]
        while open_steps:
            step = open_steps.pop()
            if step.body and step.nodes[0].output[0] not in self._given:
                return True
            open_steps.extend(step.body)
        return False


@dataclass(frozen=True)
class Bodies:
    """The two models of a proof, and what becomes of them on a way through their branches.

    Attributes:
        removal: what goes.
        masked: the masked original, flat.
        pruned: the smaller model.
    """

    removal: Removal
    masked: Model
    pruned: Model

    @cached_property
    def _flat(self) -> Model:
        return as_traced(self.removal.groups, self.pruned)

    @cached_property
    def _ifs(self) -> list[onnx.NodeProto]:
        """The Ifs that give tensors alone: a sequence needs a later opset to be handed on."""
        dtypes = self.removal.groups.static.dtypes
        flat = (node for node in self._graph.node if node.op_type == "If" and control_flow.is_flat(node))
        return [node for node in flat if all(o in dtypes for o in node.output if o)]

    @property
    def _graph(self) -> onnx.GraphProto:
        return self.removal.groups.tracing.model.proto.graph

    def usual(self, feeds: Mapping[str, np.ndarray], limit: float) -> tuple[SameWay, list[Path]]:
        """The models as they are, and the other branches that may be taken.

        Args:
            feeds: the inputs, which take some branches.
            limit: seconds that a run may take.

        Raises:
            RunError: the masked original does not run.
        """
        (route,) = routes_of(self.masked, [feeds], limit=limit)
        ways = control_flow.open_branches(self._graph, self.removal.groups.tracing.branch_taken)
        found = [path for path in ways if not control_flow.route_to(self._graph, path).items() <= route.items()]
        return self._along(self.pruned, route), found

    def in_branches(self, paths: Sequence[Path]) -> SameWay | None:
        """The models that take the branches at `paths`; None where the smaller one does not have one of them."""
        pruned, route = _forced(self.pruned, paths), dict[str, str]()
        for path in paths:
            route |= control_flow.route_to(self._graph, path)
        return None if pruned is None else self._along(pruned, route)

    def _along(self, pruned: Model, route: Route) -> SameWay:
        taken = self.removal.groups.tracing.branch_taken
        ways = {node.output[0]: route.get(node.output[0]) or taken(node) for node in self._ifs}
        return SameWay(self.removal, self.masked, pruned, self._flat, {name: way for name, way in ways.items() if way})

    def forced_reference(self, paths: Sequence[Path]) -> Model | None:
        """The masked original as it was written, but for the conditions on the way to branches."""
        return _forced(in_place(self.masked, {}), paths)


def _forced(model: Model, paths: Sequence[Path]) -> Model | None:
    """A model that takes the branches at all `paths`; None where it does not have one of them."""
    made: Model | None = model
    for path in paths:
        made = None if made is None else control_flow.forced(made, path)
    return made
