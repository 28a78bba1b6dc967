"""One contraction as a chain: its weight is replaced by two or three factors, and its node by as many nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.errors import UsageError
from onnxprune.layers import Convolution, LinearLayer, Product, linear_layer
from onnxprune.layers.factor_forms import CHANNEL, SIDES, STAGES, Directions, KernelSizes
from onnxprune.model import Model, Names
from onnxprune.model.graph import first_output
from onnxprune.names import FACTOR_FORMS
from onnxprune.rewriting.plan_json import FACTORISE, expect, packed_basis, unpacked_basis
from onnxprune.rewriting.rewrite import nested
from onnxprune.rewriting.zero_elements import with_dense
from onnxprune.tracing import Groups, NodeView
from onnxprune.typing import Array

_OTHER = "the plan was made for another model"
# Why weights stay whole.
GROUPED, TRANSPOSED = "the convolution has groups", "the convolution is a transposed one"
SHARED = "several nodes read it"


@dataclass(frozen=True, eq=False)
class FactoriseStep:
    """The weight of one contraction that becomes a product.

    Attributes:
        tensor: name of the stored weight.
        directions: float32, what stays of it.
    """

    tensor: str
    directions: Directions

    @property
    def rank(self) -> int:
        """How many directions go into the last factor."""
        return self.directions.ranks[-1]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        made: dict[str, Any] = {"kind": FACTORISE, "tensor": self.tensor, "form": self.directions.form}
        for side, basis in zip(_SIDES, (self.directions.entering, self.directions.leaving), strict=True):
            if basis is not None:
                made |= dict(zip(side, (basis.shape[1], len(basis), packed_basis(basis)), strict=True))
        return made

    @staticmethod
    def from_json(raw: Mapping[str, Any], where: str) -> FactoriseStep:
        """Read a step.

        Raises:
            UsageError: it is none; the first offence is named by its place.
        """
        expect(isinstance(raw.get("tensor"), str), "must be a text", f"{where}.tensor")
        form = raw.get("form", CHANNEL)
        expect(form in FACTOR_FORMS, f"must be one of {', '.join(FACTOR_FORMS)}", f"{where}.form")
        found: list[Array | None] = []
        for side, is_there in zip(_SIDES, SIDES[form], strict=True):
            found.append(_read_basis(raw, side, where) if is_there else None)
        return FactoriseStep(raw["tensor"], Directions(form, *found))


# The fields of a step: how many directions, how long they are, and their numbers; of what enters, and of the outputs.
_SIDES = (("entering_rank", "inputs", "entering"), ("rank", "outputs", "basis"))


def _read_basis(raw: Mapping[str, Any], side: tuple[str, str, str], where: str) -> Array:
    rank, size, basis = side
    for name in (rank, size):
        expect(type(raw.get(name)) is int and raw[name] > 0, "must be a positive integer", f"{where}.{name}")
    return unpacked_basis(raw.get(basis, ""), raw[size], raw[rank], f"{where}.{basis}")


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
    def kernel_sizes(self) -> KernelSizes:
        """The sizes that the forms of a product are made of."""
        inner, outer = self.sizes
        if isinstance(self.layer, Convolution):
            return KernelSizes(self.shape[1], tuple(self.shape[2:]), outer)
        return KernelSizes(inner, (), outer)

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
    return [weight for weight, why in _weights(groups) if not why]


def unfactorisable(groups: Groups) -> list[tuple[FactorisableWeight, str]]:
    """Say why weights of contractions may not become products.

    Args:
        groups: the traced model.

    Returns:
        The weights, each with the reason.
    """
    return [(weight, why) for weight, why in _weights(groups) if why]


def _weights(groups: Groups) -> Iterator[tuple[FactorisableWeight, str]]:
    """Stored weights of contractions, and why one may not become a product; empty where it may."""
    tracing = groups.tracing
    for view, rule in tracing.views:
        layer = linear_layer(view) if rule is not None and view.node.op_type in (*_SPLITS, "ConvTranspose") else None
        name = "" if layer is None else layer.node.input[layer.weight]
        shape = tracing.static.shapes.get(name)
        if layer is not None and shape is not None and name in tracing.model.stored:
            given = tracing.is_overridable(name) or tracing.is_output(name)
            why = "a caller gives the weight, or reads it" if given else _refusal(layer, view)
            shared = SHARED if len(tracing.consumers(name)) != 1 else ""
            yield FactorisableWeight(view, layer, name, tuple(shape)), why or shared


def _refusal(layer: LinearLayer, view: NodeView) -> str:
    """Why a layer cannot be split; empty where it can: one matrix, outputs along one axis, inputs that can be read."""
    if isinstance(layer, Convolution):
        return TRANSPOSED if layer.transposed else GROUPED if layer.group != 1 else ""
    assert isinstance(layer, Product)
    if not layer.is_single:
        return "it is several matrices, or lies along several axes of the output"
    if view.node.op_type != "Gemm":
        return ""
    turned = view.version < 11 and bool(view.attrs.get("transA", 0))
    return "the Gemm could not go without a bias" if turned else "" if layer.weight == 1 else "it is the first input"


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
        if not step.directions.fits(known[step.tensor].kernel_sizes):
            sizes = " x ".join(map(str, known[step.tensor].shape))
            raise UsageError(
                f"the plan does not fit: its directions are not those of weight {step.tensor!r}, {sizes}", hint=_OTHER
            )
    return [known[step.tensor] for step in steps]


# --- the graph ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Factors:
    """What a weight becomes.

    Attributes:
        weight: the weight.
        form: one of `FACTOR_FORMS`.
        chain: float64 factors, each of inputs, kernel and outputs, in the order in which they run.
    """

    weight: FactorisableWeight
    form: str
    chain: Sequence[Array]


def with_factors(groups: Groups, factors: Sequence[Factors], biases: Mapping[str, Array] | None = None) -> Model:
    """Replace nodes by chains of nodes.

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


