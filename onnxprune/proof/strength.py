"""Strength of a proof: the share of sampled weights whose corruption it would find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from onnxprune.model import Model, Names
from onnxprune.model.graph import captured, constant_value
from onnxprune.model.protos import keep
from onnxprune.model.run_order import reads
from onnxprune.proof.layerwise import Layered
from onnxprune.rewriting import Removal
from onnxprune.typing import Array

# What a sampled weight is multiplied with.
FACTOR = 1.5
# How many weights of a group are looked at for one that reaches what no other sample does, and how many elements of it
# for one that is not zero.
TRIES = 8


@dataclass(frozen=True)
class Strength:
    """What a proof would notice.

    Attributes:
        groups: how many groups lost units.
        found: the groups of which a wrong weight was tried -> whether the proof finds it to be wrong.
    """

    groups: int
    found: Mapping[str, bool]

    @property
    def tried(self) -> int:
        """How many weights were sampled, at most one per group."""
        return len(self.found)

    @property
    def noticed(self) -> int:
        """How many of them the proof finds to be wrong."""
        return sum(self.found.values())

    @property
    def unnoticed(self) -> tuple[str, ...]:
        """The groups whose sample it does not notice."""
        return tuple(group for group, seen in self.found.items() if not seen)

    def with_run(self, other: Strength) -> Strength:
        """What one of two runs notices, or both."""
        groups = [*self.found, *(g for g in other.found if g not in self.found)]
        return Strength(self.groups, {g: self.found.get(g, False) or other.found.get(g, False) for g in groups})


@dataclass(frozen=True)
class Sample:
    """A weight of a group with one element that is wrong.

    Attributes:
        group: name of the group.
        weight: name of the weight in the pruned model.
        given: the input that stands for it in front of all nodes but those of bodies.
        right: its values.
        wrong: the same with one of them changed.
        reach: what is compared and made from it.
    """

    group: str
    weight: str
    given: str
    right: Array
    wrong: Array
    reach: frozenset[str]


def samples(removal: Removal, pruned: Layered, seed: int) -> list[Sample]:
    """One weight per group where possible; no two of them reach the same tensor, so that all are wrong in one run."""
    rng = np.random.default_rng([seed, 2])
    candidates, values = _weights_of_groups(removal), _stored(pruned.model)
    reach, taken, used, names = _Reach(pruned), set[str](), set[str](), Names(pruned.model.proto.graph)
    found = []
    for group, weights in candidates.items():
        known = [w for w in weights if w in values and w not in used]
        for weight in rng.permutation(np.array(known, object))[:TRIES]:
            ends = reach.of(weight)
            if not ends or ends & taken:
                continue
            right = values[weight]()
            wrong = changed(right, rng) if right is not None else None
            if right is not None and wrong is not None:
                taken |= ends
                used.add(weight)
                given = names.unique(f"onnxprune_weight_{weight}")
                found.append(Sample(group, weight, given, right=right, wrong=wrong, reach=ends))
                break
    return found


def _weights_of_groups(removal: Removal) -> dict[str, list[str]]:
    """Group that loses units -> the weights that it cuts."""
    tracing, groups = removal.groups.tracing, removal.groups.groups
    shrinking = [group for group in groups if removal.removed_classes[group.classes].any()]
    return {g.name: sorted({m.tensor for m in g.members if not tracing.is_filled(m.tensor)}) for g in shrinking}


def _stored(model: Model) -> dict[str, _Value]:
    """Weight of the main graph -> its values."""
    found: dict[str, _Value] = {name: _Value(model, name) for name in model.initializers}
    found.update((node.output[0], _Value(model, node)) for node in model.proto.graph.node if node.op_type == "Constant")
    return found


@dataclass(frozen=True)
class _Value:
    model: Model
    source: str | onnx.NodeProto

    def __call__(self) -> Array | None:
        if isinstance(self.source, str):
            return self.model.array(self.source)
        return constant_value(self.model, self.source)


def changed(value: Array, rng: np.random.Generator) -> Array | None:
    """The same with one element changed; None for a weight of zeros, or of a type that is not counted with."""
    if not value.size or value.dtype.kind not in "fiu":
        return None
    for place in rng.integers(0, value.size, TRIES):
        old = value.reshape(-1)[place]
        if old != 0 and np.isfinite(old):
            wrong = np.array(value)
            if value.dtype.kind == "f":
                wrong.reshape(-1)[place] = old * FACTOR
            else:  # a whole step at least, and none beyond the type
                wrong.reshape(-1)[place] = old - (max(1, abs(int(old)) // 2) if old > 0 else -1)
            return wrong
    return None


class _Reach:
    """What is compared and made from a weight where it is read outside of bodies."""

    def __init__(self, of: Layered) -> None:
        self.direct: dict[str, list[onnx.NodeProto]] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in of.model.proto.graph.node:
            for name in set(node.input):
                self.direct.setdefault(name, []).append(node)
            for name in set(reads(node)):
                self.consumers.setdefault(name, []).append(node)
        self.ends = {held: name for name, held in of.ends.items()}

    def of(self, weight: str) -> frozenset[str]:
        pending = [o for node in self.direct.get(weight, ()) for o in node.output if o]
        found, met = set[str](), set(pending)
        while pending:
            name = pending.pop()
            if name in self.ends:
                found.add(self.ends[name])
            for node in self.consumers.get(name, ()):
                fresh = [o for o in node.output if o and o not in met]
                met.update(fresh)
                pending.extend(fresh)
        return frozenset(found)


def with_weights_as_inputs(model: Model, weights: Sequence[Sample]) -> Model:
    """`model` with the sampled weights as inputs; bodies still read what is stored."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph, given = proto.graph, {s.weight: s.given for s in weights}
    inside = {name for node in graph.node for name in captured(node)}
    for node in graph.node:
        node.input[:] = [given.get(name, name) for name in node.input]
    unread = given.keys() - inside
    keep(graph.initializer, lambda tensor: tensor.name not in unread)
    keep(graph.input, lambda value: value.name not in unread)
    keep(graph.node, lambda node: not (node.op_type == "Constant" and node.output[0] in unread))
    graph.input.extend(
        helper.make_tensor_value_info(s.given, helper.np_dtype_to_tensor_dtype(s.right.dtype), s.right.shape)
        for s in weights
    )
    return replace(model, proto=proto)


def strength(
    removal: Removal, tried: Sequence[Sample], errors: Mapping[str, float], allowed: Mapping[str, float]
) -> Strength:
    """What was noticed.

    Args:
        removal: what went.
        tried: the samples.
        errors: how far every tensor that the samples reach was off in a run with all samples wrong.
        allowed: how far a proof lets it be off.
    """
    seen = {s.group: not all(errors[name] <= allowed[name] for name in s.reach) for s in tried}
    return Strength(len(_weights_of_groups(removal)), seen)


def inputs(tried: Sequence[Sample], *, wrong: bool) -> Iterator[tuple[str, Array]]:
    """The sampled weights as inputs."""
    return ((s.given, s.wrong if wrong else s.right) for s in tried)
