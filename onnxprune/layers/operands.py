"""Operators that multiply whole numbers: which of their inputs is what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing import Axes, NodeView
from onnxprune.typing import Shape


@dataclass(frozen=True)
class Operands:
    """The inputs of a contraction with a weight of whole numbers; None for what it lacks.

    Attributes:
        x: slot of the activation.
        x_scale: slot of its scale.
        x_zero: slot of its zero point.
        weight: slot of the weight.
        scale: slot of the weight's scale.
        zero: slot of the weight's zero point.
        is_convolution: whether the weight is a kernel, whose first axis makes the outputs.
        is_packed: whether several numbers share a byte, in rows of blocks.
    """

    x: int
    x_scale: int | None
    x_zero: int | None
    weight: int
    scale: int | None
    zero: int | None
    is_convolution: bool = False
    is_packed: bool = False


_OPERANDS: Mapping[tuple[str, str], Operands] = {
    ("", "QLinearConv"): Operands(0, 1, 2, 3, 4, zero=5, is_convolution=True),
    ("", "QLinearMatMul"): Operands(0, 1, 2, 3, 4, zero=5),
    (MICROSOFT, "QGemm"): Operands(0, 1, 2, 3, 4, zero=5),
    (MICROSOFT, "DynamicQuantizeMatMul"): Operands(0, None, None, 1, 2, zero=3),
    (MICROSOFT, "MatMulNBits"): Operands(0, None, None, 1, 2, zero=3, is_packed=True),
}


def operands_of(node: onnx.NodeProto) -> Operands | None:
    """The inputs of a node that multiplies whole numbers.

    Args:
        node: any node.

    Returns:
        Its slots; None for other operators.
    """
    return _OPERANDS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))


def weight_axes(view: NodeView, slot: int) -> tuple[Shape, Axes]:
    """The weight of a layer as it multiplies: a packed one is a matrix of inputs and outputs.

    Args:
        view: the traced node.
        slot: the input that is the weight.

    Returns:
        Its sizes, and its labels.
    """
    operands = operands_of(view.node)
    if operands is None or not operands.is_packed:
        return view.shape(slot), view.labels(slot)
    shape = (view.shape(operands.x)[-1], view.shape(slot)[0])
    return shape, (view.labels(operands.x)[-1], view.labels(slot)[0])
