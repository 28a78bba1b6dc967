"""Weights that the graph computes from stored ones: weight norm, standardisation, adapters that are added, cosines.

Where every position of such a tensor is made of the same position of stored weights, and is zero where they are, it can
be sliced by slicing them. Everything else is a weight itself: its labels start where the constants end, and once a unit
goes, what is left of its value takes the place of the nodes that computed it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.model import Model, control_flow, unsaturated
from onnxprune.model.protos import MICROSOFT, copy_except
from onnxprune.model.shapes.infer import StaticInfo
from onnxprune.model.traits import Value, operators_where, zero
from onnxprune.runtime import Session
from onnxprune.tracing.rules import find

# What ONNX Runtime hands out as arrays.
_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT8)
# Elements; what is larger is rather a table that is filled than a weight.
LARGEST = 1 << 27
# A Dropout draws too, where it is trained.
_RANDOM = operators_where(lambda traits: traits.draws, "") | {"Dropout"}
_WEIGHT, _FILL, _OTHER = "weight", "fill", "other"


@dataclass(frozen=True)
class Computed:
    """The weights that a graph computes.

    Attributes:
        producers: computed weight -> the node that makes it.
        inside: first outputs of the nodes that do nothing but compute them.
    """

    producers: Mapping[str, onnx.NodeProto]
    inside: AbstractSet[str]


def find_computed(model: Model, static: StaticInfo, stored: Mapping[str, onnx.NodeProto | None]) -> Computed:
    """The weights that the graph computes from those that are `stored`."""
    graph, versions = model.proto.graph, {o.domain: o.version for o in model.proto.opset_import}
    known = {name: _kind_of_stored(static, name, producer) for name, producer in stored.items()}
    for name in model.overridable:
        known.pop(name, None)
    constant: list[onnx.NodeProto] = []
    consumers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in filter(None, node.input):
            consumers.setdefault(name, []).append(_first(node))
        if _first(node) in stored or not _is_constant(node, known):
            continue
        constant.append(node)
        version = versions.get(node.domain, versions.get("ai.onnx", 1))
        known.update(dict.fromkeys(filter(None, node.output), _kind(node, version, static, known)))
    producers: dict[str, onnx.NodeProto] = {}
    inside: set[str] = set()
    held = {o.name for o in graph.output} | {name for node in graph.node for name in flow_names(node)}
    for node in reversed(constant):
        names = [name for name in node.output if name]
        outer = {name for name in names if name in held or not inside.issuperset(consumers.get(name, ()))}
        mine = {name for name in outer if known[name] == _OTHER and _is_weight(static, name)}
        if outer <= mine and not outer & held:
            producers.update(dict.fromkeys(mine, node))
            inside.add(_first(node))
    return Computed(producers, inside)


def flow_names(node: onnx.NodeProto) -> list[str]:
    """Names that the subgraphs of a node mention."""
    graphs = [g for a in node.attribute for g in (*([a.g] if a.HasField("g") else ()), *a.graphs)]
    return [i for g in graphs for inner in g.node for i in (*inner.input, *flow_names(inner))]


def _first(node: onnx.NodeProto) -> str:
    return next(filter(None, node.output), "")


def _is_weight(static: StaticInfo, name: str) -> bool:
    return static.dtypes.get(name) in _TYPES and 1 < math.prod(static.shapes.get(name, ())) <= LARGEST


def _kind_of_stored(static: StaticInfo, name: str, producer: onnx.NodeProto | None) -> str:
    filled = producer is not None and producer.op_type == "ConstantOfShape"
    return _FILL if filled or math.prod(static.shapes.get(name, ())) <= 1 else _WEIGHT


def _is_constant(node: onnx.NodeProto, known: Mapping[str, str]) -> bool:
    given = [name for name in node.input if name]
    if not given or not all(name in known for name in given):
        return False
    if node.domain not in ("", "ai.onnx", MICROSOFT) or node.op_type == "GatherBlockQuantized":
        return False  # a table that is packed stays packed
    flows = control_flow.is_body_start(node) or control_flow.is_flat(node) or flow_names(node)
    return node.op_type not in _RANDOM and not flows


def _kind(node: onnx.NodeProto, version: int, static: StaticInfo, known: Mapping[str, str]) -> str:
    """Whether what a node makes of constants is sliced with the weights in it, has equal elements, or is another."""
    rule = find(node.domain, node.op_type, version)
    if rule is None or not (rule.family in ("pointwise", "layout", "index") or node.op_type.endswith("eLinear")):
        return _OTHER

    def value(slot: int) -> np.ndarray | None:
        name = node.input[slot] if slot < len(node.input) else ""
        return static.constant_values.get(name, np.array(np.nan)) if name else None

    return _kind_by_row(node, static, known, value)


def _kind_by_row(node: onnx.NodeProto, static: StaticInfo, known: Mapping[str, str], value: Value) -> str:
    row, made = zero(node, value), static.shapes.get(_first(node))
    data = (*row.factors, *row.terms, *row.parts) if row else range(len(node.input))
    given = [s for s in data if s < len(node.input) and node.input[s]]
    if all(known[node.input[s]] == _FILL for s in given):
        return _FILL
    if row is None or any(known[node.input[s]] != _FILL for s in row.divisors if s < len(node.input)):
        return _OTHER

    def is_whole(slot: int) -> bool:
        """Whether an input is a weight of the size of what is made."""
        return known[node.input[slot]] == _WEIGHT and static.shapes.get(node.input[slot]) == made

    good = (
        (not row.factors or any(is_whole(s) for s in row.factors if s in given)),
        all(is_whole(s) for s in row.terms if s in given),
        all(known[node.input[s]] == _WEIGHT for s in row.parts if s in given),
    )
    return _WEIGHT if all(good) else _OTHER


def computed_value(model: Model, tensor: str, dtypes: Mapping[str, int]) -> np.ndarray:
    """The value of a tensor that the graph computes from constants alone, the same on every processor.

    Args:
        model: the flat model.
        tensor: what is computed.
        dtypes: types of its tensors.

    Raises:
        RunError: ONNX Runtime cannot compute it.
    """
    graph, needed = model.proto.graph, {tensor}
    nodes: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            nodes.insert(0, node)
            needed.update(filter(None, node.input))
    part = onnx.ModelProto()
    copy_except(model.proto, part, "graph")
    part.ir_version = max(part.ir_version, 4)  # from there on an initializer need not be an input
    part.graph.name = graph.name or "weights"
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(t for t in graph.initializer if t.name in needed)
    part.graph.sparse_initializer.extend(s for s in graph.sparse_initializer if s.values.name in needed)
    part.graph.output.append(onnx.ValueInfoProto(name=tensor))
    values = {name: make for name, make in model.values.items() if name in needed}
    with Session(unsaturated(replace(model, proto=part, values=values), dtypes)) as session:
        return np.asarray(session.run({}, [tensor])[0])
