"""Comparison of stored weights: each is the original's without the removed positions, bit for bit.

That is so whatever the inputs are, also behind units that no input wakes. Which positions may go is another question,
which only a run answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.model import Model
from onnxprune.model.graph import constant_value, first_output
from onnxprune.proof.in_place import as_traced
from onnxprune.proof.layerwise import groups_at
from onnxprune.rewriting import Removal
from onnxprune.typing import Array


@dataclass(frozen=True)
class Kept:
    """What came of the comparison.

    Attributes:
        count: how many uses of weights were compared.
        problem: what is wrong; empty if nothing is.
        wrong: the weight that is wrong.
        groups: the groups that cut it.
    """

    count: int
    problem: str = ""
    wrong: str = ""
    groups: tuple[str, ...] = ()


def weights(removal: Removal, pruned: Model) -> Kept:
    """Compare the weights of all nodes that both models have: same place, output and operator.

    A rule may give a node another input where a weight was (sizes that change, packed zero points), under another name;
    only of weights that are duplicated per use there are copies that go by other names.
    """
    tracing, small = removal.groups.tracing, as_traced(removal.groups, pruned)
    nodes = {first_output(n): n for n in small.proto.graph.node}
    producers = {n.output[0]: n for n in small.proto.graph.node if n.op_type == "Constant"}
    seen = set[tuple[str, str]]()
    for node in tracing.model.proto.graph.node:
        other = nodes.get(first_output(node))
        if other is None or other.op_type != node.op_type:
            continue
        for slot, (name, now) in enumerate(zip(node.input, other.input, strict=False)):
            if not name or not tracing.is_weight(name) or tracing.is_filled(name):
                continue
            if name != now and name not in tracing.duplicated_per_use:
                continue
            key = tracing.use_key(node, slot)
            if (key, now) in seen:
                continue
            found = _value(small, producers, now)
            wanted = tracing.stored_value(name) if found is not None else None
            if found is None or wanted is None:
                continue
            axes = tracing.axes.get(key)
            wanted = removal.sliced(wanted, axes) if axes else wanted
            seen.add((key, now))
            if not _is_same(wanted, found):
                view, _ = tracing.by_output.get(first_output(node), (None, None))
                groups = sorted(groups_at(removal, view, [slot])) if view is not None else []
                problem = f"weight {now!r} of {node.op_type} {node.name!r} is not the original's without what goes"
                return Kept(len(seen), problem, now, tuple(removal.groups.groups[g].name for g in groups))
    return Kept(len(seen))


def _value(model: Model, producers: dict[str, onnx.NodeProto], name: str) -> Array | None:
    """The value of a stored tensor; None where there is none."""
    if name in producers:
        return constant_value(model, producers[name])
    return model.array(name) if name in model.initializers else None


def _is_same(one: Array, other: Array) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == object:
        return bool((one == other).all())
    one, other = np.ascontiguousarray(one), np.ascontiguousarray(other)
    return np.array_equal(one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8))
