"""From traced labels to groups: what must shrink together, in which units, and what is locked and why."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache, cached_property, partial

import numpy as np

from onnxprune.model import Model
from onnxprune.model.flatten import flattened
from onnxprune.model.graph import WEIGHT_TYPES
from onnxprune.model.inline import inlined
from onnxprune.model.shapes.infer import Facts, infer
from onnxprune.model.shapes.symbols import symbolic_dims
from onnxprune.model.tensors import tensors
from onnxprune.tracing.barriers import Barrier, barriers
from onnxprune.tracing.exactness import reasons
from onnxprune.tracing.labels import LONGEST_AXIS, Classes, Ledger
from onnxprune.tracing.partition import Part, form
from onnxprune.tracing.tracer import Tracing
from onnxprune.typing import Array

logger = logging.getLogger(__name__)

MAX_RETRACES = 6
# Positions that may get labels whatever the weights are.
FEW_POSITIONS = 1 << 16


@dataclass(frozen=True)
class Member:
    """An axis of a weight that shrinks with a group.

    Attributes:
        tensor: name of the weight in the graph.
        key: the same, with the use appended where the weight is un-shared.
        axis: the axis.
        size: its length.
        positions: how many of its positions belong to the group.
    """

    tensor: str
    key: str
    axis: int
    size: int
    positions: int


@dataclass(frozen=True)
class Group:
    """What must shrink together.

    Attributes:
        name: unique; the first weight that the group cuts, or its node where the weight has no name of its own.
        kind: "channel", "head" or "head dim".
        cells: class ids; one class of a single cell is a unit. Of several cells, a unit takes the same share.
        members: the weight axes that it cuts.
        approximate: why the smaller model is not the original with the weights of removed units set to zero; empty
            where it is.
        params: weight elements that any unit of the group holds.
        work: counts `macs`.
        io: axes of graph inputs and outputs that shrink with it: (tensor, axis).
    """

    name: str
    kind: str
    cells: tuple[Array, ...]
    members: tuple[Member, ...]
    approximate: str
    params: int
    work: Callable[[], int] = field(repr=False, compare=False)
    io: tuple[tuple[str, int], ...] = ()

    @property
    def exact(self) -> bool:
        """Whether the smaller model equals the original with the weights of removed units set to zero."""
        return not self.approximate

    @property
    def macs(self) -> int:
        """Multiply-accumulates that depend on the group, for one sample; counted when they are asked for."""
        return self.work()

    @property
    def units(self) -> int:
        """How many units the group has."""
        return math.gcd(*(len(c) for c in self.cells))

    @cached_property
    def classes(self) -> Array:
        """All classes, cell by cell."""
        return np.concatenate(self.cells)


@dataclass(frozen=True, eq=False)
class Groups:
    """Everything that tracing says about a model; `tracing.model` is `model` with its bodies laid out flat."""

    model: Model
    groups: tuple[Group, ...]
    tracing: Tracing
    classes: Classes
    policy: Mapping[tuple[str, int], int]
    heads: bool = True
    head_dims: bool = False
    allow_io_changes: bool = False
    rows: AbstractSet[str] = frozenset()

    @property
    def facts(self) -> Facts:
        """Its static shapes and values."""
        return self.tracing.facts

    @cached_property
    def group_of(self) -> Array:
        """int32[classes], index of the group of every class; -1 for none."""
        found = np.full(self.classes.count, -1, np.int32)
        for index, group in enumerate(self.groups):
            found[group.classes] = index
        return found

    @cached_property
    def prunable(self) -> tuple[int, int]:
        """(weight elements that some group holds, all weight elements)."""
        held = _params(self.tracing, [m for g in self.groups for m in g.members])
        return held, sum(
            _elements(self.tracing, key) for key in self.tracing.weights if self.tracing.holds_parameters(key)
        )

    @cached_property
    def barriers(self) -> tuple[Barrier, ...]:
        """Every reason that locks weights, most first."""
        return barriers(self.tracing, self.classes)


def trace(
    model: Model,
    *,
    heads: bool = True,
    head_dims: bool = False,
    allow_io_changes: bool = False,
    rows: Collection[str] = (),
    sizes: Mapping[str, int] | None = None,
) -> Groups:
    """Trace a model and form its groups.

    A split axis (heads x head size, groups x channels within) has a policy: which of its axes shrinks. The first
    trace takes the innermost; rows that turn out to be the batch axis of a product of activations are attention
    heads and go whole, and a split whose labels end up locked tries the next axis out.

    Args:
        model: the model.
        heads: attention heads may be removed.
        head_dims: dimensions within every head are removed instead of heads.
        allow_io_changes: graph inputs and outputs may shrink along the channels of a layer.
        rows: tables whose rows may be removed although computed ids index them.
        sizes: numbers for symbolic dims.
    """
    original = inlined(model)
    model = flattened(original)
    facts = infer(model, sizes)
    longest = _longest(original)
    policy: dict[tuple[str, int], int] = {}
    attention: set[tuple[str, int]] = set()
    opened = _io_axes(model, facts) if allow_io_changes else frozenset()
    for _ in range(MAX_RETRACES):
        tracing = Tracing(model, facts, Ledger(policy, longest=longest), opened, frozenset(rows))
        classes = tracing.run()
        attention.update(tracing.ledger.heads)
        parts, classes = form(tracing, classes)
        revised = _revise(policy, tracing.ledger, classes, attention, heads=heads, head_dims=head_dims)
        # An axis without a layer under one policy (the rows of a split) may have one under the next.
        layered = tracing.layered(classes) if revised == policy else opened
        if revised == policy and layered == opened:
            break
        policy, opened = revised, layered
    kinds = _head_classes(tracing.ledger, classes, frozenset(() if head_dims else attention))
    groups = _describe(tracing, classes, parts, kinds)
    return Groups(original, groups, tracing, classes, policy, heads, head_dims, allow_io_changes, frozenset(rows))


def _longest(model: Model) -> int:
    """Positions that some weight has: its elements, since exporters reshape weights; some thousand in any case."""
    most = max((math.prod(tensor.dims) for tensor in tensors(model.proto)), default=0)
    return min(max(most, FEW_POSITIONS), LONGEST_AXIS)


def retrace(groups: Groups, sizes: Mapping[str, int]) -> Groups:
    """The same model under the same options, at other numbers for its symbolic dims."""
    return trace(
        groups.model,
        heads=groups.heads,
        head_dims=groups.head_dims,
        allow_io_changes=groups.allow_io_changes,
        rows=groups.rows,
        sizes=sizes,
    )


def _io_axes(model: Model, facts: Facts) -> frozenset[tuple[str, int]]:
    """The axes of inputs and outputs that could be channels: static, longer than 1, and of an input not the batch."""
    graph = model.proto.graph
    weights = {t.name for t in graph.initializer}
    inputs = {v.name for v in graph.input if v.name not in weights and facts.dtypes.get(v.name) in WEIGHT_TYPES}
    found: set[tuple[str, int]] = set()
    for name in inputs | {v.name for v in graph.output}:
        shape, dynamic = facts.shapes.get(name, ()), facts.dynamic.get(name, ())
        first = 1 if name in inputs and len(shape) > 1 else 0
        found.update((name, a) for a in range(first, len(shape)) if shape[a] > 1 and a not in dynamic)
    return frozenset(found)


# --- policies of splits ----------------------------------------------------------------------------------


def _revise(
    policy: Mapping[tuple[str, int], int],
    ledger: Ledger,
    classes: Classes,
    attention: AbstractSet[tuple[str, int]],
    *,
    heads: bool,
    head_dims: bool,
) -> dict[tuple[str, int], int]:
    """The policy for the next trace: attention splits by heads, locked splits one axis further out."""
    revised = dict(policy)
    if not head_dims:
        for key, taken in ledger.heads.items():
            revised.setdefault(key, taken if heads else -1)
    if revised != policy:
        return revised
    free = classes.free
    for choice in ledger.choices:
        labels = choice.labels[choice.labels >= 0]
        if choice.key not in attention and choice.taken > 0 and labels.size and not free[classes.of[labels]].any():
            revised[choice.key] = choice.taken - 1
    return revised


def _head_classes(ledger: Ledger, classes: Classes, attention: frozenset[tuple[str, int]]) -> dict[str, Array]:
    """Classes of attention splits, by kind of unit."""
    found: dict[str, list[Array]] = {"head": [], "head dim": []}
    for choice in ledger.choices:
        flat = choice.labels[choice.labels >= 0]
        if choice.key in ledger.heads:
            found["head dim"].append(classes.of[flat])
        elif choice.key in attention:
            found["head"].append(classes.of[flat])
    return {kind: np.concatenate([np.empty(0, np.int32), *parts]) for kind, parts in found.items()}


# --- what groups are called, and what they hold ----------------------------------------------------------


def _describe(
    tracing: Tracing, classes: Classes, parts: Sequence[Part], kinds: Mapping[str, Array]
) -> tuple[Group, ...]:
    kind_of = np.full(classes.count, "channel", object)
    for kind, ids in kinds.items():
        kind_of[ids] = kind
    members = [tuple(_member(tracing, *axis) for axis in part.axes) for part in parts]
    names, macs = _names(tracing, members), cache(partial(_macs, tracing, classes, parts))
    io = _touched_io(tracing, classes, parts)
    why = reasons(tracing, classes, [part.cells for part in parts])
    return tuple(
        Group(
            names[i],
            str(kind_of[part.cells[0][0]]),
            part.cells,
            members[i],
            why.get(i, ""),
            _params(tracing, members[i]),
            partial(_nth, macs, i),
            tuple(io[i]),
        )
        for i, part in enumerate(parts)
    )


def _touched_io(tracing: Tracing, classes: Classes, parts: Sequence[Part]) -> list[list[tuple[str, int]]]:
    """The axes of inputs and outputs that shrink with every part."""
    found: list[list[tuple[str, int]]] = [[] for _ in parts]
    part_of = _part_of(classes, parts)
    for name, axis in sorted(tracing.opened):
        labels = tracing.axes[name][axis]
        for index in np.unique(part_of[classes.of[labels[labels >= 0]]]):
            if index >= 0:
                found[index].append((name, axis))
    return found


def _part_of(classes: Classes, parts: Sequence[Part]) -> Array:
    """int64[classes], index of the part of every class; -1 for none."""
    found = np.full(classes.count, -1, np.int64)
    for index, part in enumerate(parts):
        for cell in part.cells:
            found[cell] = index
    return found


def _nth(values: Callable[[], Sequence[int]], index: int) -> int:
    return values()[index]


def _member(tracing: Tracing, key: str, axis: int, positions: int) -> Member:
    name = tracing.weights[key]
    return Member(name, key, axis, tracing.facts.shapes[name][axis], positions)


def _params(tracing: Tracing, members: Sequence[Member]) -> int:
    """Elements that any of the members' positions holds."""
    held: dict[str, dict[int, float]] = {}
    for member in members:
        axes = held.setdefault(member.key, {})
        axes[member.axis] = axes.get(member.axis, 0.0) + member.positions / member.size
    kept = {key: math.prod(1 - share for share in axes.values()) for key, axes in held.items()}
    return round(sum(_elements(tracing, key) * (1 - share) for key, share in kept.items()))


