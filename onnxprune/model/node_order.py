"""Topological order of nodes: in the graph, in bodies and in functions."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

from onnx import ModelProto, NodeProto

from onnxprune.model.protos import bodies


def scopes(proto: ModelProto) -> Iterator[tuple[str, Any]]:
    """All that has nodes, with what it is called: the graph, the bodies in it, and functions."""
    for place, root in (("the graph", proto.graph), *((f"function '{f.name}'", f) for f in proto.functions)):
        pending: list[tuple[str, Any]] = [(place, root)]
        while pending:
            called, scope = pending.pop()
            yield called, scope
            for node in scope.node:
                label = node.name or next(iter(node.output), "")
                pending += [(f"'{body.name}' of {node.op_type} '{label}'", body) for body in bodies(node)]


def _taken(node: NodeProto) -> set[str]:
    """The tensors that a node reads, in its bodies too, without those that the bodies make."""
    found = set(node.input)
    for body in bodies(node):
        own = {o for inner in body.node for o in inner.output}.union(
            (value.name for value in (*body.input, *body.initializer)), (s.values.name for s in body.sparse_initializer)
        )
        found |= {name for inner in body.node for name in _taken(inner)}.union(o.name for o in body.output) - own
    return found - {""}


def unsorted(listed: Sequence[NodeProto]) -> bool:
    """Whether a node reads what only a later node of the list makes."""
    later = {o for node in listed for o in node.output if o}
    for node in listed:
        if not later.isdisjoint(_taken(node)):
            return True
        later.difference_update(node.output)
    return False


def order(listed: Sequence[NodeProto]) -> tuple[list[int], list[int]]:
    """The places of nodes in the order in which they can run, and of those that cannot.

    Of the nodes that can run next, the first goes first. Those of cycles cannot run, nor those that wait for them.
    """
    producer = {o: place for place, node in reversed(list(enumerate(listed))) for o in node.output if o}
    needs = [{producer[name] for name in _taken(node) if name in producer} for node in listed]
    consumers: list[list[int]] = [[] for _ in listed]
    for place, sources in enumerate(needs):
        for source in sources:
            consumers[source].append(place)
    waiting = [len(sources) for sources in needs]
    ready = [place for place, count in enumerate(waiting) if not count]
    found: list[int] = []
    while ready:
        place = heapq.heappop(ready)
        found.append(place)
        for consumer in consumers[place]:
            waiting[consumer] -= 1
            if not waiting[consumer]:
                heapq.heappush(ready, consumer)
    return found, sorted(set(range(len(listed))) - set(found))


def cycle(proto: ModelProto) -> list[str]:
    """The nodes of one cycle, by name or first output, in the order in which they read each other; none if none."""
    for _, scope in scopes(proto):
        rest = order(scope.node)[1]
        producer = {o: place for place in rest for o in scope.node[place].output if o}
        path: list[int] = []
        place = next(iter(rest), None)
        while place is not None and place not in path:
            path.append(place)
            # What is left always reads something else that is left: following that ends in a cycle.
            place = min(producer[name] for name in _taken(scope.node[place]) if name in producer)
        if place is not None:
            around = [scope.node[i] for i in path[path.index(place) :]]
            return [node.name or next(filter(None, node.output), node.op_type) for node in reversed(around)]
    return []
