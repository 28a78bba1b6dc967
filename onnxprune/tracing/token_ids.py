"""Token ids: whether the rows of a table can be renumbered, since all indices come from outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx

from onnxprune.model import TELLS_SIZES
from onnxprune.model.graph import MOVES


@dataclass(frozen=True)
class IdSource:
    """Where a table's indices come from.

    Attributes:
        inputs: the graph inputs that hold them.
        problem: why its rows cannot be renumbered; empty if they can.
    """

    inputs: frozenset[str] = frozenset()
    problem: str = ""


def sources(graph: onnx.GraphProto, tables: Iterable[str]) -> Mapping[str, IdSource]:
    """For each of `tables` that a Gather indexes with computed ids: their source.

    Ids may only be moved (reshaped, cast) and used as an index of the rows of tables that are all in `tables`: a
    comparison with a constant (padding), arithmetic, or an output would still mean the old numbers.
    """
    wanted = frozenset(tables)
    if not wanted:
        return {}
    flow = _Flow(graph, wanted)
    return {table: flow.source(table) for table in wanted}


class _Flow:
    def __init__(self, graph: onnx.GraphProto, tables: frozenset[str]) -> None:
        self.graph, self.tables = graph, tables
        self.producers = {name: node for node in graph.node for name in node.output}
        stored = {t.name for t in graph.initializer}
        self.inputs = {v.name for v in graph.input} - stored
        self.outputs = {v.name for v in graph.output}
        self.consumers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.node:
            for slot, name in enumerate(node.input):
                self.consumers.setdefault(name, []).append((node, slot))
        self.stored = stored | {n.output[0] for n in graph.node if n.op_type == "Constant"}

    def source(self, table: str) -> IdSource:
        inputs = set()
        for node, slot in self.consumers.get(table, ()):
            if node.op_type == "Gather" and slot == 0 and node.input[1] not in self.stored:
                origin = self._origin(node.input[1])
                if origin not in self.inputs:
                    return IdSource(problem=f"its ids come from {self._producer(origin)}, not from a graph input")
                inputs.add(origin)
        for name in sorted(inputs):
            for why in self._other_uses(name):
                return IdSource(problem=why)
        return IdSource(frozenset(inputs))

    def _origin(self, tensor: str) -> str:
        while (node := self.producers.get(tensor)) is not None and node.op_type in MOVES and not node.domain:
            tensor = node.input[0]
        return tensor

    def _producer(self, tensor: str) -> str:
        node = self.producers.get(tensor)
        return _shown(node) if node is not None else f"{tensor!r}"

    def _other_uses(self, tensor: str) -> Iterator[str]:
        """Uses of ids that are neither moves nor lookups of a row."""
        if tensor in self.outputs:
            yield f"the ids {tensor!r} are an output of the graph"
        if any(tensor in (*inner.input, *inner.output) for inner in _inner_nodes(self.graph.node)):
            yield f"a subgraph reads the ids {tensor!r}"
        for node, slot in self.consumers.get(tensor, ()):
            if node.op_type in TELLS_SIZES and not node.domain:
                continue
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            if node.op_type == "Gather" and slot == 1:
                if node.input[0] not in self.tables or axis != 0:
                    yield f"the same ids index {node.input[0]!r}, whose rows are not named"
            elif node.op_type in MOVES and not node.domain and slot == 0:
                for made in node.output:
                    yield from self._other_uses(made)
            else:
                yield f"{_shown(node)} looks at the ids themselves"


def _shown(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"


def _inner_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from graph.node
                yield from _inner_nodes(graph.node)