def _macs(tracing: Tracing, classes: Classes, parts: Sequence[Part]) -> list[int]:
    """Work of the contractions that depends on each part."""
    part_of = _part_of(classes, parts)
    known: dict[int, dict[int, float]] = {}

    def shares(labels: Array) -> dict[int, float]:
        """Part -> the share of an axis' positions that belongs to it."""
        if id(labels) not in known:
            flat = labels.reshape(-1)
            ids, counts = np.unique(part_of[classes.of[flat[flat >= 0]]], return_counts=True)
            known[id(labels)] = {int(i): n / labels.size for i, n in zip(ids, counts, strict=True) if i >= 0}
        return known[id(labels)]

    macs = [0.0] * len(parts)
    for site, rule in tracing.sites:
        if rule is None or rule.work is None:
            continue
        for product in rule.work(site):
            total, kept = 1, dict[int, float]()
            for slot, axis in product:
                total *= (site.out_shape() if slot is None else site.shape(slot))[axis]
                axes = tracing.axes[site.node.output[0]] if slot is None else site.labels(slot)
                for place, share in shares(axes[axis]).items():
                    kept[place] = kept.get(place, 1.0) * (1 - share)
            for place, share in kept.items():
                macs[place] += total * (1 - share)
    # For one sample, as in `cost`.
    batch = samples(tracing)
    return [round(m / batch) for m in macs]


