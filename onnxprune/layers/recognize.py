"""The traced nodes that are layers y = xW + b, each recognised by its operator and its weight."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from onnxprune.layers.convolution import CONVOLUTIONS, convolution_of
from onnxprune.layers.linear import LinearLayer
from onnxprune.layers.operands import Operands, float_operand, operands_of, scale_behind
from onnxprune.layers.product import Product, product_of
from onnxprune.layers.recurrent import RECURRENT
from onnxprune.model.traits import traits_of
from onnxprune.tracing import NodeView


def linear_layer(view: NodeView, node: onnx.NodeProto | None = None) -> LinearLayer | None:
    """View a traced node as a layer with a float weight.

    Args:
        view: the traced node.
        node: its pruned form, which is viewed instead.

    Returns:
        The layer; None where there is no float weight, or the tensor that it is multiplied with has no known shape.
    """
    slots = [s for s in (1, 0) if s < len(view.node.input) and view.is_weight(s) and _is_stored_float(view, s)]
    if len(slots) != 1 or view.node.op_type in RECURRENT:
        return None
    return layer_at(view, slots[0], node)


def weighted_layer(view: NodeView, node: onnx.NodeProto | None = None) -> LinearLayer | None:
    """View a traced node as a layer, whether its weight is stored as floats or as whole numbers.

    Args:
        view: the traced node.
        node: its pruned form, which is viewed instead.

    Returns:
        The layer; None as for `linear_layer`, and where whole numbers lie behind other nodes than those that move them.
    """
    found, operands = linear_layer(view, node), operands_of(view.node)
    if found is not None or operands is None:
        return found or _decoded_layer(view, node)
    if not _is_encoded(view, operands):
        return None
    return layer_at(view, operands.weight, node)


def _decoded_layer(view: NodeView, node: onnx.NodeProto | None) -> LinearLayer | None:
    """A layer with a weight that a DequantizeLinear in front of it decodes."""
    if view.node.op_type not in (*CONVOLUTIONS, "Gemm", "MatMul"):
        return None
    slots = [s for s in (1, 0) if s < len(view.constant) and view.constant[s] and _is_decoded(view, s)]
    return layer_at(view, slots[0], node) if len(slots) == 1 else None


def _is_decoded(view: NodeView, slot: int) -> bool:
    maker = view.state.producer(view.node.input[slot])
    while maker is not None and traits_of(maker).moves and len(maker.input) == 1:
        maker = view.state.producer(maker.input[0])
    return maker is not None and maker.op_type == "DequantizeLinear" and view.state.is_weight(maker.input[0])


def _is_encoded(view: NodeView, operands: Operands) -> bool:
    """Whether a weight and all that says what its numbers mean is stored."""
    if operands.own_range and not float_operand(view.state, view.node, operands):
        return False
    if operands.scale is None and not scale_behind(view.state, view.node):
        return False
    activation = () if operands.own_range else (operands.x_scale, operands.x_zero)
    parameters = (operands.weight, operands.scale, operands.zero, *activation)
    return all(view.is_weight(s) for s in parameters if s is not None and view.has(s))


def layer_at(view: NodeView, slot: int, node: onnx.NodeProto | None = None) -> LinearLayer | None:
    """View a traced node as a layer whose weight is the constant at one of its inputs, however that is stored.

    Args:
        view: the node as it was traced.
        slot: the input that is the weight.
        node: its form in another model; the traced one where None.

    Returns:
        The layer; of a recurrent node what it makes of its inputs, before all gates. None where the node is no such
        product, or what the weight is multiplied with has no known shape.
    """
    of, node, operands = view.node.op_type, node or view.node, operands_of(view.node)
    if operands is not None:
        return _layer_of(view, node, operands) if slot == operands.weight else None
    if of not in (*CONVOLUTIONS, *RECURRENT, "Gemm", "MatMul", "Einsum") or slot > 1:
        return None
    if view.constant[1 - slot] or view.static.shapes.get(view.node.input[1 - slot]) is None:
        return None
    if of in (*CONVOLUTIONS, *RECURRENT) and slot != 1:
        return None
    if of in RECURRENT:
        entering, factor = view.letters[0][:2] if view.letters[0] else (None, None)
        return Product(node, entering=tuple(entering), factor=tuple(factor)) if entering and factor else None
    if of in CONVOLUTIONS:
        return convolution_of(view, node)
    return product_of(view, node, slot) if of != "Einsum" or len(view.node.input) == 2 else None


def _layer_of(view: NodeView, node: onnx.NodeProto, operands: Operands) -> LinearLayer | None:
    """A layer of an operator that multiplies whole numbers."""
    if view.constant[operands.x] or view.static.shapes.get(view.node.input[operands.x]) is None:
        return None
    make = convolution_of if operands.is_convolution else product_of
    layer = make(view, node, weight=operands.weight, x=operands.x)
    if layer is None or operands.x_scale is None:
        source = float_operand(view.state, node, operands) if operands.own_range else node.input[operands.x]
        return None if layer is None or not source else replace(layer, source=source)
    scale, zero = (
        view.state.stored_value(view.node.input[s]) if s is not None and view.has(s) else np.zeros(())
        for s in (operands.x_scale, operands.x_zero)
    )
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return None
    return replace(layer, source=node.input[operands.x], step=(float(scale.item()), float(zero.item())))


def _is_stored_float(view: NodeView, slot: int) -> bool:
    name = view.node.input[slot]
    return view.static.dtypes.get(name) in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
