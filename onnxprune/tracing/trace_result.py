"""A finished trace: the labels of all tensors, and what they say about weights and nodes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import onnx

from onnxprune.model.graph import WEIGHT_TYPES, captured, first_output
from onnxprune.model.traits import divisors, traits_of
from onnxprune.tracing.graph_index import GraphIndex
from onnxprune.tracing.labels import Axes, Classes, Constraints, Reason
from onnxprune.tracing.moved_weights import MovedWeight
from onnxprune.tracing.rules import Rule
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.blockwise import packed, unpacked
from onnxprune.tracing.rules.node_view import COMPUTED as COMPUTED_INDEX
from onnxprune.tracing.rules.node_view import Encoding, LabelState, NodeView, Stored
from onnxprune.tracing.token_ids import IdSource, sources
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

COMPUTED = Reason("sizes or indices that the graph computes")
UNREAD = Reason("no operator looks at it")


@dataclass
class TraceResult(GraphIndex, LabelState):
    """Labels by tensor, and where each weight's labels are.

    Attributes:
        model: the traced model.
        static: its static shapes and values.
        ledger: the ties.
        opened: axes of graph inputs and outputs that may shrink.
        rows: tables whose rows may go although computed ids index them.
        axes: labels of every tensor; a weight that is duplicated per use has an entry for each.
        views: every node, with the rule that traced it; None for a barrier.
        constants: tensors that are computed from weights alone.
        weights: entry of `axes` -> the weight that it belongs to.
        computed: tensors of sizes and indices, whose labels are barriers.
        fed: first output of an If -> branch -> how many runs of the given data take it; empty without data.
    """

    ledger: Constraints
    opened: AbstractSet[tuple[str, int]] = frozenset()
    rows: AbstractSet[str] = frozenset()
    axes: dict[str, Axes] = field(default_factory=dict)
    views: list[tuple[NodeView, Rule | None]] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)
    weights: dict[str, str] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    fed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def labels(self, node: onnx.NodeProto, slot: int) -> Axes:
        """The labels of an input; what no rule has asked for stays whole."""
        name, known = node.input[slot], self.axes.get(self.use_key(node, slot))
        if known is not None:
            return known
        shape = self.static.shapes.get(name)
        if shape is None or not (self.is_weight(name) or name in self.computed):
            raise Unsupported(f"the shape of {name!r} is unknown", name)
        return (self.ledger.barrier(COMPUTED if name in self.computed else UNREAD),) * len(shape)

    def assign(self, node: onnx.NodeProto, slot: int, axis: int, labels: Array) -> None:
        """Refuse: the labels of a finished trace stay as they are.

        Raises:
            TypeError: always.
        """
        raise TypeError("a finished trace takes no labels")

    @cached_property
    def id_sources(self) -> Mapping[str, IdSource]:
        """Table of `rows` -> where the ids come from that index it."""
        return sources(self.model.proto.graph, self.rows)

    def fixed_rows(self, table: str) -> str:
        """Why the rows of a table that computed ids index must stay; empty if they may go."""
        if table not in self.id_sources or not self.is_weight(table) or table in self.duplicated_per_use:
            return COMPUTED_INDEX
        return self.id_sources[table].problem

    def weights_axes(self) -> Iterator[tuple[str, Axes]]:
        """(entry of `axes`, labels) of every weight that was used."""
        for key in self.weights:
            yield key, self.axes[key]

    def holds_parameters(self, key: str) -> bool:
        """Whether an entry of `axes` is that of a weight, not of a table of sizes or places."""
        return self._is_data(self.weights[key]) or self.weights[key] in self.encodings

    @property
    def by_output(self) -> dict[str, tuple[NodeView, Rule | None]]:
        """Every traced node by its first output."""
        return {name: entry for entry in self.views if (name := first_output(entry[0].node))}

    @cached_property
    def statistics(self) -> frozenset[str]:
        """Entries of `axes` that hold no parameters: mean and variance of BatchNormalization, scales, zero points."""
        views = (view.node for view, _ in self.views if view.node.op_type == "BatchNormalization")
        moments = (self.use_key(node, slot) for node in views for slot in (3, 4) if slot < len(node.input))
        return self.scales.union(moments)

    @cached_property
    def scales(self) -> frozenset[str]:
        """Entries of `axes` that hold scales and zero points."""
        used = ((view, slot) for view, _ in self.views for e in view.encodings.values() for slot in e.slots)
        return frozenset(self.use_key(view.node, slot) for view, slot in used if view.has(slot))

    @cached_property
    def divisors(self) -> frozenset[str]:
        """Entries of `axes` that others are divided by: they stay where a removed unit's weights are set to zero."""
        uses = (
            (view.node, slot)
            for view, _ in self.views
            for slot in divisors(view.node)
            if view.has(slot) and view.is_weight(slot)
        )
        return frozenset(self.use_key(node, slot) for node, slot in uses)

    @cached_property
    def encodings(self) -> Mapping[str, tuple[NodeView, Encoding]]:
        """Quantised weight -> what its numbers mean, and to which node."""
        found: dict[str, tuple[NodeView, Encoding]] = {}
        for view, _ in self.views:
            for slot, encoding in view.encodings.items():
                weight = self._held(view, slot)
                if weight and (weight == view.node.input[slot] or self._is_for_all(view, encoding)):
                    found.setdefault(weight, (view, encoding))
                elif weight and (moved := self.moved(view.node.input[slot])) and moved.places is not None:
                    found.setdefault(weight, (view, _in_front(slot, encoding, moved)))
        return found

    def _held(self, view: NodeView, slot: int) -> str:
        """The weight whose elements an input holds, perhaps after moves; empty if it holds others."""
        name = view.node.input[slot] if view.has(slot) else ""
        while name and not self.is_weight(name):
            node = self.producer(name)
            name = node.input[0] if node is not None and traits_of(node).moves else ""
        return name

    def _is_for_all(self, view: NodeView, encoding: Encoding) -> bool:
        """Whether one scale and one zero point are those of all elements, wherever they are moved."""
        shapes = (self.static.shapes.get(view.node.input[slot], (0, 0)) for slot in encoding.slots if view.has(slot))
        return all(math.prod(shape) == 1 for shape in shapes)

    def has_whole_use(self, name: str) -> bool:
        """Whether a node (or an output, or a subgraph) uses a weight without having asked for its labels."""
        graph = self.model.proto.graph
        for node in graph.node:
            if name in captured(node):
                return True
            if any(
                given == name and self.use_key(node, slot) not in self.axes for slot, given in enumerate(node.input)
            ):
                return True
        return any(o.name == name for o in graph.output)

    def weight_value(self, name: str) -> np.ndarray | None:
        """The real value of a weight by its name in the graph: that of a quantised one is dequantised."""
        if name not in self.encodings:
            return self.stored_value(name)
        view, encoding = self.encodings[name]
        try:
            return encoding.decode(partial(self._stored, view))
        except Exception as error:  # noqa: BLE001 scales of another shape: nothing runs such a node
            logger.warning("%s cannot be dequantised: %s", name, error)
            return self.stored_value(name)

    def stored_zero(self, name: str) -> np.ndarray:
        """What is stored in a weight for zero."""
        if name not in self.encodings:
            return np.zeros((), bool)
        view, encoding = self.encodings[name]
        try:
            return np.broadcast_to(encoding.zero(partial(self._stored, view)), self.static.shapes[name])
        except Exception as error:  # noqa: BLE001 zero points of another shape: nothing runs such a node
            logger.warning("the zero point of %s does not fit: %s", name, error)
            return np.zeros((), bool)

    def elements(self, name: str, stored: np.ndarray) -> np.ndarray:
        """What is stored in a weight, or what stands for zero there, number by number where several share a byte."""
        bits = self._bits(name)
        return unpacked(stored, bits) if bits else stored

    def from_elements(self, name: str, elements: np.ndarray) -> np.ndarray:
        """The inverse of `elements`."""
        bits = self._bits(name)
        return packed(elements, bits) if bits else elements

    def element_shape(self, name: str) -> tuple[int, ...]:
        """The sizes of a weight as numbers, of which several may share a byte."""
        *others, last = self.static.shapes[name]
        bits = self._bits(name)
        return (*others, last * 8 // bits if bits else last)

    def _bits(self, name: str) -> int:
        return self.encodings[name][1].bits if name in self.encodings else 0

    def _stored(self, view: NodeView, slot: int) -> np.ndarray | None:
        if slot in view.encodings and (weight := self._held(view, slot)):
            return self.stored_value(weight)
        return self.stored_value(view.node.input[slot]) if view.has(slot) and view.is_weight(slot) else None

    def layered(self, classes: Classes) -> frozenset[tuple[str, int]]:
        """The opened axes with a layer behind them: some position of theirs is one of a contraction's weight."""
        hit = np.zeros(classes.count, bool)
        for view, rule in self.views:
            for slot in range(len(view.node.input)) if rule is not None and rule.contractions else ():
                if view.has(slot) and view.constant[slot]:
                    for labels in self.axes.get(self.use_key(view.node, slot), ()):
                        hit[classes.of[labels[labels >= 0]]] = True

        def has_layer(labels: Array) -> bool:
            return bool(hit[classes.of[labels[labels >= 0]]].any())

        return frozenset((name, a) for name, a in self.opened if name in self.axes and has_layer(self.axes[name][a]))

    def _is_data(self, tensor: str) -> bool:
        return self.static.dtypes.get(tensor) in WEIGHT_TYPES


def _in_front(slot: int, encoding: Encoding, moved: MovedWeight) -> Encoding:
    """What the numbers of a weight mean by what they mean behind nodes that move them."""

    def behind(stored: Stored) -> Stored:
        def value(of: int) -> Array | None:
            found = stored(of)
            return found if found is None or of != slot else moved.read(found)

        return value

    return Encoding(
        lambda stored: moved.laid(encoding.decode(behind(stored))),
        lambda stored: moved.laid(encoding.zero(behind(stored))),
        encoding.slots,
    )