def _elements(tracing: Tracing, key: str) -> int:
    return math.prod(tracing.facts.shapes[tracing.weights[key]])


# Names that exporters give to tensors that have none: the node that uses them says more.
_ANONYMOUS = re.compile(r"^(onnx::|val_|_?\d+$|.*__\d+$)|^/|.*/.*_output_\d+$")


def _names(tracing: Tracing, members: Sequence[Sequence[Member]]) -> list[str]:
    """A unique name per group: its first weight's, or that of the node that uses it if the weight has none."""
    users: dict[str, str] = {}
    for site, _ in tracing.sites:
        for name in site.node.input:
            users.setdefault(name, site.name)
    names: list[str] = []
    taken: dict[str, int] = {}
    for group in members:
        first = group[0].tensor
        stem = name = users.get(first, first) if _ANONYMOUS.match(first) else first
        while name in taken:
            taken[stem] += 1
            name = f"{stem}#{taken[stem]}"
        taken[name] = 1
        names.append(name)
    return names


def samples(tracing: Tracing) -> int:
    """The number of samples that the trace assumed: 1 where the batch is fixed."""
    symbols = symbolic_dims(tracing.model.proto.graph)
    return next((tracing.facts.sizes[s] for s, use in symbols.items() if use.axis == 0), 1)