# What the nodes of a chain are called, by how many there are.
_STEMS = {2: ("first", "second"), 3: ("first", "core", "second")}


def _split(graph: onnx.GraphProto, names: Names, node: onnx.NodeProto, of: Factors) -> list[onnx.NodeProto]:
    """The chain of nodes for one, their weights among the initializers."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(of.weight.view.static.dtypes[of.weight.name])
    stems, slot = _STEMS[len(of.chain)], of.weight.layer.weight
    chain = [onnx.NodeProto.FromString(node.SerializeToString()) for _ in stems]
    for copy, stem in zip(chain, stems, strict=True):
        copy.name = names.unique(f"{node.name or node.output[0]}_{stem}")
    for copy, value, stem in zip(chain, _SPLITS[node.op_type](of, chain), stems, strict=True):
        copy.input[slot] = names.unique(f"{of.weight.name}_{stem}")
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value.astype(dtype)), copy.input[slot]))
    for before, behind in pairwise(chain):
        inner = names.unique(f"{node.output[0]}_factor")
        before.output[0], behind.input[1 - slot] = inner, inner
    return chain


def _keep_attributes(node: onnx.NodeProto, *wanted: str) -> None:
    kept = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in node.attribute if a.name in wanted]
    del node.attribute[:]
    node.attribute.extend(kept)


def _split_product(of: Factors, chain: Sequence[onnx.NodeProto]) -> list[Array]:
    return [part if of.weight.layer.weight == 1 else part.T for part in of.chain]


def _split_gemm(of: Factors, chain: Sequence[onnx.NodeProto]) -> list[Array]:
    """The first is a MatMul unless its input is turned, and its factor takes alpha in; the second adds the bias."""
    first, second = chain
    _keep_attributes(first, "transA")
    _keep_attributes(second, "beta")
    del first.input[2:]
    if not of.weight.view.attrs.get("transA", 0):
        first.op_type = "MatMul"
        del first.attribute[:]
    return [of.chain[0] * of.weight.layer.scale, of.chain[1]]


def _split_einsum(of: Factors, chain: Sequence[onnx.NodeProto]) -> list[Array]:
    layer, (first, second) = of.weight.layer, chain
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
    return [of.chain[0].reshape(*shape, -1), of.chain[1]]


def _split_conv(of: Factors, chain: Sequence[onnx.NodeProto]) -> list[Array]:
    """Every axis of the kernel is one node's, with its strides, dilations and pads; the last node has the bias.

    What pads behind the first node is zero, and so is what a node without a bias makes of zeros.
    """
    axes = range(len(of.weight.shape) - 2)
    for node, part, has in zip(chain, of.chain, STAGES[of.form], strict=True):
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        del node.attribute[:]
        own = set(axes[has])
        made: dict[str, Any] = {"kernel_shape": list(part.shape[1:-1])}
        if own and given.get("auto_pad", b"NOTSET") != b"NOTSET":
            made["auto_pad"] = given["auto_pad"]
        for name, least in (("strides", 1), ("dilations", 1), ("pads", 0)):
            if own and name in given:
                made[name] = [v if i % len(axes) in own else least for i, v in enumerate(given[name])]
        node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in made.items())
    for node in chain[:-1]:
        del node.input[2:]
    return [np.moveaxis(part, -1, 0) for part in of.chain]


_SPLITS: dict[str, Callable[[Factors, Sequence[onnx.NodeProto]], list[Array]]] = {
    "MatMul": _split_product,
    "Gemm": _split_gemm,
    "Einsum": _split_einsum,
    "Conv": _split_conv,
}
