"""Variants of a quantised model that compute the same, for proofs: without saturation, and with rounding made visible.

On processors without VNNI, ONNX Runtime adds pairs of products of an uint8 and an int8 in 16 bits, which saturate:
which pairs there are depends on the positions, so the sums change when others go. With uint8 weights it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model import Model

# Contractions of stored numbers: the slots of the second factor and of its zero point.
_WEIGHTS: Mapping[str, tuple[int, int]] = {
    "ConvInteger": (1, 3),
    "DynamicQuantizeMatMul": (1, 3),
    "MatMulInteger": (1, 3),
    "MatMulIntegerToFloat": (1, 5),
    "QGemm": (3, 5),
    "QLinearConv": (3, 5),
    "QLinearMatMul": (3, 5),
}
_SHIFT = 128


def unsaturated(model: Model, dtypes: Mapping[str, int], original: onnx.GraphProto) -> Model:
    """`model` with int8 weights as uint8, 128 higher like their zero points, where they meet uint8 activations.

    Args:
        model: a variant of the original, with the same names of node outputs.
        dtypes: types of the original's tensors.
        original: the original.
    """
    wide = {n.output[0] for n in original.node if _is_mixed(n, dtypes)}
    if not wide:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    nodes = list(graph.node)
    del graph.node[:]
    constants = {"": np.uint8(_SHIFT), "_wide": np.int32(_SHIFT)}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), f"onnxprune_shift{k}") for k, v in constants.items()
    )
    for node in nodes:
        if node.output and node.output[0] in wide:
            weight, zero = _WEIGHTS[node.op_type]
            node.input.extend([""] * (zero + 1 - len(node.input)))
            for slot in (weight, zero):
                node.input[slot] = _shifted(graph, node.input[slot], f"onnxprune_{node.output[0]}_{slot}")
        graph.node.append(node)
    return replace(model, proto=proto)


def _is_mixed(node: onnx.NodeProto, dtypes: Mapping[str, int]) -> bool:
    if node.op_type not in _WEIGHTS or dtypes.get(node.input[_WEIGHTS[node.op_type][0]]) != TensorProto.INT8:
        return False
    return node.op_type == "DynamicQuantizeMatMul" or dtypes.get(node.input[0]) == TensorProto.UINT8


def _shifted(graph: onnx.GraphProto, tensor: str, stem: str) -> str:
    if not tensor:
        return "onnxprune_shift"
    steps = [f"{stem}_{role}" for role in ("wide", "sum", "uint8")]
    graph.node.append(helper.make_node("Cast", [tensor], steps[:1], to=TensorProto.INT32))
    graph.node.append(helper.make_node("Add", [steps[0], "onnxprune_shift_wide"], steps[1:2]))
    graph.node.append(helper.make_node("Cast", steps[1:2], steps[2:], to=TensorProto.UINT8))
    return steps[2]


def nudged(model: Model, amount: float, seed: int) -> Model:
    """`model` with noise in front of every `QuantizeLinear`: up to `amount` times the largest value there.

    Rounding to steps hides how far a sum is off, but for the few sums next to the border between two steps.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for index, node in enumerate(nodes):
        if node.op_type == "QuantizeLinear":
            node.input[0] = _with_noise(proto.graph, node.input[0], amount, f"onnxprune_noise_{index}", seed + index)
        proto.graph.node.append(node)
    return replace(model, proto=proto)


def _with_noise(graph: onnx.GraphProto, tensor: str, amount: float, stem: str, seed: int) -> str:
    def add(op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{stem}_{len(graph.node)}"
        graph.node.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    most = add("ReduceMax", add("Abs", tensor), keepdims=0)
    drawn = add("RandomUniformLike", tensor, low=-amount, high=amount, seed=float(seed))
    return add("Add", tensor, add("Mul", drawn, most))
