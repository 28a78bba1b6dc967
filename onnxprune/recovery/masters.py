"""Float masters of weights that are stored as whole numbers, so that these can be trained.

A copy of the model has floats where the model decodes whole numbers. It is fed the masters as they are rounded, so it
computes what the model will; the gradient passes straight through the rounding to the masters, and to factors of the
scales, where these are learned (`layers/grid.py`). Nothing of the model itself but its stored tensors changes.

Sources: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018; for scales: Esser et al., "Learned Step Size Quantization", 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.layers import Grid, QuantizedWeight
from onnxprune.model import Model, Names
from onnxprune.recovery.quantized_tensors import QuantizedTensors, quantized_tensors
from onnxprune.typing import Array

# A factor of a scale is at least this: scales stay above zero.
LEAST_FACTOR = 1e-2


@dataclass(frozen=True, eq=False)
class Masters:
    """A model with floats in place of the whole numbers of its weights.

    Attributes:
        given: the model.
        model: its copy, in which a master has the name of the numbers that it stands for.
        tensors: the weights that are whole numbers, and the scales that may be learned.
        grids: weight -> its grid.
    """

    given: Model
    model: Model
    tensors: QuantizedTensors
    grids: Mapping[str, Grid]

    @property
    def factors(self) -> dict[str, Array]:
        """Scale -> a factor for each of its entries, where scales are learned."""
        return {name: np.ones(scale.size, np.float32) for name, scale in self.tensors.learned.items()}

    def seen(self, weights: Mapping[str, Array]) -> Mapping[str, Array]:
        """What the copy computes with: masters rounded, and scales in place of their factors.

        Args:
            weights: master, or any other weight, or factor -> its elements.
        """
        if not self.grids:
            return weights
        scales = self._scales(weights)
        fed = dict(weights)
        for name in weights.keys() & self.grids.keys():
            fed[name] = self._grid(name, scales).nearest(weights[name]).astype(weights[name].dtype)
        return fed | {name: scale.astype(np.float32) for name, scale in scales.items() if name in weights}

    def straight_through(self, weights: Mapping[str, Array], gradients: Mapping[str, Array]) -> dict[str, Array]:
        """Gradients by masters and factors.

        Args:
            weights: as for `seen`.
            gradients: by what `seen` gives.
        """
        found, scales = dict(gradients), self._scales(weights)
        learned = {n: np.array(found.pop(n, 0.0), np.float64).reshape(-1) for n in self.tensors.learned if n in weights}
        for name in gradients.keys() & self.grids.keys():
            by_master, by_scale = self._grid(name, scales).straight_through(weights[name], gradients[name])
            found[name] = by_master.astype(gradients[name].dtype)
            scale = self.tensors.weights[name].scale
            if scale in learned:
                learned[scale] = learned[scale] + by_scale
        for name, gradient in learned.items():
            factor = np.broadcast_to(gradient, weights[name].shape) * self.tensors.learned[name].reshape(-1)
            found[name] = factor.astype(np.float32)
        return found

    def stored(self, weights: Mapping[str, Array]) -> Mapping[str, Array]:
        """What the model stores: numbers and scales, in place of masters and factors.

        Args:
            weights: as for `seen`.
        """
        scales = self._scales(weights)
        made = {name: array for name, array in weights.items() if name not in self.tensors.learned}
        for name, weight in self.tensors.weights.items():
            if name in weights or weight.scale in scales:
                master = weights[name] if name in weights else self.model.array(name)
                made[name] = weight.stored(self.tensors.read, self._grid(name, scales).steps(master))
        return {**made, **scales}

    def _grid(self, name: str, scales: Mapping[str, Array]) -> Grid:
        scale = scales.get(self.tensors.weights[name].scale)
        return self.grids[name] if scale is None else replace(self.grids[name], scales=scale.reshape(-1))

    def _scales(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """The present scales, where these are learned, as they will be stored."""
        found = {}
        for name, scale in self.tensors.learned.items():
            if name in weights:
                factor = np.maximum(weights[name].astype(np.float64), LEAST_FACTOR)
                found[name] = (scale.reshape(-1) * factor).reshape(scale.shape).astype(scale.dtype)
        wide = {name: scale.astype(np.float64) for name, scale in found.items()}
        for name, (of_input, of_weight) in self.tensors.products.items():
            if of_input in found or of_weight in found:
                parts = [wide.get(n, self.tensors.read(n).astype(np.float64)) for n in (of_input, of_weight)]
                old = self.tensors.read(name)
                found[name] = np.broadcast_to((parts[0] * parts[1]).reshape(-1), old.size).reshape(old.shape)
                found[name] = found[name].astype(old.dtype)
        return {name: scale.astype(np.float64) for name, scale in found.items()}


def with_masters(model: Model, *, learn_scales: bool = False) -> Masters:
    """Give every weight that is stored as whole numbers a float master.

    Args:
        model: the model; it is not changed.
        learn_scales: learn scales, of weights and of activations.

    Returns:
        The masters; there are none where nothing of the model is quantised in a form that can be trained.
    """
    tensors = quantized_tensors(model, learn_scales=learn_scales)
    if not tensors.weights:
        return Masters(model, model, replace(tensors, learned={}, products={}), {})
    proto, read = onnx.ModelProto(), tensors.read
    proto.CopyFrom(model.proto)
    graph, names = proto.graph, Names(model.proto.graph)
    values = {name: made for name, made in model.values.items() if name not in tensors.weights}
    kept = [tensor for tensor in model.proto.graph.initializer if tensor.name not in tensors.weights]
    del graph.initializer[:], graph.node[:], graph.value_info[:]
    graph.initializer.extend(kept)
    for name, weight in tensors.weights.items():
        master = weight.value(read).astype(_kind(read(weight.scale)))
        graph.initializer.append(numpy_helper.from_array(np.asarray(master, order="C"), name))
    renamed: dict[str, str] = {}
    for node in model.proto.graph.node:
        decoded = tensors.weights.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if decoded is not None:
            renamed[node.output[0]] = decoded.steps
            continue
        made = graph.node.add()
        made.CopyFrom(node)
        made.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type == "MatMulNBits" and node.input[1] in tensors.weights:
            _spell_out(graph, made, names)
    grids = {name: _grid_of(weight, tensors) for name, weight in tensors.weights.items()}
    return Masters(model, replace(model, proto=proto, values=values), tensors, grids)


def _kind(scale: Array) -> np.dtype:
    """What masters are kept in: half precision is too coarse."""
    return np.dtype(np.float64 if scale.dtype == np.float64 else np.float32)


def _grid_of(weight: QuantizedWeight, tensors: QuantizedTensors) -> Grid:
    """The grid of a weight; the numbers of a bias may become as large as they need to."""
    grid = weight.decoded_grid(tensors.read)
    return replace(grid, reach=np.inf) if weight.steps in tensors.biases else grid


def _spell_out(graph: onnx.GraphProto, node: onnx.NodeProto, names: Names) -> None:
    """Turn the product of packed numbers, the last node of a graph, into one with a master."""
    x, weight, output, bias = node.input[0], node.input[1], node.output[0], [*node.input, "", "", "", ""][5]
    product = names.unique(f"{output}_product") if bias else output
    node.CopyFrom(helper.make_node("MatMul", [x, weight], [product], name=node.name))
    if bias:
        graph.node.append(helper.make_node("Add", [product, bias], [output]))
