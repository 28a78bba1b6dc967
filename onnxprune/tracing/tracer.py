"""One pass over the graph: every node's rule takes labels from its inputs to its outputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import onnx

from onnxprune.model import control_flow
from onnxprune.model.graph import WEIGHT_TYPES, captured, first_output
from onnxprune.tracing.graph_index import GRAPH_FACTS
from onnxprune.tracing.labels import LONGEST_AXIS, Axes, Classes, Constraints, Reason, as_field
from onnxprune.tracing.rules import find
from onnxprune.tracing.rules.ask import ask
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.node_view import OVERRIDABLE, NodeView
from onnxprune.tracing.rules.untraceable import why_whole
from onnxprune.tracing.trace_result import COMPUTED, TraceResult
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

BEHIND = "behind it no shape is known"
TOO_LONG = Reason("an axis too long to follow")


@dataclass
class Tracer(TraceResult):
    """A trace in the making: rules ask for labels, which are made for weights when they are first asked for.

    Attributes:
        defaults: sizes, indices and constants that depend on an input with a default: tensor -> that input.
        read: (first output, slot) of every node input whose labels its rule asked for.
        shapeless: tensor without a known shape -> the first node behind which none is known, and why.
    """

    defaults: dict[str, str] = field(default_factory=dict)
    read: set[tuple[str, int]] = field(default_factory=set)
    shapeless: dict[str, Reason] = field(default_factory=dict)

    def again(self, ledger: Constraints, opened: AbstractSet[tuple[str, int]]) -> Tracer:
        """A blank trace of the same graph under other policies; what the graph itself says is looked up once."""
        other = Tracer(self.model, self.static, ledger, opened, self.rows)
        vars(other).update((name, found) for name, found in vars(self).items() if name in GRAPH_FACTS)
        return other

    # --- LabelState --------------------------------------------------------------------------------------

    def labels(self, node: onnx.NodeProto, slot: int) -> Axes:
        """The labels of an input; a weight's are made when they are first asked for."""
        key, name = self.use_key(node, slot), node.input[slot]
        self.read.add((first_output(node), slot))
        if key not in self.axes:
            if name in self.computed:
                self._put_barrier(name, COMPUTED)
            else:
                self._label_weight(key, name)
        return self.axes[key]

    def _label_weight(self, key: str, name: str) -> None:
        """Labels of their own for the positions of every axis of a weight."""
        shape = self.static.shapes.get(name)
        if shape is None or not self.is_weight(name):
            raise Unsupported(f"the shape of {name!r} is unknown", name)
        one, long = self.ledger.barrier(Reason("axis of a single position")), self.ledger.barrier(TOO_LONG)
        self.axes[key] = tuple(
            one if n <= 1 else long if n > LONGEST_AXIS else self.ledger.fresh(key, a, n) for a, n in enumerate(shape)
        )
        self.weights[key] = name

    def assign(self, node: onnx.NodeProto, slot: int, axis: int, labels: Array) -> None:
        """Replace the labels of an axis of a weight."""
        key = self.use_key(node, slot)
        axes = list(self.labels(node, slot))
        if axes[axis].ndim > 1 or self._is_read_elsewhere(node, slot):
            self.ledger.tie(as_field(axes[axis], axis, len(axes)), labels)
        axes[axis] = labels
        self.axes[key] = tuple(axes)

    def _is_read_elsewhere(self, node: onnx.NodeProto, slot: int) -> bool:
        """Whether another use has been given the labels of an input, and goes on with them."""
        key = self.use_key(node, slot)
        return any(
            self.use_key(user, other) == key and (first_output(user), other) in self.read
            for user in self.consumers(node.input[slot])
            for other, name in enumerate(user.input)
            if name == node.input[slot] and (user is not node or other != slot)
        )

    # --- the pass ----------------------------------------------------------------------------------------

    def run(self) -> tuple[TraceResult, Classes]:
        """Trace every node, fix the graph's outputs, and solve."""
        graph = self.model.proto.graph
        for value in graph.input:
            if not self.is_weight(value.name):
                self._put_barrier(value.name, Reason(f"graph input {value.name!r}"))
                self._open(value.name)
        self.defaults.update((name, name) for name in self.model.overridable)
        versions = {o.domain: o.version for o in self.model.proto.opset_import}
        versions[""] = versions.get("", versions.get("ai.onnx", 1))
        for index, node in enumerate(graph.node):
            made = first_output(node)
            if made and made in self._dead:
                continue
            if made in self.folded.inside:
                self.constants.update(node.output)
            elif not node.output or node.output[0] not in self.sources:
                self._node(node, node.name or f"{node.op_type}_{index}", versions)
        self._fix_unread()
        self._tie_states()
        for value in graph.output:
            if value.name in self.axes:
                for axis, labels in enumerate(self.axes[value.name]):
                    if (value.name, axis) not in self.opened:
                        self.ledger.fix(labels, Reason(f"graph output {value.name!r}"))
        return self._finished(), self.ledger.solve()

    def _finished(self) -> TraceResult:
        """What was traced, for reading alone; what was found out about the graph on the way comes along."""
        result = TraceResult(self.model, self.static, self.ledger)
        vars(result).update(vars(self))  # lists and caches are shared: nothing is traced after this
        for view, _ in self.views:
            view.state = result
        return result

    def _open(self, name: str) -> None:
        """Labels of its own for every axis of a graph input that may shrink."""
        shape = self.static.shapes.get(name, ())
        if name in self.axes:
            self.axes[name] = tuple(
                self.ledger.fresh(name, a, shape[a]) if (name, a) in self.opened else labels
                for a, labels in enumerate(self.axes[name])
            )

    def _tie_states(self) -> None:
        """An output that is handed to an input loses what the input loses."""
        for output, given in self.model.couplings.states:
            held = [self.axes.get(name, ()) for name in (output, given)]
            for axis, pair in enumerate(zip(*held, strict=False)):
                one, other = (as_field(labels, axis, len(held[0])) for labels in pair)
                self.ledger.tie(one, other)

    def _fix_unread(self) -> None:
        """What a rule did not ask about (a shape, an index, an option) must stay as it is."""
        for node in self.model.proto.graph.node:
            made = first_output(node)
            for slot, name in enumerate(node.input):
                if name and (made, slot) not in self.read and made not in self._dead:
                    for labels in self.axes.get(self.use_key(node, slot), ()):
                        reason = Reason("not data but a parameter of the operator", node.name, node.op_type, True)
                        self.ledger.fix(labels, reason)

    def _node(self, node: onnx.NodeProto, name: str, versions: Mapping[str, int]) -> None:
        version = versions.get("" if node.domain == "ai.onnx" else node.domain, 1)
        found = find(node.domain, node.op_type, version)
        self._note_defaults(node)
        if self._is_computed(node):
            self.computed.update(node.output)
            if found is not None and found.resize is not None:
                self.views.append(
                    (
                        NodeView(
                            node,
                            name=name,
                            version=version,
                            static=self.static,
                            ledger=self.ledger,
                            state=self,
                            constant=[],
                        ),
                        found,
                    )
                )
            if node.op_type == "Shape":  # it reports the original sizes whatever happens to its input
                self.read.add((node.output[0], 0))
            return
        constants, sources = self.constants, self.sources
        constant = [not i or i in constants or i in sources for i in node.input]
        view = NodeView(
            node, name=name, version=version, static=self.static, ledger=self.ledger, state=self, constant=constant
        )
        try:
            if found is None:
                raise Unsupported(_no_rule(node, version))
            results = ask(found, view)
            if option := self._overridable_option(view, data=False):
                raise Unsupported(option)
        except Unsupported as why:
            self._barrier(view, self._cause(view, why))
            self.views.append((view, None))
            return
        self.views.append((view, found))
        if constant and all(constant) and not control_flow.is_body_start(node):
            self.constants.update(node.output)
        for name, axes in zip(node.output, results, strict=False):
            if axes is None:
                self._put_unknown(name, view.reason(BEHIND))
            elif name:
                self.axes[name] = axes

    def _cause(self, view: NodeView, why: Unsupported) -> Reason:
        """The reason of a barrier: where a shape is not known, that of the first node behind which none is."""
        node = view.node
        names = [why.tensor, *(node.input if why.tensor in node.output else ())]
        first = next((self.shapeless[n] for n in names if n in self.shapeless), None)
        if first is not None:
            return first
        text = (self._overridable_option(view, data=True) if why.tensor in node.output else "") or str(why)
        is_known = all(not name or name in self.static.shapes for name in node.output)
        return view.reason(text if is_known else f"{text}: {BEHIND}")

    def _note_defaults(self, node: onnx.NodeProto) -> None:
        """Remember results that another value of an input with a default would change."""
        found = [self.defaults[name] for name in node.input if name in self.defaults] if self.defaults else ()
        if not found or (node.op_type == "Shape" and node.output[0] in self.static.constant_values):
            return
        stored = all(not i or i in self.constants or i in self.sources for i in node.input)
        self.defaults.update((o, found[0]) for o in node.output if o and (stored or not self._is_data(o)))

    def _overridable_option(self, view: NodeView, *, data: bool) -> str:
        """The reason why a node cannot be followed that reads a size, an index or an option with a default.

        Args:
            view: the node, after its rule has asked for the labels that it wants.
            data: count numbers that are data by their type, too.
        """
        if not self.defaults:
            return ""
        if control_flow.is_body_start(view.node) or control_flow.is_flat(view.node):
            return ""  # whatever the condition, a branch has its labels
        made = first_output(view.node)
        for slot, name in enumerate(view.node.input):
            if name in self.defaults and (data or not self._is_data(name)) and (made, slot) not in self.read:
                return f"{self.defaults[name]!r} {OVERRIDABLE}"
        return ""

    def _is_computed(self, node: onnx.NodeProto) -> bool:
        """Whether the node computes sizes or indices: their values are known, so no labels need to pass."""
        seen, dtypes = self.static.example_values, self.static.dtypes
        return all(o in seen and dtypes.get(o) not in WEIGHT_TYPES for o in node.output)

    def _barrier(self, view: NodeView, reason: Reason) -> None:
        """Nothing passes: every input must stay whole, and so must what comes out."""
        for slot, name in enumerate(view.node.input):
            if name and (name in self.axes or (self.is_weight(name) and self._is_float(name))):
                for labels in self.labels(view.node, slot):
                    self.ledger.fix(labels, reason)
        for name in captured(view.node):
            for labels in self.axes.get(name, ()):
                self.ledger.fix(labels, reason)
            if self.is_weight(name) and name in self.static.shapes and name not in self.axes:
                self._put_barrier(name, reason)
        for name in view.node.output:
            self._put_unknown(name, reason)

    def _put_unknown(self, name: str, reason: Reason) -> None:
        """Nothing passes to an output."""
        self._put_barrier(name, reason)
        if name and name not in self.static.shapes:
            self.shapeless[name] = reason

    def _is_float(self, name: str) -> bool:
        return self.static.dtypes.get(name) in WEIGHT_TYPES and name in self.static.shapes

    def _put_barrier(self, name: str, reason: Reason) -> None:
        shape = self.static.shapes.get(name)
        if shape is not None and name:
            self.axes[name] = (self.ledger.barrier(reason),) * len(shape)


def _no_rule(node: onnx.NodeProto, version: int) -> str:
    if any(a.HasField("g") or a.graphs for a in node.attribute):
        return f"{node.op_type} has subgraphs, which are not traced"
    if node.domain == "com.microsoft.nchwc":  # as ONNX Runtime saves a graph that it has optimised in full
        return "its channels are in blocks made for one machine: optimise for the machine after pruning"
    if why := why_whole(node.domain, node.op_type):
        return why
    domain = f" of domain {node.domain}" if node.domain else f" at opset {version}"
    return f"no rule for operator {node.op_type}{domain}"
