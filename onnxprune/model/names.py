"""Fresh names for what is added to a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from onnx import GraphProto

from onnxprune.model.protos import graphs


class Names:
    """The names of tensors and nodes that are taken; every new one is, too.

    A name of a body counts wherever it stands: it would hide one of the graph around it.
    """

    def __init__(self, *taken: GraphProto | Iterable[str]) -> None:
        """Take all names of some graphs, those of their bodies included, and other ones."""
        self._taken: set[str] = set()
        self._counts: Counter[str] = Counter()
        for source in taken:
            self._taken.update(_names(source) if isinstance(source, GraphProto) else source)

    def unique(self, stem: str) -> str:
        """A name that was not taken: `stem`, or `stem` with a number."""
        name = stem
        while name in self._taken:
            self._counts[stem] += 1
            name = f"{stem}_{self._counts[stem]}"
        self._taken.add(name)
        return name


def _names(graph: GraphProto) -> Iterator[str]:
    for part in graphs(graph):
        for values in (part.input, part.output, part.value_info, part.initializer):
            yield from (value.name for value in values)
        yield from (sparse.values.name for sparse in part.sparse_initializer)
        for node in part.node:
            yield node.name
            yield from node.input
            yield from node.output
