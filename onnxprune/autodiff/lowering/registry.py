"""Which operators are rewritten in the training copy, and by what."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from onnxprune.autodiff.builder import GraphBuilder, Value

# (graph, node, inputs, outputs) -> one value for each output; None leaves the node as it is.
Lowering = Callable[
    [GraphBuilder, onnx.NodeProto, Sequence[Value | None], Sequence[Value | None]], Sequence[Value | None] | None
]

_LOWERINGS: dict[tuple[str, str], Lowering] = {}


def lowering(*operators: str, domain: str = "") -> Callable[[Lowering], Lowering]:
    """Register a function that writes operators out in plainer ones."""

    def register(function: Lowering) -> Lowering:
        _LOWERINGS.update(((domain, operator), function) for operator in operators)
        return function

    return register


def find_lowering(domain: str, operator: str) -> Lowering | None:
    """Return the function that writes an operator out."""
    return _LOWERINGS.get(("" if domain == "ai.onnx" else domain, operator))
