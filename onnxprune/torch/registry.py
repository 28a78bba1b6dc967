"""How PyTorch computes each operator: one rule by operator, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch

from onnxprune.typing import Array

Tensor = torch.Tensor
Scope = Mapping[str, Any]
Body = Callable[[Sequence[Any], Scope], list[Any]]


@dataclass(frozen=True, eq=False)
class Operation:
    """A node as a rule sees it: everything that is known before data comes.

    Attributes:
        name: name of the node, or of its first output.
        kind: the operator.
        attributes: attributes by name; texts are `str`.
        outputs: for each output, whether it is wanted.
        constants: slot -> elements of the inputs that are small constants.
        bodies: attribute -> function that runs that subgraph on its inputs and on the tensors around it.
    """

    name: str
    kind: str
    attributes: Mapping[str, Any]
    outputs: Sequence[bool]
    constants: Mapping[int, Array] = field(default_factory=dict)
    bodies: Mapping[str, Body] = field(default_factory=dict)

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute, or what holds where it is not given."""
        return self.attributes.get(attribute, default)

    def wants(self, output: int) -> bool:
        """Whether something reads an output."""
        return output < len(self.outputs) and self.outputs[output]


@dataclass(frozen=True)
class Translation:
    """A rule, and the slots of the inputs that it takes as plain numbers.

    Attributes:
        compute: takes the operation and its inputs; returns a tensor, or a list of tensors for several outputs.
        numbers: slots of sizes, axes, bounds: lists of numbers (one number for a tensor without axes).
        inner: whether it runs subgraphs, and takes the tensors around it as `scope`.
    """

    compute: Callable[..., Any]
    numbers: frozenset[int] = frozenset()
    inner: bool = False


_TRANSLATIONS: dict[tuple[str, str], Translation] = {}


def translates(
    *operators: str, domain: str = "", numbers: Sequence[int] = (), inner: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register how PyTorch computes operators of a domain; a later rule replaces an earlier one.

    Args:
        *operators: names of the operators, as of version 18 of ONNX or newer.
        domain: domain of the operators; ONNX's own if empty.
        numbers: slots of inputs that come as lists of plain numbers.
        inner: whether the rule runs subgraphs.

    Returns:
        A decorator that registers a function of an `Operation` and the inputs (None where one is left out).

    Example:
        >>> from onnxprune.torch import translates
        >>> @translates("Cube", domain="my.domain")
        ... def cube(operation, x):
        ...     return x ** 3
    """

    def register(compute: Callable[..., Any]) -> Callable[..., Any]:
        for operator in operators:
            _TRANSLATIONS[_own(domain), operator] = Translation(compute, frozenset(numbers), inner)
        return compute

    return register


def filled(inputs: Sequence[Any], count: int) -> list[Any]:
    """Inputs of a node, and None for those of the first `count` that are left out at the end."""
    return [*inputs, *[None] * (count - len(inputs))]


def find_translation(node: onnx.NodeProto) -> Translation | None:
    """Return the rule of a node's operator."""
    return _TRANSLATIONS.get((_own(node.domain), node.op_type))


def translated() -> list[tuple[str, str]]:
    """(domain, operator) of every rule, sorted."""
    return sorted(_TRANSLATIONS)


def _own(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
