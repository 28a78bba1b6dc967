"""Which operators are rewritten in the training copy, and by what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import helper

from onnxprune.autodiff.builder import GraphBuilder, Value

Inputs = Sequence[Value | None]
# (graph, node, inputs, outputs) -> one value for each output; None leaves the node as it is.
Lowering = Callable[[GraphBuilder, onnx.NodeProto, Inputs, Inputs], Inputs | None]

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


def lowered() -> list[tuple[str, str]]:
    """(domain, operator) of everything that is written out, sorted."""
    return sorted(_LOWERINGS)


def settings_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of a node by name; texts are `str`."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


def optional(inputs: Inputs, slot: int) -> Value | None:
    """An input, or None where it is left out."""
    return inputs[slot] if slot < len(inputs) else None


def leading(inputs: Inputs) -> Value:
    """The first input (or output), which every operator has."""
    value = inputs[0]
    assert value is not None
    return value
