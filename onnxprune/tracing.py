"""One pass over the graph: every node's rule takes labels from its inputs to its outputs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxprune.evaluate import fill_value
from onnxprune.labels import Array, Axes, Classes, Ledger, Reason
from onnxprune.model import Model
from onnxprune.rules import Rule, find
from onnxprune.rules.site import LabelState, Site, Unsupported
from onnxprune.rules.whole import why_whole
from onnxprune.shapes import Facts, constant_value

logger = logging.getLogger(__name__)

# A weight that several nodes use is un-shared only if all its elements are equal (norm weights of ones, zero
# biases: exporters merge equal tensors); these are small.
LARGEST_UNSHARED = 1 << 16
COMPUTED = Reason("sizes or indices that the graph computes")
WEIGHT_TYPES = frozenset(
    (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    )
)


@dataclass
class Tracing(LabelState):
    """The state of one trace: labels by tensor, and where each weight's labels are.

    Attributes:
        model: the traced model.
        facts: its static shapes and values.
        ledger: the ties.
        axes: labels of every tensor; a weight that is un-shared has an entry per use.
        sites: every node, with the rule that traced it; None for a barrier.
        constants: tensors that are computed from weights alone.
        weights: entry of `axes` -> the weight that it belongs to.
        computed: tensors of sizes and indices, whose labels are barriers.
        shapeless: tensor without a known shape -> what made it so.
        read: (first output, slot) of every node input whose labels its rule asked for.
    """

    model: Model
    facts: Facts
    ledger: Ledger
    axes: dict[str, Axes] = field(default_factory=dict)
    sites: list[tuple[Site, Rule | None]] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)
    weights: dict[str, str] = field(default_factory=dict)
    read: set[tuple[str, int]] = field(default_factory=set)
    computed: set[str] = field(default_factory=set)
    shapeless: dict[str, str] = field(default_factory=dict)

    # --- LabelState --------------------------------------------------------------------------------------

    def labels(self, node: onnx.NodeProto, slot: int) -> Axes:
        """The labels of an input; a weight's are made here."""
        key = self.key(node, slot)
        self.read.add((node.output[0], slot))
        known = self.axes.get(key)
        if known is None:
            name = node.input[slot]
            if name in self.computed:
                self._put_barrier(name, COMPUTED)
                return self.axes[name]
            if not self.is_weight(name):
                raise Unsupported(f"the shape of {name!r} is unknown", name)
            shape = self.facts.shapes.get(name)
            if shape is None:
                raise Unsupported(f"the shape of {name!r} is unknown", name)
            one = self.ledger.barrier(Reason("axis of a single position"))
            known = tuple(self.ledger.fresh(key, a, n) if n > 1 else one for a, n in enumerate(shape))
            self.axes[key] = known
            self.weights[key] = name
        return known

    def is_weight(self, tensor: str) -> bool:
        """Whether `tensor` is an initializer or the output of a `Constant`."""
        return tensor in self.sources

    def assign(self, node: onnx.NodeProto, slot: int, axis: int, labels: Array) -> None:
        """Replace the labels of an axis of a weight."""
        key = self.key(node, slot)
        axes = list(self.labels(node, slot))
        if axes[axis].ndim > 1:
            self.ledger.tie(axes[axis], labels)
        axes[axis] = labels
        self.axes[key] = tuple(axes)

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that use `tensor`; those with subgraphs, which may use anything, are among them."""
        return [*self._readers.get(tensor, ()), *self._readers.get("", ())]

    def is_output(self, tensor: str) -> bool:
        """Whether `tensor` is an output of the graph."""
        return any(value.name == tensor for value in self.model.proto.graph.output)

    @cached_property
    def _readers(self) -> Mapping[str, list[onnx.NodeProto]]:
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.proto.graph.node:
            for name in {i for i in node.input if i}:
                found.setdefault(name, []).append(node)
            if next(captured(node), None) is not None:
                found.setdefault("", []).append(node)
        return found

    # --- weights -----------------------------------------------------------------------------------------

    @cached_property
    def sources(self) -> Mapping[str, onnx.NodeProto | None]:
        """Every weight: an initializer (None), or the node that makes it: Constant, ConstantOfShape of a constant."""
        graph = self.model.proto.graph
        found: dict[str, onnx.NodeProto | None] = {}
        found.update((t.name, None) for t in graph.initializer)
        found.update((t.values.name, None) for t in graph.sparse_initializer)
        for node in graph.node:
            filled = node.op_type == "ConstantOfShape" and node.input[0] in found
            if (node.op_type == "Constant" or filled) and not node.domain:
                found[node.output[0]] = node
        return found

    def weights_axes(self) -> Iterator[tuple[str, Axes]]:
        """(entry of `axes`, labels) of every weight that was used."""
        for key in self.weights:
            yield key, self.axes[key]

    @cached_property
    def statistics(self) -> frozenset[str]:
        """Entries of `axes` that hold running statistics, not parameters: mean and variance of BatchNormalization."""
        sites = (site.node for site, _ in self.sites if site.node.op_type == "BatchNormalization")
        return frozenset(self.key(node, slot) for node in sites for slot in (3, 4) if slot < len(node.input))

    @cached_property
    def unshared(self) -> frozenset[str]:
        """Weights that get labels of their own at every use."""
        uses = Counter(i for n in self.model.proto.graph.node for i in n.input)
        names = {name for name, count in uses.items() if count > 1 and name in self.sources}
        return frozenset(name for name in names if self._is_uniform(name))

    def _is_uniform(self, name: str) -> bool:
        shape = self.facts.shapes.get(name, ())
        if self.facts.dtypes.get(name) not in WEIGHT_TYPES or np.prod(shape, dtype=float) > LARGEST_UNSHARED:
            return False
        value = self.weight_value(name)
        return value is not None and value.size > 1 and bool((value == value.reshape(-1)[0]).all())

    def is_filled(self, name: str) -> bool:
        """Whether a weight is not stored but filled by a `ConstantOfShape`."""
        maker = self.sources[name]
        return maker is not None and maker.op_type == "ConstantOfShape"

    def has_whole_use(self, name: str) -> bool:
        """Whether a node (or an output, or a subgraph) uses a weight without having asked for its labels."""
        graph = self.model.proto.graph
        for node in graph.node:
            if name in captured(node):
                return True
            if any(given == name and self.key(node, slot) not in self.axes for slot, given in enumerate(node.input)):
                return True
        return any(o.name == name for o in graph.output)

    def weight_value(self, name: str) -> np.ndarray | None:
        """The value of a weight by its name in the graph."""
        maker = self.sources[name]
        if maker is None:
            return self.model.array(name)
        if self.is_filled(name):
            return np.broadcast_to(fill_value(maker), self.facts.shapes[name])
        return constant_value(self.model, maker)

    def key(self, node: onnx.NodeProto, slot: int) -> str:
        """The entry of `axes` for an input: the tensor's name, with the use appended where it is un-shared."""
        name = node.input[slot]
        return f"{name}@{node.output[0]}:{slot}" if name in self.unshared else name

    # --- the pass ----------------------------------------------------------------------------------------

    def run(self) -> Classes:
        """Trace every node, fix the graph's outputs, and solve."""
        graph = self.model.proto.graph
        for value in graph.input:
            if not self.is_weight(value.name):
                self._put_barrier(value.name, Reason(f"graph input {value.name!r}"))
        versions = {o.domain: o.version for o in self.model.proto.opset_import}
        versions[""] = versions.get("", versions.get("ai.onnx", 1))
        for index, node in enumerate(graph.node):
            if not node.output or node.output[0] not in self.sources:
                self._node(node, node.name or f"{node.op_type}_{index}", versions)
        self._fix_unread()
        for value in graph.output:
            if value.name in self.axes:
                for labels in self.axes[value.name]:
                    self.ledger.fix(labels, Reason(f"graph output {value.name!r}"))
        return self.ledger.solve()

    def _fix_unread(self) -> None:
        """What a rule did not ask about (a shape, an index, an option) must stay as it is."""
        for node in self.model.proto.graph.node:
            for slot, name in enumerate(node.input):
                if name and (node.output[0], slot) not in self.read:
                    for labels in self.axes.get(self.key(node, slot), ()):
                        reason = Reason("not data but a parameter of the operator", node.name, node.op_type, True)
                        self.ledger.fix(labels, reason)

    def _node(self, node: onnx.NodeProto, name: str, versions: Mapping[str, int]) -> None:
        version = versions.get("" if node.domain == "ai.onnx" else node.domain, 1)
        found = find(node.domain, node.op_type, version)
        if self._is_computed(node):
            self.computed.update(node.output)
            if found is not None and found.follow is not None:
                self.sites.append((Site(node, name, version, self.facts, self.ledger, self, []), found))
            if node.op_type == "Shape":  # it reports the original sizes whatever happens to its input
                self.read.add((node.output[0], 0))
            return
        constants, sources = self.constants, self.sources
        constant = [not i or i in constants or i in sources for i in node.input]
        site = Site(node, name, version, self.facts, self.ledger, self, constant)
        try:
            if found is None:
                raise Unsupported(_no_rule(node, version))
            results = found.trace(site)
        except Unsupported as why:
            self._barrier(site, self.shapeless.get(why.tensor, str(why)))
            self.sites.append((site, None))
            return
        self.sites.append((site, found))
        if constant and all(constant):
            self.constants.update(node.output)
        self.axes.update((o, axes) for o, axes in zip(node.output, results, strict=False) if o)

    def _is_computed(self, node: onnx.NodeProto) -> bool:
        """Whether the node computes sizes or indices: their values are known, so no labels need to pass."""
        seen, dtypes = self.facts.seen, self.facts.dtypes
        return all(o in seen and dtypes.get(o) not in WEIGHT_TYPES for o in node.output)

    def _barrier(self, site: Site, why: str) -> None:
        """Nothing passes: every input must stay whole, and so must what comes out."""
        reason = site.reason(why)
        for slot, name in enumerate(site.node.input):
            if name and (name in self.axes or (self.is_weight(name) and self._is_float(name))):
                for labels in self.labels(site.node, slot):
                    self.ledger.fix(labels, reason)
        for name in captured(site.node):
            for labels in self.axes.get(name, ()):
                self.ledger.fix(labels, reason)
            if self.is_weight(name) and name in self.facts.shapes and name not in self.axes:
                self._put_barrier(name, reason)
        for name in site.node.output:
            self._put_barrier(name, reason)
            if name and name not in self.facts.shapes:
                behind = f"no shape is known behind {site.node.op_type} {site.name!r}"
                self.shapeless[name] = why if why.startswith("no shape is known") else behind

    def _is_float(self, name: str) -> bool:
        return self.facts.dtypes.get(name) in WEIGHT_TYPES and name in self.facts.shapes

    def _put_barrier(self, name: str, reason: Reason) -> None:
        shape = self.facts.shapes.get(name)
        if shape is not None and name:
            self.axes[name] = (self.ledger.barrier(reason),) * len(shape)


def _no_rule(node: onnx.NodeProto, version: int) -> str:
    if any(a.HasField("g") or a.graphs for a in node.attribute):
        return f"{node.op_type} has subgraphs, which are not traced"
    if why := why_whole(node.domain, node.op_type):
        return why
    domain = f" of domain {node.domain}" if node.domain else f" at opset {version}"
    return f"no rule for operator {node.op_type}{domain}"


def captured(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the subgraphs of `node` mention; a superset of what they take from outside."""
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            for inner in graph.node:
                yield from (i for i in inner.input if i)
                yield from captured(inner)
            yield from (o.name for o in graph.output)
