"""One pass over the graph: every node's rule takes labels from its inputs to its outputs."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import onnx

from onnxprune import flow
from onnxprune.evaluate import fill_value
from onnxprune.ids import Source, sources
from onnxprune.labels import LONGEST_AXIS, Array, Axes, Classes, Ledger, Reason, as_field
from onnxprune.model import Model
from onnxprune.rules import Rule, find
from onnxprune.rules.site import COMPUTED as COMPUTED_INDEX
from onnxprune.rules.site import Encoding, LabelState, Site, Unsupported
from onnxprune.shapes import Facts, constant_value

logger = logging.getLogger(__name__)

# A weight that several nodes use is un-shared only if all its elements are equal (norm weights of ones, zero
# biases: exporters merge equal tensors); these are small.
LARGEST_UNSHARED = 1 << 16
# Operators whose output holds elements of their first input only.
MOVES = frozenset(
    ("Cast", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose")
) | {"Unsqueeze"}
COMPUTED = Reason("sizes or indices that the graph computes")
TOO_LONG = Reason("an axis too long to follow")
CONTRADICTION = "cannot be followed"
# What arithmetic on shapes and labels raises where the file contradicts itself, so that nothing could run it.
_CONTRADICTIONS = (ValueError, IndexError, KeyError, TypeError, ArithmeticError)
# Floats and what is quantised; wider integers and booleans are sizes, indices and masks (or a quantised bias, which
# is a weight to the rule that reads it).
WEIGHT_TYPES = frozenset(onnx.TensorProto.DataType.values()) - {
    onnx.TensorProto.UNDEFINED,
    onnx.TensorProto.BOOL,
    onnx.TensorProto.INT32,
    onnx.TensorProto.UINT32,
    onnx.TensorProto.INT64,
    onnx.TensorProto.UINT64,
    onnx.TensorProto.STRING,
    onnx.TensorProto.COMPLEX64,
    onnx.TensorProto.COMPLEX128,
}


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
        opened: axes of graph inputs and outputs that may shrink.
        rows: tables whose rows may go although computed ids index them.
    """

    model: Model
    facts: Facts
    ledger: Ledger
    opened: AbstractSet[tuple[str, int]] = frozenset()
    rows: AbstractSet[str] = frozenset()
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
        self.read.add((first_output(node), slot))
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
            long = self.ledger.barrier(TOO_LONG)
            known = tuple(
                one if n <= 1 else long if n > LONGEST_AXIS else self.ledger.fresh(key, a, n)
                for a, n in enumerate(shape)
            )
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
        if axes[axis].ndim > 1 or self._is_read_elsewhere(node, slot):
            self.ledger.tie(as_field(axes[axis], axis, len(axes)), labels)
        axes[axis] = labels
        self.axes[key] = tuple(axes)

    @cached_property
    def id_sources(self) -> Mapping[str, Source]:
        """Table of `rows` -> where the ids come from that index it."""
        return sources(self.model.proto.graph, self.rows)

    def fixed_rows(self, table: str) -> str:
        """Why the rows of a table that computed ids index must stay; empty if they may go."""
        if table not in self.id_sources or not self.is_weight(table) or table in self.unshared:
            return COMPUTED_INDEX
        return self.id_sources[table].problem

    def branch_taken(self, node: onnx.NodeProto) -> str:
        """The branch that an If takes whatever it is fed; empty if that is not known."""
        value = self.facts.values.get(node.input[0])
        if value is None or not self._is_certain(node.input[0]):
            return ""
        return "then_branch" if value.reshape(-1)[0] else "else_branch"

    def _is_certain(self, tensor: str) -> bool:
        """Whether a value that was the same at both numbers for the symbolic dims is so at all: none made it."""
        pending, met = [tensor], set()
        while pending:
            name = pending.pop()
            if name in met or name in self.sources:
                continue
            met.add(name)
            node = self._makers.get(name)
            if node is None or name not in self.facts.values:
                return False
            if node.op_type != "Shape":
                pending.extend(i for i in node.input if i)
        return True

    @cached_property
    def _dead(self) -> AbstractSet[str]:
        """First outputs of the nodes in branches that are never taken."""
        return flow.dead(self.model.proto.graph, self.branch_taken)

    def _is_read_elsewhere(self, node: onnx.NodeProto, slot: int) -> bool:
        """Whether another use has been given the labels of an input, and goes on with them."""
        key = self.key(node, slot)
        return any(
            self.key(user, other) == key and (first_output(user), other) in self.read
            for user in self.readers(node.input[slot])
            for other, name in enumerate(user.input)
            if name == node.input[slot] and (user is not node or other != slot)
        )

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that use `tensor`; those with subgraphs, which may use anything, are among them."""
        return [*self._readers.get(tensor, ()), *self._readers.get("", ())]

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes `tensor`."""
        return self._makers.get(tensor)

    @cached_property
    def _makers(self) -> Mapping[str, onnx.NodeProto]:
        return {name: node for node in self.model.proto.graph.node for name in node.output if name}

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

    @property
    def by_output(self) -> dict[str, tuple[Site, Rule | None]]:
        """Every traced node by its first output."""
        return {name: entry for entry in self.sites if (name := first_output(entry[0].node))}

    @cached_property
    def statistics(self) -> frozenset[str]:
        """Entries of `axes` that hold no parameters: mean and variance of BatchNormalization, scales, zero points."""
        sites = (site.node for site, _ in self.sites if site.node.op_type == "BatchNormalization")
        moments = (self.key(node, slot) for node in sites for slot in (3, 4) if slot < len(node.input))
        return self.scales.union(moments)

    @cached_property
    def scales(self) -> frozenset[str]:
        """Entries of `axes` that hold scales and zero points."""
        used = ((site, slot) for site, _ in self.sites for e in site.encodings.values() for slot in e.slots)
        return frozenset(self.key(site.node, slot) for site, slot in used if site.has(slot))

    @cached_property
    def encodings(self) -> Mapping[str, tuple[Site, Encoding]]:
        """Quantised weight -> what its numbers mean, and to which node."""
        found: dict[str, tuple[Site, Encoding]] = {}
        for site, _ in self.sites:
            for slot, encoding in site.encodings.items():
                if site.is_weight(slot):
                    found.setdefault(site.node.input[slot], (site, encoding))
        return found

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
        value = self.stored_value(name)
        return value is not None and value.size > 1 and bool((value == value.reshape(-1)[0]).all())

    def is_zero(self, tensor: str) -> bool:
        """Whether all elements of a tensor are zero, whatever the inputs are: it is filled so and only moved since."""
        known = self._zeros.get(tensor)
        if known is None:
            known = self._zeros[tensor] = self._is_zero(tensor)
        return known

    def _is_zero(self, tensor: str) -> bool:
        if self.is_weight(tensor) and not self.is_filled(tensor):
            if math.prod(self.facts.shapes.get(tensor, ())) > LARGEST_UNSHARED:
                return False
            value = self.weight_value(tensor)
            return value is not None and not value.any()
        node = self._makers.get(tensor)
        if node is None or node.domain:
            return False
        if node.op_type == "ConstantOfShape":
            return not fill_value(node).any()
        if node.op_type == "Concat":
            return all(self.is_zero(name) for name in node.input)
        return node.op_type in MOVES and self.is_zero(node.input[0])

    @cached_property
    def _zeros(self) -> dict[str, bool]:
        return {}

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
        """The real value of a weight by its name in the graph: that of a quantised one is dequantised."""
        if name not in self.encodings:
            return self.stored_value(name)
        site, encoding = self.encodings[name]
        return encoding.decode(partial(self._stored, site))

    def stored_zero(self, name: str) -> np.ndarray:
        """What is stored in a weight for zero."""
        if name not in self.encodings:
            return np.zeros((), bool)
        site, encoding = self.encodings[name]
        return encoding.zero(partial(self._stored, site))

    def _stored(self, site: Site, slot: int) -> np.ndarray | None:
        return self.stored_value(site.node.input[slot]) if site.has(slot) and site.is_weight(slot) else None

    def stored_value(self, name: str) -> np.ndarray | None:
        """The value of a weight as it is stored."""
        maker = self.sources[name]
        if maker is None:
            return self.model.array(name)
        if self.is_filled(name):
            return np.broadcast_to(fill_value(maker), self.facts.shapes[name])
        return constant_value(self.model, maker)

    def key(self, node: onnx.NodeProto, slot: int) -> str:
        """The entry of `axes` for an input: the tensor's name, with the use appended where it is un-shared."""
        name = node.input[slot]
        return f"{name}@{first_output(node)}:{slot}" if name in self.unshared else name

    # --- the pass ----------------------------------------------------------------------------------------

    def run(self) -> Classes:
        """Trace every node, fix the graph's outputs, and solve."""
        graph = self.model.proto.graph
        for value in graph.input:
            if not self.is_weight(value.name):
                self._put_barrier(value.name, Reason(f"graph input {value.name!r}"))
                self._open(value.name)
        versions = {o.domain: o.version for o in self.model.proto.opset_import}
        versions[""] = versions.get("", versions.get("ai.onnx", 1))
        for index, node in enumerate(graph.node):
            if node.output and node.output[0] in self._dead:
                continue
            if not node.output or node.output[0] not in self.sources:
                self._node(node, node.name or f"{node.op_type}_{index}", versions)
        self._fix_unread()
        for value in graph.output:
            if value.name in self.axes:
                for axis, labels in enumerate(self.axes[value.name]):
                    if (value.name, axis) not in self.opened:
                        self.ledger.fix(labels, Reason(f"graph output {value.name!r}"))
        return self.ledger.solve()

    def _open(self, name: str) -> None:
        """Labels of its own for every axis of a graph input that may shrink."""
        shape = self.facts.shapes.get(name, ())
        if name in self.axes:
            self.axes[name] = tuple(
                self.ledger.fresh(name, a, shape[a]) if (name, a) in self.opened else labels
                for a, labels in enumerate(self.axes[name])
            )

    def layered(self, classes: Classes) -> frozenset[tuple[str, int]]:
        """The opened axes with a layer behind them: some position of theirs is one of a contraction's weight."""
        hit = np.zeros(classes.count, bool)
        for site, rule in self.sites:
            for slot in range(len(site.node.input)) if rule is not None and rule.work else ():
                if site.has(slot) and site.constant[slot]:
                    for labels in site.labels(slot):
                        hit[classes.of[labels[labels >= 0]]] = True

        def has_layer(labels: Array) -> bool:
            return bool(hit[classes.of[labels[labels >= 0]]].any())

        return frozenset((name, a) for name, a in self.opened if name in self.axes and has_layer(self.axes[name][a]))

    def _fix_unread(self) -> None:
        """What a rule did not ask about (a shape, an index, an option) must stay as it is."""
        for node in self.model.proto.graph.node:
            for slot, name in enumerate(node.input):
                dead = first_output(node) in self._dead and not self.is_weight(name)
                if name and not dead and (first_output(node), slot) not in self.read:
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
        except _CONTRADICTIONS as error:
            self._barrier(site, f"{CONTRADICTION}: {error}")
            self.sites.append((site, None))
            return
        self.sites.append((site, found))
        if constant and all(constant) and not flow.is_begin(node):
            self.constants.update(node.output)
        for name, axes in zip(node.output, results, strict=False):
            if axes is None:
                self._put_unknown(name, site, "its shape is unknown")
            elif name:
                self.axes[name] = axes

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
            self._put_unknown(name, site, why)

    def _put_unknown(self, name: str, site: Site, why: str) -> None:
        """Nothing passes to an output."""
        self._put_barrier(name, site.reason(why))
        if name and name not in self.facts.shapes:
            behind = f"no shape is known behind {site.node.op_type} {site.name!r}"
            self.shapeless[name] = why if why.startswith("no shape is known") else behind

    def _is_float(self, name: str) -> bool:
        return self.facts.dtypes.get(name) in WEIGHT_TYPES and name in self.facts.shapes

    def _put_barrier(self, name: str, reason: Reason) -> None:
        shape = self.facts.shapes.get(name)
        if shape is not None and name:
            self.axes[name] = (self.ledger.barrier(reason),) * len(shape)


_SEQUENCES = frozenset(("SplitToSequence", "ConcatFromSequence"))


def _no_rule(node: onnx.NodeProto, version: int) -> str:
    if any(a.HasField("g") or a.graphs for a in node.attribute):
        return f"{node.op_type} has subgraphs, which are not traced"
    if node.domain == "com.microsoft.nchwc":  # as ONNX Runtime saves a graph that it has optimised in full
        return "its channels are in blocks made for one machine: optimise for the machine after pruning"
    if node.op_type.startswith(("Sequence", "Optional")) or node.op_type in _SEQUENCES:
        return f"{node.op_type} works on sequences or optional values, which are not traced"
    domain = f" of domain {node.domain}" if node.domain else f" at opset {version}"
    return f"no rule for operator {node.op_type}{domain}"


def first_output(node: onnx.NodeProto) -> str:
    """What identifies a node: its first output that is asked for (the first of all may be left out)."""
    return next((name for name in node.output if name), "")


def captured(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the subgraphs of `node` mention; a superset of what they take from outside."""
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            for inner in graph.node:
                yield from (i for i in inner.input if i)
                yield from captured(inner)
            yield from (o.name for o in graph.output)
