"""Sums with norms behind them that are one operator, apart: a stream that runs through them is a tensor then.

ONNX Runtime's `SkipLayerNormalization` and `SkipSimplifiedLayerNormalization` add a branch to the stream and normalise
the sum for the next branch. Where the sum goes on as the stream (output 3), a branch begins behind the norm of one such
operator and ends inside of the next, so that no tensor enters it. Apart, the same is

    sum = input + (skip + bias);  output = norm(sum) * scale (+ shift)

and what still stands so afterwards is put together again: ONNX Runtime itself does that for LayerNormalization only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from onnx import NodeProto, helper

from onnxprune.model.graph import first_output
from onnxprune.model.model import Model
from onnxprune.model.names import Names
from onnxprune.model.protos import MICROSOFT, copy_without
from onnxprune.model.tensors import nodes

# The place of the sum among the outputs; those between are statistics of the norm.
_SUM = 3
_EPSILON = 1e-12


@dataclass(frozen=True)
class _Parts:
    """What an operator is made of.

    Attributes:
        norm: the operator that normalises.
        since: the first version of ONNX's operators that it can stand beside.
        scales: inputs that the norm takes.
        bias: the input that is added to the branch, if it is there.
    """

    norm: str
    since: int
    scales: tuple[int, ...]
    bias: int


_PARTS = {
    "SkipLayerNormalization": _Parts("LayerNormalization", 17, (2, 3), 4),
    "SkipSimplifiedLayerNormalization": _Parts("SimplifiedLayerNormalization", 1, (2,), 3),
}


def sums_apart(model: Model) -> Model:
    """Write sums and norms that are one operator as two, where the sum of one of them goes on.

    Args:
        model: the model.

    Returns:
        The same function; the model itself where no such sum is read.
    """
    graph = model.proto.graph
    read = {name for node in nodes(graph) for name in node.input} | {value.name for value in graph.output}
    version = next((one.version for one in model.proto.opset_import if one.domain in ("", "ai.onnx")), 1)
    fused = [node for node in graph.node if _is_fused(node, read, version)]
    if not any(read & {*node.output[_SUM:]} - {""} for node in fused):
        return model
    proto = copy_without(model.proto, "node")
    used = {name for node in nodes(graph) for name in (*node.input, *node.output)} | {t.name for t in graph.initializer}
    free, apart = Names(used), {id(node) for node in fused}
    for node in graph.node:
        proto.graph.node.extend(_parts_of(node, free) if id(node) in apart else (node,))
    return replace(model, proto=proto)


def sums_together(model: Model, original: Model, apart: Model) -> Model:
    """Write sums and norms as one operator again, where one still stands behind the other.

    Args:
        model: what became of `apart`.
        original: the model with these operators.
        apart: what `sums_apart` made of it.

    Returns:
        The same function; the model itself where nothing was apart.
    """
    if apart is original:
        return model
    graph = model.proto.graph
    added = _made_by(apart, "Add").keys() - _made_by(original, "Add").keys()
    adds = {name: node for name, node in _made_by(model, "Add").items() if name in added}
    before = {first_output(node): node for node in original.proto.graph.node if node.op_type in _PARTS}
    pairs: dict[str, tuple[NodeProto, NodeProto]] = {}
    for node in graph.node:
        old = before.get(first_output(node))
        if old is not None and _stands(node, old, adds) and model.initializers.keys() >= {*node.input[1:]}:
            pairs.setdefault(node.input[0], (node, old))
    read = Counter(name for node in nodes(graph) for name in node.input) + Counter(one.name for one in graph.output)
    proto = copy_without(model.proto, "node")
    gone = {first_output(norm) for norm, _ in pairs.values()}
    biased = {adds[total].input[1] for total, (_, old) in pairs.items() if _has_bias(old)}
    gone |= {name for name in biased if read[name] == 1}
    for node in graph.node:
        name = first_output(node)
        if name in pairs:
            proto.graph.node.append(_together(name, *pairs[name], adds, goes_on=read[name] > 1))
        elif name not in gone:
            proto.graph.node.append(node)
    return replace(model, proto=proto)


def _made_by(model: Model, operator: str) -> dict[str, NodeProto]:
    return {first_output(node): node for node in model.proto.graph.node if node.op_type == operator}


def _has_bias(node: NodeProto) -> bool:
    place = _PARTS[node.op_type].bias
    return len(node.input) > place and bool(node.input[place])


def _stands(norm: NodeProto, old: NodeProto, adds: Mapping[str, NodeProto]) -> bool:
    """Whether the sum still stands in front of a norm."""
    total = adds.get(norm.input[0]) if norm.op_type == _PARTS[old.op_type].norm else None
    return total is not None and (not _has_bias(old) or total.input[1] in adds)


def _together(
    total: str, norm: NodeProto, old: NodeProto, adds: Mapping[str, NodeProto], *, goes_on: bool
) -> NodeProto:
    """The one operator that a sum and its norm were."""
    made, parts = NodeProto(), _PARTS[old.op_type]
    made.CopyFrom(old)
    made.input[:2] = adds[total].input
    if _has_bias(old):
        made.input[1], made.input[parts.bias] = adds[made.input[1]].input
    for place, name in zip(parts.scales, norm.input[1:], strict=False):
        made.input[place] = name
    made.output[:] = [norm.output[0], "", "", total] if goes_on else norm.output[:1]
    return made


def _is_fused(node: NodeProto, read: set[str], version: int) -> bool:
    """Whether a node can be written as two: nothing reads its statistics."""
    parts = _PARTS.get(node.op_type) if node.domain == MICROSOFT else None
    return parts is not None and version >= parts.since and read.isdisjoint({*node.output[1:_SUM]} - {""})


def _parts_of(node: NodeProto, free: Names) -> Iterator[NodeProto]:
    """The sum and the norm of a node."""
    parts, given = _PARTS[node.op_type], [*node.input]
    total = node.output[_SUM] if len(node.output) > _SUM and node.output[_SUM] else free.unique(f"{node.output[0]}_sum")
    bias = given[parts.bias] if len(given) > parts.bias else ""
    skip = free.unique(f"{total}_biased") if bias else given[1]
    if bias:
        yield helper.make_node("Add", [given[1], bias], [skip], name=f"{node.name}/Bias")
    yield helper.make_node("Add", [given[0], skip], [total], name=f"{node.name}/Add")
    scales = [given[place] for place in parts.scales if len(given) > place and given[place]]
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), _EPSILON)
    yield helper.make_node(parts.norm, [total, *scales], node.output[:1], name=node.name, axis=-1, epsilon=epsilon)
