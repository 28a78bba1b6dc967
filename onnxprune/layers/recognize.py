"""The traced nodes that are layers y = xW + b, each recognised by its operator and its weight."""

from __future__ import annotations

import onnx

from onnxprune.layers.convolution import CONVOLUTIONS, convolution_of
from onnxprune.layers.linear import LinearLayer
from onnxprune.layers.product import Product, product_of
from onnxprune.tracing import NodeView

# What multiplies its inputs with one weight, and what it made before with another.
RECURRENT = ("LSTM", "GRU", "RNN")


def linear_layer(view: NodeView, node: onnx.NodeProto | None = None) -> LinearLayer | None:
    """View a traced node as a layer.

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
    of, node = view.node.op_type, node or view.node
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


def _is_stored_float(view: NodeView, slot: int) -> bool:
    name = view.node.input[slot]
    return view.static.dtypes.get(name) in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
