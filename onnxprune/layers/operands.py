"""Operators that multiply whole numbers: which of their inputs is what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import onnx

from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing import Axes, NodeView
from onnxprune.typing import Shape


@dataclass(frozen=True)
class Operands:
    """The inputs of a contraction with a weight of whole numbers; None for what it lacks.

    Without a slot for the weight's scale, the product is an integer that nodes behind scale.

    Attributes:
        x: slot of the activation.
        x_scale: slot of its scale.
        x_zero: slot of its zero point.
        weight: slot of the weight.
        scale: slot of the weight's scale.
        zero: slot of the weight's zero point.
        is_convolution: whether the weight is a kernel, whose first axis makes the outputs.
        own_range: whether the activation is quantised by its own range, by a DynamicQuantizeLinear in front.
        is_packed: whether several numbers share a byte, in rows of blocks.
    """

    x: int
    x_scale: int | None
    x_zero: int | None
    weight: int
    scale: int | None
    zero: int | None
    is_convolution: bool = False
    own_range: bool = False
    is_packed: bool = False


_OPERANDS: Mapping[tuple[str, str], Operands] = {
    ("", "QLinearConv"): Operands(0, 1, 2, 3, 4, zero=5, is_convolution=True),
    ("", "QLinearMatMul"): Operands(0, 1, 2, 3, 4, zero=5),
    (MICROSOFT, "QGemm"): Operands(0, 1, 2, 3, 4, zero=5),
    (MICROSOFT, "DynamicQuantizeMatMul"): Operands(0, None, None, 1, 2, zero=3),
    ("", "MatMulInteger"): Operands(0, None, 2, 1, None, zero=3, own_range=True),
    ("", "ConvInteger"): Operands(0, None, 2, 1, None, zero=3, is_convolution=True, own_range=True),
    (MICROSOFT, "MatMulIntegerToFloat"): Operands(0, None, 4, 1, 3, zero=5, own_range=True),
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


class Neighbours(Protocol):
    """A graph whose nodes know what is around them."""

    def producer(self, name: str, /) -> onnx.NodeProto | None:
        """The node that makes a tensor."""

    def consumers(self, name: str, /) -> list[onnx.NodeProto]:
        """The nodes that use a tensor."""

    def is_stored(self, name: str, /) -> bool:
        """Whether a tensor is stored."""


def scale_behind(graph: Neighbours, node: onnx.NodeProto) -> str:
    """Find the scale of a weight behind the integer product that it is part of.

    Args:
        graph: where the node is.
        node: a product of integers.

    Returns:
        The stored tensor that the product, as a float, is multiplied by, or that is a factor of what it is; empty for
        none.
    """
    found: list[str] = []
    for cast in graph.consumers(node.output[0]):
        for product in graph.consumers(cast.output[0]) if cast.op_type == "Cast" else ():
            others = [i for i in product.input if i != cast.output[0]] if product.op_type == "Mul" else []
            makers = [m for i in others if (m := graph.producer(i)) is not None and m.op_type == "Mul"]
            found += [i for i in (*others, *(i for maker in makers for i in maker.input)) if graph.is_stored(i)]
    return found[0] if len(found) == 1 else ""


def float_operand(graph: Neighbours, node: onnx.NodeProto, operands: Operands) -> str:
    """Find what an integer product multiplies, before it is quantised by its own range.

    Args:
        graph: where the node is.
        node: the product.
        operands: its inputs.

    Returns:
        The float tensor; empty where the activation is quantised in another way.
    """
    maker = graph.producer(node.input[operands.x])
    return maker.input[0] if maker is not None and maker.op_type == "DynamicQuantizeLinear" else ""


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
