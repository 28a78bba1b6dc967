"""The stored tensors of a quantised model that training may change: numbers of weights and biases, and scales."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxprune.layers import QuantizedWeight, weight_at
from onnxprune.model import Model
from onnxprune.model.graph import captured, constant_value
from onnxprune.typing import Array

# Operators whose inputs may be decoded weights with a bias behind them, in slots 1 and 2.
_BIASED = frozenset(("Conv", "ConvTranspose", "Gemm"))
_DECODE, _ENCODE = "DequantizeLinear", "QuantizeLinear"
# How far, relatively, the scale of a bias may be from the product that it stands for.
_CLOSE = 1e-4


@dataclass(frozen=True, eq=False)
class QuantizedTensors:
    """What of a quantised model can be trained.

    Attributes:
        model: the model.
        weights: name of the numbers -> the weight that one node decodes.
        biases: those among them that are int32: biases in steps of products.
        learned: scale -> its value, where scales are learned.
        products: scale of a bias -> the scales of the input and of the weight, whose product it stays.
    """

    model: Model
    weights: Mapping[str, QuantizedWeight]
    biases: frozenset[str]
    learned: Mapping[str, Array] = field(default_factory=dict)
    products: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def read(self, name: str) -> Array:
        """The value of a stored tensor."""
        return self.model.array(name) if name in self.model.initializers else self._constants[name]

    @cached_property
    def _constants(self) -> Mapping[str, Array]:
        return _constants(self.model)


def quantized_tensors(model: Model, *, learn_scales: bool = False) -> QuantizedTensors:
    """Find what of a quantised model can be trained.

    Args:
        model: the model.
        learn_scales: whether scales are learned.

    Returns:
        Weights that are read by one DequantizeLinear or MatMulNBits of the main graph, and scales.
    """
    look = _Look(model)
    weights = {weight.steps: weight for node in look.nodes if (weight := look.weight(node)) is not None}
    biases = frozenset(name for name in weights if model.array(name).dtype == np.int32)
    found = QuantizedTensors(model, weights, biases)
    return look.with_scales(found) if learn_scales else found


def _constants(model: Model) -> dict[str, Array]:
    made = {n.output[0]: constant_value(model, n) for n in model.proto.graph.node if n.op_type == "Constant"}
    return {name: value for name, value in made.items() if value is not None}


class _Look:
    """The main graph of a model: who makes and who reads what."""

    def __init__(self, model: Model) -> None:
        self.model, self.nodes = model, list(model.proto.graph.node)
        self.known = {*model.initializers, *_constants(model)} - model.overridable
        self.uses = Counter(name for node in self.nodes for name in (*node.input, *captured(node)))
        self.outputs = {value.name for value in model.proto.graph.output}
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def weight(self, node: onnx.NodeProto) -> QuantizedWeight | None:
        """The weight that a node decodes, where its numbers are its own."""
        weight = weight_at(node)
        if weight is None or weight.steps not in self.model.initializers or self.uses[weight.steps] != 1:
            return None
        decoded = node.output[0]
        hidden = self.uses[decoded] != len(self.readers.get(decoded, ()))  # a body reads it
        whole = "int" in self.model.array(weight.steps).dtype.name
        if node.op_type == _DECODE and (hidden or decoded in self.outputs):
            return None
        return weight if whole and {weight.steps, weight.scale, weight.zero} <= {*self.known, ""} else None

    def with_scales(self, found: QuantizedTensors) -> QuantizedTensors:
        """The same with the scales that can be learned."""
        fixed = set(self._unpaired(found))
        products: dict[str, tuple[str, str]] = {}
        for name in found.biases:
            fixed.add(found.weights[name].scale)
            for of_input, of_weight in self._factors(name):
                if _is_product(found, found.weights[name].scale, of_input, of_weight):
                    products[found.weights[name].scale] = (of_input, of_weight)
                else:
                    fixed.update((of_input, of_weight))
        scales = {w.scale for name, w in found.weights.items() if name not in found.biases}
        scales |= {node.input[1] for node in self.nodes if node.op_type == _ENCODE}
        stored = self.model.initializers.keys() - self.model.overridable
        learned = {name: self.model.array(name) for name in sorted(scales & stored - fixed)}
        return QuantizedTensors(self.model, found.weights, found.biases, learned, products)

    def _unpaired(self, found: QuantizedTensors) -> Iterator[str]:
        """Scales that something else than a weight, or a quantiser with its decoder, depends on."""
        for node in self.nodes:
            yield from captured(node)
            scale = node.input[1] if len(node.input) > 1 else ""
            others = node.input if node.op_type not in (_DECODE, _ENCODE) else [node.input[0], *node.input[2:]]
            weight = weight_at(node) if node.op_type != _DECODE else None
            yield from (name for name in others if weight is None or name != weight.scale)
            if node.op_type == _DECODE and node.input[0] not in found.weights:
                maker = self.makers.get(node.input[0])
                if maker is None or maker.op_type != _ENCODE or maker.input[1] != scale:
                    yield from (scale, *([maker.input[1]] if maker is not None and maker.op_type == _ENCODE else []))
            if node.op_type == _ENCODE and any(r.op_type != _DECODE for r in self.readers.get(node.output[0], ())):
                yield scale

    def _factors(self, bias: str) -> Iterator[tuple[str, str]]:
        """Scales of the input and of the weight of the layers that add a bias, where both are decoded."""
        (decoder,) = self.readers[bias]
        for reader in self.readers.get(decoder.output[0], ()):
            makers = [self.makers.get(name) for name in reader.input[:2]]
            decoders = [maker for maker in makers if maker is not None and maker.op_type == _DECODE]
            if reader.op_type in _BIASED and len(decoders) == 2:
                yield decoders[0].input[1], decoders[1].input[1]


def _is_product(found: QuantizedTensors, scale: str, of_input: str, of_weight: str) -> bool:
    product = found.read(of_input).astype(np.float64) * found.read(of_weight).astype(np.float64)
    own = found.read(scale).astype(np.float64).reshape(-1)
    return product.size in (1, own.size) and np.allclose(product.reshape(-1), own, rtol=_CLOSE, atol=0)
