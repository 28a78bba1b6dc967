"""Which traced nodes are layers, and their view as such."""

from __future__ import annotations

import onnx

from onnxprune.layers.convolution import CONVOLUTIONS, convolution_of
from onnxprune.layers.linear import LinearLayer
from onnxprune.layers.product import product_of
from onnxprune.tracing import Site


def linear_layer(site: Site, node: onnx.NodeProto | None = None) -> LinearLayer | None:
    """View a traced node as a layer.

    Args:
        site: the traced node.
        node: its pruned form, which is viewed instead.

    Returns:
        The layer; None where there is no float weight, or the tensor that it is multiplied with has no known shape.
    """
    of = site.node.op_type
    slots = [s for s in (1, 0) if s < len(site.node.input) and site.is_weight(s) and _is_stored_float(site, s)]
    if of not in (*CONVOLUTIONS, "Gemm", "MatMul", "Einsum") or len(slots) != 1 or site.constant[1 - slots[0]]:
        return None
    if site.facts.shapes.get(site.node.input[1 - slots[0]]) is None:
        return None
    if of in CONVOLUTIONS:
        return convolution_of(site, node or site.node) if slots[0] == 1 else None
    if of == "Einsum" and len(site.node.input) != 2:
        return None
    return product_of(site, node or site.node, slots[0])


def _is_stored_float(site: Site, slot: int) -> bool:
    name = site.node.input[slot]
    return site.facts.dtypes.get(name) in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
