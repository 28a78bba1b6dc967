"""The reverse sweep: from the gradient of the loss to the gradients of the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.forward import Forward
from onnxprune.autodiff.registry import ZERO, BackwardNode, NoGradient, find_vjp, has_zero_gradient
from onnxprune.errors import ModelError
from onnxprune.model.graph import captured

# Operators whose integer output 0 stands for real numbers.
_QUANTISING = frozenset(("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QuantizeLinear"))
# Operators that pass such integers on.
_PASSING = frozenset(
    (
        *("Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape"),
        *("Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    )
)


@dataclass(frozen=True)
class Gradients:
    """Gradients of one number.

    Attributes:
        by: tensor -> its gradient; tensors that the number does not depend on are absent.
        blocked: tensor -> why nothing is known of its gradient (a node on a path to the loss has no rule).
    """

    by: Mapping[str, Value]
    blocked: Mapping[str, str]


def reverse(forward: Forward, loss: Value, wanted: Iterable[str]) -> Gradients:
    """Differentiate `loss` by the tensors `wanted`.

    Nodes are added to `forward.graph`. Where an operator on a path has no rule, every tensor that it reads is blocked,
    and so is everything in front of it: a gradient without one of its paths would be silently wrong.
    """
    graph, values = forward.graph, forward.graph.values
    nodes = list(graph.nodes)
    depends = _dependent(nodes, values, set(wanted))
    parts: dict[str, list[Value]] = {loss.name: [graph.constant(np.ones((), loss.dtype))]}
    summed: dict[str, Value] = {}
    blocked: dict[str, str] = {}

    def gradient(name: str) -> Value | None:
        if name not in summed and parts.get(name):
            summed[name] = graph.total(parts[name])
        return summed.get(name)

    for node in reversed(nodes):
        needs = [bool(name) and name in depends for name in node.input]
        inner = [name for name in captured(node) if name in depends]
        if not any(needs) and not inner:
            continue
        reason = next((blocked[o] for o in node.output if o in blocked), "")
        gradients = [gradient(o) if o else None for o in node.output]
        reached = any(g is not None for g in gradients)
        if inner and reached:
            reason = f"{_name(node)}: its body reads tensors that are differentiated"
        elif not reason and reached:
            try:
                results = _apply(node, graph, gradients, needs)
            except NoGradient as error:
                reason = f"{_name(node)}: {error}"
            else:
                for name, result in results.items():
                    if result is None:
                        blocked.setdefault(name, f"{_name(node)}: no rule for the gradient by {name!r}")
                    else:
                        parts.setdefault(name, []).append(_checked(result, values[name], node))
        if reason:
            for name in [*(i for i, need in zip(node.input, needs, strict=True) if need), *inner]:
                blocked.setdefault(name, reason)
    by = {name: g for name in wanted if name not in blocked and (g := gradient(name)) is not None}
    return Gradients(by, {name: blocked[name] for name in wanted if name in blocked})


def _dependent(nodes: Iterable[onnx.NodeProto], values: Mapping[str, Value], wanted: set[str]) -> set[str]:
    """Tensors that depend on `wanted` by a path that carries gradients."""
    depends = set(wanted)
    for node in nodes:
        if has_zero_gradient(node) or not any(i in depends for i in (*node.input, *captured(node))):
            continue
        for slot, name in enumerate(node.output):
            value = values.get(name)
            if value is not None and (value.dtype.kind == "f" or _is_quantised(node, slot, values)):
                depends.add(name)
    return depends


def _is_quantised(node: onnx.NodeProto, slot: int, values: Mapping[str, Value]) -> bool:
    """Whether an integer output stands for real numbers until it is dequantised; a Cast of floats cuts them off."""
    if slot:
        return False
    source = values.get(node.input[0])
    return node.op_type in _QUANTISING or (node.op_type in _PASSING and source is not None and source.dtype.kind != "f")


def _apply(
    node: onnx.NodeProto,
    graph: GraphBuilder,
    gradients: list[Value | None],
    needs: list[bool],
) -> dict[str, Value | None]:
    """Gradients of the inputs that need one; None where the rule gives none. Uses of one tensor are added up."""
    rule = find_vjp(node.domain, node.op_type)
    if rule is None:
        raise NoGradient("the operator has no rule of differentiation")
    inputs = [graph.values.get(i) for i in node.input]
    outputs = [graph.values.get(o) for o in node.output]
    view = BackwardNode(node=node, graph=graph, inputs=inputs, outputs=outputs, gradients=gradients, needs=needs)
    results = list(rule(view))
    results += [None] * (len(node.input) - len(results))
    found: dict[str, list[Value | None]] = {}
    for name, need, result in zip(node.input, needs, results, strict=True):
        if need and result is not ZERO:
            found.setdefault(name, []).append(result)
    sums: dict[str, Value | None] = {}
    for name, parts in found.items():
        known = [p for p in parts if p is not None]
        sums[name] = graph.total(known) if len(known) == len(parts) else None
    return sums


def _name(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"


def _checked(gradient: Value, value: Value, node: onnx.NodeProto) -> Value:
    if gradient.shape != value.shape:
        raise ModelError(
            f"the rule of {node.op_type} gives {value.name!r} of shape {list(value.shape)} a gradient of shape "
            f"{list(gradient.shape)}",
            hint="this is a fault of the rule; report it with the model",
        )
    return gradient
