"""Models with branches in place of their Ifs, under the names of the trace: what is in them can be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx

from onnxprune.model import Model, control_flow
from onnxprune.model.control_flow import Path
from onnxprune.model.flatten import closed, flattened, places
from onnxprune.model.protos import copy_except
from onnxprune.model.run_order import Course, Route
from onnxprune.runtime import routes_of
from onnxprune.tracing import Groups


def as_traced(groups: Groups, model: Model) -> Model:
    """A smaller model laid out flat, under the names that the flat original has.

    Args:
        groups: the traced original.
        model: the smaller model; it is returned where it has no bodies.
    """
    names = {place: name for name, place in places(groups.tracing.model.proto.graph).items()}
    return flattened(model, names)


def in_place(flat: Model, route: Route) -> Model:
    """A flat model with the nodes of the branches that are taken in place of their Ifs; other bodies are put back.

    Args:
        flat: the model; one without bodies is changed in place.
        route: first output of an If -> the branch that is taken.
    """
    if not any(map(control_flow.is_begin, flat.proto.graph.node)):
        return closed(flat)
    proto = onnx.ModelProto()
    copy_except(flat.proto, proto, "graph")
    copy_except(flat.proto.graph, proto.graph, "node")
    for step in Course(flat, route).steps:
        proto.graph.node.extend(step.nodes)
    return closed(replace(flat, proto=proto))


@dataclass(frozen=True)
class SameWay:
    """Models that must be equal, all on the same way through the branches.

    Attributes:
        reference: the masked original, with the branches that it takes in place of their Ifs.
        pruned: the smaller model, as it is written but for conditions.
        inner: the smaller model with the same branches in place.
    """

    reference: Model
    pruned: Model
    inner: Model


@dataclass(frozen=True)
class Bodies:
    """The two models of a proof, and what becomes of them on a way through their branches.

    Attributes:
        groups: the traced original.
        masked: the masked original, flat.
        pruned: the smaller model.
    """

    groups: Groups
    masked: Model
    pruned: Model

    @cached_property
    def _flat(self) -> Model:
        return as_traced(self.groups, self.pruned)

    @property
    def _graph(self) -> onnx.GraphProto:
        return self.groups.tracing.model.proto.graph

    @cached_property
    def _known(self) -> dict[str, str]:
        """First output of an If that always takes the same branch -> the branch."""
        taken = self.groups.tracing.branch_taken
        flat = (node for node in self._graph.node if node.op_type == "If" and control_flow.is_flat(node))
        return {node.output[0]: branch for node in flat if (branch := taken(node))}

    @cached_property
    def _tensors(self) -> frozenset[str]:
        """First outputs of the Ifs that give tensors alone: a sequence needs a later opset to be handed on."""
        dtypes = self.groups.static.dtypes
        flat = (node for node in self._graph.node if node.op_type == "If" and control_flow.is_flat(node))
        return frozenset(node.output[0] for node in flat if all(o in dtypes for o in node.output if o))

    def usual(self, feeds: Mapping[str, np.ndarray], limit: float) -> tuple[SameWay, list[Path]]:
        """The models as they are, and the other branches that may be taken.

        Args:
            feeds: the inputs, which take some branches.
            limit: seconds that a run may take.

        Raises:
            RunError: the masked original does not run.
        """
        (route,) = routes_of(self.masked, [feeds], limit=limit)
        ways = control_flow.open_branches(self._graph, self.groups.tracing.branch_taken)
        found = [path for path in ways if not control_flow.route_to(self._graph, path).items() <= route.items()]
        return self._copies(self.pruned, route), found

    def in_branch(self, path: Path) -> SameWay | None:
        """The models that take the branch at `path`; None where the smaller one does not have it."""
        pruned = control_flow.forced(self.pruned, path)
        return None if pruned is None else self._copies(pruned, control_flow.route_to(self._graph, path))

    def _copies(self, pruned: Model, route: Route) -> SameWay:
        route = {name: branch for name, branch in {**self._known, **route}.items() if name in self._tensors}
        return SameWay(in_place(self.masked, route), pruned, in_place(self._flat, route))

    def forced_reference(self, path: Path) -> Model | None:
        """The masked original as it was written, but for the conditions on the way to a branch."""
        return control_flow.forced(in_place(self.masked, {}), path)
