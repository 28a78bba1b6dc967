"""Quantisers of QONNX and Brevitas: operators that no runtime has, said in standard ones.

Each rounds a tensor to whole steps, keeps the steps within the bits that they have, and scales them back, so that its
output is a float again. What a node does is a list of standard nodes that depends on its attributes; copies of a model
that are to run have them in its place, the model itself keeps the node.

Source: the definitions of `Quant`, which is also called `IntQuant`, `BipolarQuant` and `Trunc` in the documentation of
QONNX; `tests/tracing/rules/qonnx_vectors.json` is what its package computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.model.protos import QUANTIZING, graphs

if TYPE_CHECKING:
    from onnxprune.model.model import Model

# Opset of the standard nodes where they run alone.
_OPSET = 17


@dataclass
class _Body:
    """Standard nodes that stand for one node; every method returns the name of a tensor."""

    node: onnx.NodeProto
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def attribute(self, name: str, default: int | str) -> int | str:
        """The value of an attribute, texts decoded."""
        found = next((helper.get_attribute_value(a) for a in self.node.attribute if a.name == name), default)
        return found.decode("utf-8", "replace") if isinstance(found, bytes) else found

    def __call__(self, op: str, *inputs: str | float) -> str:
        """Append a node; numbers become constants."""
        names = [self._number(value) if isinstance(value, (int, float)) else value for value in inputs]
        made = self._fresh()
        self.nodes.append(helper.make_node(op, names, [made], name=made))
        return made

    def _number(self, value: float) -> str:
        made = self._fresh()
        tensor = numpy_helper.from_array(np.array(value, np.float32))
        self.nodes.append(helper.make_node("Constant", [], [made], name=made, value=tensor))
        return made

    def _fresh(self) -> str:
        return f"onnxprune_quantizer_{self.node.output[0]}_{len(self.nodes)}"


def _signed(body: _Body, x: str, magnitude: Callable[[str], str]) -> str:
    """A function of the magnitude, with the sign of `x`."""
    return body("Mul", body("Sign", x), magnitude(body("Abs", x)))


_ROUNDINGS: Mapping[str, Callable[[_Body, str], str]] = {
    **dict.fromkeys(("ROUND", "HALF_EVEN"), lambda body, x: body("Round", x)),
    "CEIL": lambda body, x: body("Ceil", x),
    "FLOOR": lambda body, x: body("Floor", x),
    "UP": lambda body, x: _signed(body, x, lambda m: body("Ceil", m)),
    **dict.fromkeys(("DOWN", "ROUND_TO_ZERO"), lambda body, x: _signed(body, x, lambda m: body("Floor", m))),
    "HALF_UP": lambda body, x: _signed(body, x, lambda m: body("Floor", body("Add", m, 0.5))),
    "HALF_DOWN": lambda body, x: _signed(body, x, lambda m: body("Ceil", body("Sub", m, 0.5))),
}


def _rounded(body: _Body, x: str, default: str) -> str:
    return _ROUNDINGS[str(body.attribute("rounding_mode", default)).upper()](body, x)


def _kept(body: _Body, whole: str, bits: str) -> str:
    """A number of steps, or what is nearest to it of what the bits can say."""
    is_signed, is_narrow = int(body.attribute("signed", 1)), int(body.attribute("narrow", 0))
    steps = body("Pow", 2.0, body("Sub", bits, 1.0) if is_signed else bits)
    low = body("Sub", float(is_narrow), steps) if is_signed else body("Mul", bits, 0.0)
    high = body("Sub", steps, 1.0 if is_signed else 1.0 + is_narrow)
    return body("Max", body("Min", whole, high), low)


def _quant(body: _Body) -> str:
    x, scale, zero, bits = body.node.input
    whole = body("Add", body("Div", x, scale), zero)
    kept = _rounded(body, _kept(body, whole, bits), "ROUND")
    if int(body.attribute("signed", 1)):  # one bit with a sign is one of two numbers
        two = body("Where", body("Less", whole, 0.0), -1.0, 1.0)
        kept = body("Where", body("Equal", bits, 1.0), two, kept)
    return body("Mul", body("Sub", kept, zero), scale)


def _bipolar(body: _Body) -> str:
    x, scale = body.node.input
    return body("Mul", body("Where", body("Less", x, 0.0), -1.0, 1.0), scale)


def _trunc(body: _Body) -> str:
    """Its first version has the bits before and after; the second has a scale of the output, and limits."""
    x, scale, zero, before, *after = body.node.input
    whole = body("Round", body("Add", body("Div", x, scale), zero))
    if len(after) == 1:
        left = body("Div", whole, body("Pow", 2.0, body("Sub", before, after[0])))
        return body("Mul", body("Sub", _rounded(body, left, "FLOOR"), zero), scale)
    new_scale, bits = after
    powers = body("Div", body("Log", body("Div", new_scale, scale)), math.log(2.0))
    step = body("Pow", 2.0, body("Round", powers))
    kept = _rounded(body, _kept(body, body("Div", whole, step), bits), "FLOOR")
    return body("Mul", body("Sub", kept, body("Div", zero, step)), new_scale)


QUANTIZERS: Mapping[str, Callable[[_Body], str]] = {
    **dict.fromkeys(("Quant", "IntQuant"), _quant),
    "BipolarQuant": _bipolar,
    "Trunc": _trunc,
}


def has_a_step_for_zero(attrs: Mapping[str, Any], value: Callable[[int], np.ndarray | None]) -> bool:
    """Of a Quant: the zero point is whole, and one that the bits can say; one bit with a sign says no zero."""
    point, bits = value(2), value(3)
    if point is None or bits is None:
        return False
    is_signed, is_narrow = attrs.get("signed", 1), attrs.get("narrow", 0)
    steps = 2.0 ** (bits - 1 if is_signed else bits)
    low = is_narrow - steps if is_signed else 0.0
    high = steps - (1.0 if is_signed else 1.0 + is_narrow)
    within = (np.round(point) == point) & (low <= point) & (point <= high)
    return bool(within.all()) and not (is_signed and (bits == 1).any())


def has_no_zero_point(attrs: Mapping[str, Any], value: Callable[[int], np.ndarray | None]) -> bool:
    """Of a Trunc, which takes no bits from its zero point."""
    point = value(2)
    return point is not None and not point.any()


def is_quantizer(node: onnx.NodeProto) -> bool:
    """Whether a node is one of these operators."""
    return node.domain in QUANTIZING and node.op_type in QUANTIZERS


def standard_nodes(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The standard nodes that compute what a quantiser does.

    Raises:
        KeyError: it rounds in a way that is not known.
        ValueError: it has another number of inputs.
    """
    body = _Body(node)
    made = QUANTIZERS[node.op_type](body)
    return [*body.nodes, helper.make_node("Identity", [made], [node.output[0]], name=node.name)]


def quantized(node: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """What a quantiser makes of the values of its inputs."""
    from onnx.reference import ReferenceEvaluator

    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in values.items()
    ]
    made = [helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)]
    graph = helper.make_graph(standard_nodes(node), "quantizer", infos, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    (found,) = ReferenceEvaluator(model).run(None, dict(values))
    return np.asarray(found)


def runnable(model: Model) -> Model:
    """A copy of a model with standard nodes in place of quantisers; the model itself where there is none."""
    if not any(is_quantizer(node) for graph in graphs(model.proto.graph) for node in graph.node):
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for graph in graphs(proto.graph):
        nodes = [part for node in graph.node for part in (standard_nodes(node) if is_quantizer(node) else [node])]
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
    return replace(model, proto=proto)
