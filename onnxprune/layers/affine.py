"""Nodes that multiply and shift every number with constants: y = scale * x + shift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.tracing import NodeView, TraceResult
from onnxprune.typing import Array


@dataclass(frozen=True, eq=False)
class Affine:
    """A node that computes scale * x + shift.

    Attributes:
        node: the node.
        input: x.
        scale: float64, broadcastable to the output.
        shift: the same.
        elements: how many stored numbers it reads.
    """

    node: onnx.NodeProto
    input: str
    scale: Array
    shift: Array
    elements: int


# The constant -> (scale, shift), by operator and the slot of the constant.
_WITH_ONE: dict[tuple[str, int], Callable[[Array], tuple[Array, Array]]] = {
    ("Mul", 0): lambda c: (c, np.zeros(())),
    ("Mul", 1): lambda c: (c, np.zeros(())),
    ("Div", 1): lambda c: (1 / c, np.zeros(())),
    ("Add", 0): lambda c: (np.ones(()), c),
    ("Add", 1): lambda c: (np.ones(()), c),
    ("Sub", 0): lambda c: (-np.ones(()), c),
    ("Sub", 1): lambda c: (np.ones(()), -c),
}


def affine_of(tracing: TraceResult, view: NodeView) -> Affine | None:
    """View a node as scale * x + shift.

    Args:
        tracing: the trace.
        view: the node.

    Returns:
        The view; None where the node is something else, a caller may override a constant, or a number is not finite.
    """
    if view.node.op_type == "BatchNormalization":
        return _normalisation(tracing, view)
    constants = [slot for slot in range(len(view.node.input)) if view.is_weight(slot)]
    if len(view.node.input) != 2 or len(constants) != 1 or view.node.domain:
        return None
    make, value = _WITH_ONE.get((view.node.op_type, constants[0])), _stored(tracing, view, constants[0])
    if make is None or value is None or (view.node.op_type == "Div" and not value.all()):
        return None
    return _finite(Affine(view.node, view.node.input[1 - constants[0]], *make(value), value.size))


def _normalisation(tracing: TraceResult, view: NodeView) -> Affine | None:
    """A BatchNormalization with running statistics, along axis 1."""
    values = [_stored(tracing, view, slot) for slot in range(1, 5)]
    shape = tracing.static.shapes.get(view.node.input[0])
    if any(value is None for value in values) or shape is None or len(shape) < 2:
        return None
    if view.attrs.get("training_mode", 0) or any(view.node.output[1:]) or not view.attrs.get("spatial", 1):
        return None
    scale, shift, mean, variance = (v for v in values if v is not None)
    factor = scale / np.sqrt(variance + float(view.attrs.get("epsilon", 1e-5)))
    laid = (1, -1, *[1] * (len(shape) - 2))
    moved = (shift - mean * factor).reshape(laid)
    return _finite(Affine(view.node, view.node.input[0], factor.reshape(laid), moved, 4 * scale.size))


def _stored(tracing: TraceResult, view: NodeView, slot: int) -> Array | None:
    """The value of a stored float input, in double precision."""
    if not view.has(slot) or not view.is_weight(slot) or tracing.is_overridable(view.node.input[slot]):
        return None
    value = tracing.stored_value(view.node.input[slot])
    return value.astype(np.float64) if value is not None and value.dtype.kind == "f" else None


def _finite(of: Affine) -> Affine | None:
    return of if np.isfinite(of.scale).all() and np.isfinite(of.shift).all() else None
