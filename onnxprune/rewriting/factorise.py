"""One contraction as two: its weight is replaced by two factors, and its node by two nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.errors import UsageError
from onnxprune.layers import Convolution, LinearLayer, Product, linear_layer
from onnxprune.model import Model, Names
from onnxprune.model.graph import first_output
from onnxprune.rewriting.plan_json import FACTORISE, expect, packed_basis, unpacked_basis
from onnxprune.rewriting.rewrite import nested
from onnxprune.rewriting.zero_elements import with_dense
from onnxprune.tracing import Groups, NodeView
from onnxprune.typing import Array

_OTHER = "the plan was made for another model"


@dataclass(frozen=True, eq=False)
class FactoriseStep:
    """The weight of one contraction that becomes a product.

    Attributes:
        tensor: name of the stored weight.
        basis: float32[O, r], orthonormal columns: the directions of the outputs that stay.
    """

    tensor: str
    basis: Array = field(repr=False)

    @property
    def rank(self) -> int:
        """How many directions stay."""
        return int(self.basis.shape[1])

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": FACTORISE,
            "tensor": self.tensor,
            "rank": self.rank,
            "outputs": len(self.basis),
            "basis": packed_basis(self.basis),
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any], where: str) -> FactoriseStep:
        """Read a step.

        Raises:
            UsageError: it is none; the first offence is named by its place.
        """
        expect(isinstance(raw.get("tensor"), str), "must be a text", f"{where}.tensor")
        for name in ("rank", "outputs"):
            expect(type(raw.get(name)) is int and raw[name] > 0, "must be a positive integer", f"{where}.{name}")
        return FactoriseStep(
            raw["tensor"], unpacked_basis(raw.get("basis", ""), raw["outputs"], raw["rank"], f"{where}.basis")
        )


@dataclass(frozen=True, eq=False)
class FactorisableWeight:
    """A stored weight that one contraction alone reads, and that may become a product.

    Attributes:
        view: the traced node.
        layer: the node as a layer.
        name: of the weight.
        shape: as it is stored.
    """

    view: NodeView
    layer: LinearLayer
    name: str
    shape: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, int]:
        """Inputs D of a row, and outputs O."""
        outer = self.shape[self.outer_axis]
        return math.prod(self.shape) // outer, outer

    @property
    def outer_axis(self) -> int:
        """The axis of the stored weight that lies along the outputs."""
        if isinstance(self.layer, Product):
            return self.layer.outer_axis
        return 0

    def as_matrix(self, value: Array) -> Array:
        """The stored weight as float64[D, O]."""
        return self.layer.as_matrix(value.astype(np.float64))[0]

    def tensor(self, matrix: Array) -> Array:
        """The inverse of `matrix`."""
        return self.layer.tensor(matrix[None], self.shape)


def factorisable(groups: Groups) -> list[FactorisableWeight]:
    """Find the weights that may become products, in graph order.

    Args:
        groups: the traced model.

    Returns:
        Float weights of Gemm, MatMul, Einsum and Conv without groups, each read by one node.
    """
    tracing, found = groups.tracing, []
    for view, rule in tracing.views:
        layer = linear_layer(view) if rule is not None and view.node.op_type in _SPLITS else None
        if layer is None or not _is_single(layer) or _needs_bias(view):
            continue
        name = layer.node.input[layer.weight]
        shape = tracing.static.shapes.get(name)
        fixed = tracing.is_overridable(name) or tracing.is_output(name) or len(tracing.consumers(name)) != 1
        if shape is not None and not fixed and name in tracing.model.stored:
            found.append(FactorisableWeight(view, layer, name, tuple(shape)))
    return found


def _is_single(layer: LinearLayer) -> bool:
    """Whether a layer has one matrix, its outputs along one axis, and inputs that the split can read."""
    if isinstance(layer, Convolution):
        return layer.group == 1 and not layer.transposed
    assert isinstance(layer, Product)
    return layer.is_single and (layer.node.op_type != "Gemm" or layer.weight == 1)


def _needs_bias(view: NodeView) -> bool:
    """Whether the node could not go without a bias: a Gemm before opset 11 that turns its input."""
    return view.node.op_type == "Gemm" and view.version < 11 and bool(view.attrs.get("transA", 0))


def check_factors(groups: Groups, steps: Sequence[FactoriseStep]) -> list[FactorisableWeight]:
    """The weights of a plan's steps.

    Args:
        groups: the traced model.
        steps: of the plan.

    Returns:
        A weight for every step.

    Raises:
        UsageError: a weight is not there, may not become a product, or has another number of outputs.
    """
    known = {weight.name: weight for weight in factorisable(groups)}
    for step in steps:
        if step.tensor not in known:
            raise UsageError(f"the plan does not fit: no contraction has {step.tensor!r} for itself", hint=_OTHER)
        inner, outer = known[step.tensor].sizes
        if outer != len(step.basis) or step.rank > min(inner, outer):
            found = f"{inner} x {outer} in the model, for {len(step.basis)} outputs and rank {step.rank} in the plan"
            raise UsageError(f"the plan does not fit: weight {step.tensor!r} is {found}", hint=_OTHER)
    return [known[step.tensor] for step in steps]


# --- the graph ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Factors:
    """What a weight becomes.

    Attributes:
        weight: the weight.
        first: float64[D, r].
        second: float64[r, O].
    """

    weight: FactorisableWeight
    first: Array
    second: Array


def with_factors(groups: Groups, factors: Sequence[Factors], biases: Mapping[str, Array] | None = None) -> Model:
    """Replace nodes by pairs of nodes.

    Args:
        groups: the traced model.
        factors: what weights become.
        biases: other values for stored tensors.

    Returns:
        The model.
    """
    flat = with_dense(groups, [f.weight.name for f in factors])
    proto = onnx.ModelProto()
    proto.CopyFrom(flat.proto)
    graph, names = proto.graph, Names(proto.graph)
    made = {first_output(f.weight.view.node): f for f in factors}
    nodes = list(graph.node)
    split: list[onnx.NodeProto] = []
    for node in nodes:
        found = made.get(first_output(node))
        split += [node] if found is None else _split(graph, names, node, found)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in split]
    del graph.node[:]
    graph.node.extend(copies)
    values = dict(flat.values)
    for name, value in (biases or {}).items():
        dtype = flat.array(name).dtype
        values[name] = partial(np.asarray, value.astype(dtype))
    return nested(replace(flat, proto=proto, values=values))


def _split(graph: onnx.GraphProto, names: Names, node: onnx.NodeProto, of: Factors) -> list[onnx.NodeProto]:
    """The two nodes for one, their weights among the initializers."""
    dtype = of.weight.view.static.dtypes[of.weight.name]
    inner = names.unique(f"{node.output[0]}_factor")
    first, second = onnx.NodeProto(), onnx.NodeProto()
    for copy, stem in ((first, "first"), (second, "second")):
        copy.CopyFrom(node)
        copy.name = names.unique(f"{node.name or node.output[0]}_{stem}")
    weights = _SPLITS[node.op_type](of, first, second)
    made: list[str] = []
    for value, stem in zip(weights, ("first", "second"), strict=True):
        made.append(names.unique(f"{of.weight.name}_{stem}"))
        stored = value.astype(onnx.helper.tensor_dtype_to_np_dtype(dtype))
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(stored), made[-1]))
    slot = of.weight.layer.weight
    first.input[slot], second.input[slot] = made
    second.input[1 - slot], first.output[0] = inner, inner
    return [first, second]


def _keep_attributes(node: onnx.NodeProto, *wanted: str) -> None:
    kept = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in node.attribute if a.name in wanted]
    del node.attribute[:]
    node.attribute.extend(kept)


def _split_product(of: Factors, first: onnx.NodeProto, second: onnx.NodeProto) -> tuple[Array, Array]:
    return (of.first, of.second) if of.weight.layer.weight == 1 else (of.first.T, of.second.T)


def _split_gemm(of: Factors, first: onnx.NodeProto, second: onnx.NodeProto) -> tuple[Array, Array]:
    """The first is a MatMul unless its input is turned, and its factor takes alpha in; the second adds the bias."""
    _keep_attributes(first, "transA")
    _keep_attributes(second, "beta")
    del first.input[2:]
    if not of.weight.view.attrs.get("transA", 0):
        first.op_type = "MatMul"
        del first.attribute[:]
    return of.first * of.weight.layer.scale, of.second


def _split_einsum(of: Factors, first: onnx.NodeProto, second: onnx.NodeProto) -> tuple[Array, Array]:
    layer = of.weight.layer
    assert isinstance(layer, Product)
    (attribute,) = (a for a in first.attribute if a.name == "equation")
    terms, _, leaving = attribute.s.decode().replace(" ", "").partition("->")
    parts = terms.split(",")
    outer = parts[layer.weight][layer.outer_axis]
    new = next(c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in terms)
    entering, factor = parts[1 - layer.weight], parts[layer.weight]
    inside = "".join(x for x in factor if x != outer)
    between = leaving.replace(outer, new)
    for node, left, right, to in ((first, entering, inside + new, between), (second, between, new + outer, leaving)):
        pair = [left, right] if layer.weight == 1 else [right, left]
        del node.attribute[:]
        node.attribute.append(onnx.helper.make_attribute("equation", f"{','.join(pair)}->{to}"))
    shape = [of.weight.shape[a] for a in range(len(factor)) if a != layer.outer_axis]
    return of.first.reshape(*shape, -1), of.second


def _split_conv(of: Factors, first: onnx.NodeProto, second: onnx.NodeProto) -> tuple[Array, Array]:
    """The kernel belongs to the first; the second has one position, and the bias."""
    count = len(of.weight.shape) - 2
    _keep_attributes(second)
    second.attribute.append(onnx.helper.make_attribute("kernel_shape", [1] * count))
    del first.input[2:]
    kernel = of.first.T.reshape(-1, *of.weight.shape[1:])
    return kernel, of.second.T.reshape(*of.second.T.shape, *[1] * count)


_SPLITS: dict[str, Callable[[Factors, onnx.NodeProto, onnx.NodeProto], tuple[Array, Array]]] = {
    "MatMul": _split_product,
    "Gemm": _split_gemm,
    "Einsum": _split_einsum,
    "Conv": _split_conv,
}
