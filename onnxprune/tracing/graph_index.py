"""The graph as a trace sees it: producers, consumers, and which tensors are weights."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from onnxprune.errors import RunError
from onnxprune.model import Model, control_flow
from onnxprune.model.graph import MOVES, WEIGHT_TYPES, captured, constant_value, first_output
from onnxprune.model.shapes.constant_fold import fill_value
from onnxprune.model.shapes.infer import StaticInfo
from onnxprune.model.tensors import is_external
from onnxprune.model.traits import traits_of
from onnxprune.tracing.computed_weights import Computed, computed_value, find_computed
from onnxprune.tracing.moved_weights import MovedWeight, places_behind

logger = logging.getLogger(__name__)


# A weight that several nodes use is duplicated per use only if all its elements are equal (norm weights of ones, zero
# biases: exporters merge equal tensors); these are small.
LARGEST_DUPLICATED = 1 << 16


@dataclass
class GraphIndex:
    """A flat graph with what is known of it before it runs.

    Attributes:
        model: the model.
        static: its static shapes and values.
    """

    model: Model
    static: StaticInfo

    def is_weight(self, tensor: str) -> bool:
        """Whether `tensor` is an initializer or the output of a `Constant`."""
        return tensor in self.sources

    def is_stored(self, tensor: str) -> bool:
        """Whether `tensor` is an initializer or the output of a `Constant`, and not computed."""
        return tensor in self.given

    def is_overridable(self, tensor: str) -> bool:
        """Whether `tensor` is a stored default of a graph input, which a caller may override."""
        return tensor in self.model.overridable

    def branch_taken(self, node: onnx.NodeProto) -> str:
        """The branch that an If takes whatever it is fed; empty if that is not known."""
        return control_flow.branch_for(self.static.constant_values.get(node.input[0]))

    @cached_property
    def _dead(self) -> AbstractSet[str]:
        """First outputs of the nodes in branches that are never taken."""
        return control_flow.dead(self.model.proto.graph, self.branch_taken)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that use `tensor`; those with subgraphs, which may use anything, are among them."""
        return [*self._consumers.get(tensor, ()), *self._consumers.get("", ())]

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes `tensor`."""
        return self._producers.get(tensor)

    @cached_property
    def _producers(self) -> Mapping[str, onnx.NodeProto]:
        return {name: node for node in self.model.proto.graph.node for name in node.output if name}

    def is_output(self, tensor: str) -> bool:
        """Whether `tensor` is an output of the graph."""
        return any(value.name == tensor for value in self.model.proto.graph.output)

    @cached_property
    def _consumers(self) -> Mapping[str, list[onnx.NodeProto]]:
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.proto.graph.node:
            for name in {i for i in node.input if i}:
                found.setdefault(name, []).append(node)
            if next(captured(node), None) is not None:
                found.setdefault("", []).append(node)
        return found

    @cached_property
    def sources(self) -> Mapping[str, onnx.NodeProto | None]:
        """Every weight, stored (see `given`) or computed: the node that makes it, None for an initializer."""
        return {**self.given, **self.folded.producers}

    @cached_property
    def folded(self) -> Computed:
        """The weights that the graph computes."""
        return find_computed(self.model, self.static, self.given)

    @cached_property
    def given(self) -> Mapping[str, onnx.NodeProto | None]:
        """Initializers (None), and the nodes that make a weight: Constant, ConstantOfShape of a constant."""
        graph = self.model.proto.graph
        found: dict[str, onnx.NodeProto | None] = {}
        found.update((t.name, None) for t in graph.initializer)
        found.update((t.values.name, None) for t in graph.sparse_initializer)
        for node in graph.node:
            size = next(iter(node.input), "")
            filled = node.op_type == "ConstantOfShape" and size in found and size not in self.model.overridable
            if (node.op_type == "Constant" or filled) and not node.domain:
                found[node.output[0]] = node
        return found

    @cached_property
    def duplicated_per_use(self) -> frozenset[str]:
        """Weights that get labels of their own at every use."""
        uses = Counter(i for n in self.model.proto.graph.node for i in n.input)
        names = {name for name, count in uses.items() if count > 1 and name in self.sources}
        return frozenset(name for name in names - self.model.overridable if self._is_uniform(name))

    def _is_uniform(self, name: str) -> bool:
        shape = self.static.shapes.get(name, ())
        if name in self.folded.producers:
            return False
        if self.static.dtypes.get(name) not in WEIGHT_TYPES or np.prod(shape, dtype=float) > LARGEST_DUPLICATED:
            return False
        value = self.stored_value(name)
        return value is not None and value.size > 1 and _are_equal(value)

    def filler(self, tensor: str) -> float | None:
        """The number that all elements of a constant are; None where they differ, or no constant is known."""
        if tensor not in self._fillers:
            self._fillers[tensor] = self._filler(tensor)
        return self._fillers[tensor]

    @cached_property
    def _fillers(self) -> dict[str, float | None]:
        return {}

    def _filler(self, tensor: str) -> float | None:
        value = self.static.constant_values.get(tensor)
        if self.is_overridable(tensor) or self.static.dtypes.get(tensor) not in WEIGHT_TYPES:
            return None
        if value is None and tensor in self.given:
            stored = self.model.initializers.get(tensor)
            is_small = math.prod(self.static.shapes.get(tensor, ())) <= LARGEST_DUPLICATED
            # What lies in another file is a weight, and is not read to look for a constant.
            is_far = stored is not None and is_external(stored)
            value = self.stored_value(tensor) if is_small and not is_far else None
        return float(value.flat[0]) if value is not None and value.size and _are_equal(value) else None

    def is_zero(self, tensor: str) -> bool:
        """Whether all elements of a tensor are zero, whatever the inputs are: it is filled so and only moved since."""
        pending, met = [tensor], set[str]()
        while pending:
            name = pending.pop()
            if name in met:
                continue
            met.add(name)
            node = self._producers.get(name)
            if node is not None and node.op_type == "ConstantOfShape" and not node.domain:
                if fill_value(node).any():
                    return False
            elif name in self.given:
                if not self._is_stored_zero(name):
                    return False
            elif node is None or node.domain or node.op_type not in (*MOVES, "Concat"):
                return False
            else:
                pending.extend(node.input if node.op_type == "Concat" else node.input[:1])
        return True

    def _is_stored_zero(self, name: str) -> bool:
        if self.is_overridable(name) or math.prod(self.static.shapes.get(name, ())) > LARGEST_DUPLICATED:
            return False
        value = self.stored_value(name)
        return value is not None and not value.any()

    def moved(self, tensor: str) -> MovedWeight | None:
        """The weight whose elements a tensor holds behind nodes that move them; None where it holds others."""
        chain: list[onnx.NodeProto] = []
        name = tensor
        while not self.is_weight(name):
            node = self.producer(name)
            if node is None or not traits_of(node).moves:
                return None
            chain.insert(0, node)
            name = node.input[0]
        others = {i: self.stored_value(i) for node in chain for i in node.input[1:] if i and self.is_weight(i)}
        known = {i: value for i, value in others.items() if value is not None}
        places = None
        if chain and all(i in known for node in chain for i in node.input[1:] if i):
            places = places_behind(chain, self.static.shapes[name], known, self.model.proto.opset_import)
        return MovedWeight(name, self.static.shapes[name], places)

    def is_filled(self, name: str) -> bool:
        """Whether a weight is not stored but filled by a `ConstantOfShape`."""
        producer = self.sources[name]
        return producer is not None and producer.op_type == "ConstantOfShape"

    def stored_value(self, name: str) -> np.ndarray | None:
        """The value of a weight as it is stored, or computed; None where that fails."""
        producer = self.sources[name]
        if name in self.folded.producers:
            if name not in self._evaluated:
                try:
                    self._evaluated[name] = computed_value(self.model, name, self.static.dtypes)
                except RunError as error:
                    logger.warning("weight %r cannot be computed: %s", name, error)
                    return None
            return self._evaluated[name]
        if producer is None:
            return self.model.array(name)
        if self.is_filled(name):
            return np.broadcast_to(fill_value(producer), self.static.shapes[name])
        return constant_value(self.model, producer)

    def known_value(self, name: str) -> np.ndarray:
        """The value of a weight as it is stored.

        Raises:
            RunError: it is computed, and that fails.
        """
        value = self.stored_value(name)
        if value is None:
            raise RunError(f"weight {name!r} cannot be computed")
        return value

    @cached_property
    def _evaluated(self) -> dict[str, np.ndarray]:
        return {}

    def use_key(self, node: onnx.NodeProto, slot: int) -> str:
        """The entry of `axes` for an input: the tensor's name, with the use appended where it is duplicated per use."""
        name = node.input[slot]
        return f"{name}@{first_output(node)}:{slot}" if name in self.duplicated_per_use else name


def _are_equal(value: np.ndarray) -> bool:
    return bool((value == value.flat[0]).all())


# What a graph says whatever is traced in it.
GRAPH_FACTS = frozenset(name for name, value in vars(GraphIndex).items() if isinstance(value, cached_property))
