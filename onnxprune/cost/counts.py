"""Costs of a model: parameters, multiply-accumulates and bytes, per layer and in total."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from onnx import NodeProto

from onnxprune.model import Model, inlined
from onnxprune.model.control_flow import branch_for, branches, dead, is_flat
from onnxprune.model.flatten import flattened
from onnxprune.model.graph import WEIGHT_TYPES, first_output
from onnxprune.model.protos import graphs
from onnxprune.model.shapes.infer import infer
from onnxprune.tracing import Axes, Constraints, Contraction, NodeView, Tracer, TraceResult, batch_size
from onnxprune.typing import Array, Shape


@dataclass(frozen=True)
class LayerCost:
    """One contraction.

    Attributes:
        name: of the node.
        op: its operator.
        weight: name of its weight; empty for a product of two activations.
        shape: sizes of the weight, or of the output where there is none.
        width: positions of the output that the weight has too: channels or features; 0 where there is no weight.
        params: elements of its weights, bias included.
        macs: multiply-accumulates for one sample.
    """

    name: str
    op: str
    weight: str
    shape: tuple[int, ...]
    params: int
    macs: int
    width: int = 0


@dataclass(frozen=True)
class Cost:
    """Totals of a model.

    Attributes:
        params: elements of all weights: floats, and what is quantised.
        macs: multiply-accumulates of all contractions, for one sample.
        size: bytes of all weights.
        layers: the contractions, in graph order.
    """

    params: int
    macs: int
    size: int
    layers: tuple[LayerCost, ...]


# The length of an axis that remains: (labels of the axis, axis, length) -> length.
Remaining = Callable[[Array, int, int], int]


def of(model: Model, sizes: Mapping[str, int] | None = None) -> Cost:
    """The cost of `model` for one sample; symbolic dims take the defaults that a trace gives them, or `sizes`."""
    model = flattened(inlined(model))
    tracing, _ = Tracer(model, infer(model, sizes), Constraints()).run()
    return of_trace(tracing, model)


def of_trace(tracing: TraceResult, model: Model, remaining: Remaining | None = None) -> Cost:
    """The cost of a model that is traced already, or of what pruning made of it.

    Args:
        tracing: a trace of the original.
        model: the model whose stored weights are counted.
        remaining: what is left of an axis; the original sizes if it is not given.
    """

    def shape(name: str, axes: Axes | None) -> Shape:
        old = tracing.static.shapes[name]
        if remaining is None or axes is None:
            return old
        return tuple(remaining(labels, a, n) for a, (labels, n) in enumerate(zip(axes, old, strict=True)))

    batch = batch_size(tracing)
    layers = []
    for view, products in contractions(tracing):
        names = view.node.input
        labels = {s: tracing.axes.get(tracing.use_key(view.node, s)) for s in range(len(names)) if view.has(s)}
        inputs = {s: shape(names[s], axes) for s, axes in labels.items() if names[s] in tracing.static.shapes}
        made = first_output(view.node)
        output = shape(made, tracing.axes[made])
        macs = sum(math.prod((output if s is None else inputs[s])[a] for s, a in p) for p in products)
        scales = {s for encoding in view.encodings.values() for s in encoding.slots}
        weights = [s for s in inputs if labels[s] is not None and view.constant[s] and s not in scales]
        main = max(weights, key=lambda s: math.prod(inputs[s]), default=None)
        params = sum(math.prod(inputs[s]) for s in weights)
        name, sizes = ("", output) if main is None else (names[main], inputs[main])
        layers.append(
            LayerCost(
                name=view.name,
                op=view.node.op_type,
                weight=name,
                shape=sizes,
                params=params,
                macs=macs // batch,
                width=0 if main is None else _width(labels[main] or (), tracing.axes[made] or (), output),
            )
        )
    filled = {tracing.weights[k]: x for k, x in tracing.weights_axes() if tracing.is_filled(tracing.weights[k])}
    params = _stored(model) + sum(math.prod(shape(name, axes)) for name, axes in filled.items())
    return Cost(params, sum(layer.macs for layer in layers), model.nbytes, tuple(layers))


def _width(weight: Axes, output: Axes, sizes: Shape) -> int:
    """The product of the axes of an output that have labels of the weight: a position goes with one of the weight."""
    held = {label for labels in weight for label in labels.ravel().tolist()}
    return math.prod(n for labels, n in zip(output, sizes, strict=True) if not held.isdisjoint(labels.ravel().tolist()))


def contractions(tracing: TraceResult) -> Iterator[tuple[NodeView, Sequence[Contraction]]]:
    """Every contraction with its products; with none where it does not run at the numbers for symbolic dims.

    Of an If, the branches count that the given data take. Where there are none, one branch runs if the condition
    depends on these numbers; where it depends on what is fed, both count.
    """
    idle = idle_nodes(tracing)
    for view, rule in tracing.views:
        if rule is not None and rule.contractions is not None:
            yield view, () if first_output(view.node) in idle else rule.contractions(view)


def idle_nodes(tracing: TraceResult) -> frozenset[str]:
    """First outputs of the nodes in branches that do not run (see `contractions`)."""
    return dead(tracing.model.proto.graph, lambda node: _branch_run(tracing, node))


@dataclass(frozen=True)
class Branches:
    """Which branches of an If the given data take.

    Attributes:
        node: its name, or its first output where it has none.
        runs: branch -> how many of the runs take it; the branches that none takes are not counted, nor repaired.
    """

    node: str
    runs: Mapping[str, int]


def branches_taken(tracing: TraceResult) -> list[Branches]:
    """The branches that the given data take, of every If with layers in one of them."""
    layers = {first_output(view.node) for view, rule in tracing.views if rule is not None and rule.contractions}
    found = []
    for node in tracing.model.proto.graph.node:
        if not is_flat(node) or node.output[0] not in tracing.fed:
            continue
        made, names = node.output[0], list(branches(node))
        inside = [dead(tracing.model.proto.graph, partial(_only, made, name)) for name in names]
        if any(not layers.isdisjoint(some) for some in inside):
            taken = tracing.fed[made]
            found.append(Branches(node.name or made, {name: taken.get(name, 0) for name in names}))
    return found


def _only(made: str, branch: str, node: NodeProto) -> str:
    """The branch, where `node` is the one that makes `made`; empty else."""
    return branch if node.output[0] == made else ""


def _branch_run(tracing: TraceResult, node: NodeProto) -> str:
    """The branch that an If takes on all data, or at the numbers; empty if it takes both, or that depends on more."""
    taken = tracing.fed.get(node.output[0])
    if taken is not None:
        return next(iter(taken)) if len(taken) == 1 else ""
    static = tracing.static
    return "" if node.input[0] in static.guessed else branch_for(static.example_values.get(node.input[0]))


def _stored(model: Model) -> int:
    """Elements of all weights that the file holds."""
    sizes = []
    for graph in graphs(model.proto.graph):
        sizes += [(t.data_type, t.dims) for t in graph.initializer]
        sizes += [(s.values.data_type, s.dims) for s in graph.sparse_initializer]
        for node in graph.node:
            if node.op_type == "Constant" and not node.domain:
                sizes += [(a.t.data_type, a.t.dims) for a in node.attribute if a.name == "value"]
    return sum(math.prod(dims) for dtype, dims in sizes if dtype in WEIGHT_TYPES)
