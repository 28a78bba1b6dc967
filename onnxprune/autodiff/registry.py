"""Rules of differentiation by operator: how the gradient of an output becomes gradients of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.autodiff.builder import GraphBuilder, Shape, Value
from onnxprune.typing import Array

Key = tuple[str, str]


class NoGradient(Exception):
    """A node has no gradient that can be written down; the message says why."""


@dataclass(frozen=True, eq=False)
class BackwardNode:
    """A node of the forward graph together with the gradients of its outputs.

    Attributes:
        node: the node; a rule may ask for further outputs of it (`extra_output`).
        graph: the graph that the rule adds nodes to.
        inputs: tensors that the node reads; None for an input that is left out.
        outputs: tensors that the node makes; None for an output that is left out.
        gradients: gradient of the loss by each output; None where the loss does not depend on the output.
        needs: for each input, whether its gradient is asked for.
    """

    node: onnx.NodeProto
    graph: GraphBuilder
    inputs: Sequence[Value | None]
    outputs: Sequence[Value | None]
    gradients: Sequence[Value | None]
    needs: Sequence[bool]

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes by name; texts are `str`."""
        found = {a.name: helper.get_attribute_value(a) for a in self.node.attribute}
        return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}

    @property
    def x(self) -> Value:
        """The first input."""
        return self.input(0)

    @property
    def y(self) -> Value:
        """The first output."""
        value = self.outputs[0]
        assert value is not None
        return value

    @property
    def dy(self) -> Value:
        """The gradient of the first output; zeros where only other outputs have one."""
        return self.gradient(0)

    def has(self, slot: int) -> bool:
        """Whether an input is given."""
        return slot < len(self.inputs) and self.inputs[slot] is not None

    def needed(self, slot: int) -> bool:
        """Whether the gradient of an input is asked for."""
        return slot < len(self.needs) and self.needs[slot]

    def input(self, slot: int) -> Value:
        """An input that is given."""
        value = self.inputs[slot] if slot < len(self.inputs) else None
        if value is None:
            raise NoGradient(f"input {slot} is left out")
        return value

    def gradient(self, slot: int) -> Value:
        """The gradient of an output; zeros where the loss does not depend on it."""
        value, output = self.gradients[slot], self.outputs[slot]
        assert output is not None
        return self.graph.zeros(output.shape, output.dtype) if value is None else value

    def constant(self, slot: int, what: str) -> Array:
        """The elements of an input that must not depend on data.

        Raises:
            NoGradient: the input is computed from data; the message names it by `what`.
        """
        value = self.input(slot).constant
        if value is None:
            raise NoGradient(f"{what} is computed from data")
        return value

    def integers(self, name: str, slot: int) -> list[int] | None:
        """A list of integers that is an attribute in some versions of the operator and an input in others."""
        if name in self.attributes:
            given = self.attributes[name]
            return [int(v) for v in given] if isinstance(given, list | tuple) else [int(given)]
        return [int(v) for v in self.constant(slot, name).reshape(-1)] if self.has(slot) else None

    def extra_output(self, slot: int, shape: Shape, dtype: Any) -> Value:
        """An output of the forward node that the graph did not ask for so far."""
        while len(self.node.output) <= slot:
            self.node.output.append("")
        if not self.node.output[slot]:
            self.node.output[slot] = self.graph.unique(f"{self.node.op_type}_output{slot}")
        return self.graph.value(self.node.output[slot], shape, dtype)

    def only_first(self, gradient: Value | None) -> list[Value | None]:
        """Gradients of all inputs where only the first has one."""
        return [gradient, *[None] * (len(self.inputs) - 1)]


# The gradient by an input whose elements do not matter (the type that CastLike casts to); any other input that has no
# gradient is None, which blocks whatever it is made of.
ZERO = Value(GraphBuilder(), "", (), np.dtype(np.float32))

Rule = Callable[[BackwardNode], Sequence[Value | None]]

_RULES: dict[Key, Rule] = {}

# Operators whose outputs are constant almost everywhere, or are no floats: gradients end here.
ZERO_GRADIENT = frozenset(
    (
        *("And", "ArgMax", "ArgMin", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil"),
        *("ConstantOfShape", "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "IsInf", "IsNaN"),
        *("Bernoulli", "BitCast", "Less", "MelWeightMatrix", "Multinomial"),
        *("LessOrEqual", "NonMaxSuppression", "NonZero", "Not", "Or", "RandomNormal"),
        *("RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Round", "Shape", "Sign", "Size", "Xor"),
    )
)


# Trees and thresholds of classical models are constant nearly everywhere, too.
_ZERO_ELSEWHERE = {
    "ai.onnx.ml": frozenset(("Binarizer", "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")),
}


def register_vjp(*operators: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a rule for operators of a domain; a later rule replaces an earlier one.

    The rule gets a `BackwardNode` and returns one gradient for each input, None where there is none.

    Args:
        *operators: names of the operators.
        domain: domain of the operators; ONNX's own if empty.

    Returns:
        A decorator that registers a rule and returns it.

    Example:
        >>> from onnxprune.autodiff import register_vjp
        >>> @register_vjp("Cube", domain="my.domain")
        ... def cube(node):
        ...     return [node.dy * node.x * node.x * 3.0]
    """

    def register(rule: Rule) -> Rule:
        for operator in operators:
            _RULES[_domain(domain), operator] = rule
        return rule

    return register


def elementwise(*operators: str) -> Callable[[Callable[[BackwardNode], Value]], Callable[[BackwardNode], Value]]:
    """Register a rule that gives the gradient of the only differentiable input."""

    def register(rule: Callable[[BackwardNode], Value]) -> Callable[[BackwardNode], Value]:
        register_vjp(*operators)(lambda node: node.only_first(rule(node)))
        return rule

    return register


def find_vjp(domain: str, operator: str) -> Rule | None:
    """Return the rule of an operator."""
    return _RULES.get((_domain(domain), operator))


def has_zero_gradient(node: onnx.NodeProto) -> bool:
    """Whether gradients end at a node."""
    return node.op_type in (_ZERO_ELSEWHERE.get(node.domain, ()) if _domain(node.domain) else ZERO_GRADIENT)


def differentiable() -> list[Key]:
    """(domain, operator) of every rule, sorted."""
    return sorted(_RULES)


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
