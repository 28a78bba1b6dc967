"""From traced labels to groups: what must shrink together, in which units, and what is locked and why."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.functions import inlined
from onnxprune.labels import Array, Classes, Ledger, Reason, components
from onnxprune.model import Model
from onnxprune.shapes import Facts, infer
from onnxprune.tracing import Tracing

logger = logging.getLogger(__name__)

MAX_RETRACES = 6
UNBALANCED = Reason("its rows cannot all lose the same number of positions")


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
        exact: removal leaves the values at the remaining positions as they are in the masked model.
        params: weight elements that any unit of the group holds.
        macs: multiply-accumulates that depend on the group.
    """

    name: str
    kind: str
    cells: tuple[Array, ...]
    members: tuple[Member, ...]
    exact: bool
    params: int
    macs: int

    @property
    def units(self) -> int:
        """How many units the group has."""
        return math.gcd(*(len(c) for c in self.cells))

    @cached_property
    def classes(self) -> Array:
        """All classes, cell by cell."""
        return np.concatenate(self.cells)


@dataclass(frozen=True)
class Barrier:
    """Why positions cannot be removed, and how much that locks.

    Attributes:
        reason: the reason, for people.
        node: node, graph input or output that says so.
        op: its operator type.
        members: the weight axes with positions that it locks, as (tensor, axis, positions).
        params: weight elements at these positions.
    """

    reason: str
    node: str
    op: str
    members: tuple[tuple[str, int, int], ...]
    params: int


@dataclass(frozen=True, eq=False)
class Groups:
    """Everything that tracing says about a model."""

    groups: tuple[Group, ...]
    tracing: Tracing
    classes: Classes
    policy: Mapping[tuple[str, int], int]

    @property
    def model(self) -> Model:
        """The traced model."""
        return self.tracing.model

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
        held = total = 0
        for key in self.tracing.weights:
            size = _elements(self.tracing, key)
            held += round(size * _share(self.tracing.axes[key], self._is_grouped))
            total += size
        return held, total

    def _is_grouped(self, labels: Array) -> Array:
        return (labels >= 0) & (self.group_of[self.classes.of[np.maximum(labels, 0)]] >= 0)

    @cached_property
    def barriers(self) -> tuple[Barrier, ...]:
        """Every reason that locks weights, most first."""
        return _barriers(self.tracing, self.classes)


def trace(
    model: Model, *, heads: bool = True, head_dims: bool = False, sizes: Mapping[str, int] | None = None
) -> Groups:
    """Trace a model and form its groups.

    A split axis (heads x head size, groups x channels within) has a policy: which of its axes shrinks. The first
    trace takes the innermost; rows that turn out to be the batch axis of a product of activations are attention
    heads and go whole, and a split whose labels end up locked tries the next axis out.

    Args:
        model: the model.
        heads: attention heads may be removed.
        head_dims: dimensions within every head are removed instead of heads.
        sizes: numbers for symbolic dims.

    Raises:
        ModelError: no weight of the model can be followed.
    """
    model = inlined(model)
    facts = infer(model, sizes)
    policy: dict[tuple[str, int], int] = {}
    attention: set[tuple[str, int]] = set()
    for _ in range(MAX_RETRACES):
        tracing = Tracing(model, facts, Ledger(policy))
        classes = tracing.run()
        attention.update(tracing.ledger.heads)
        formed = _Forming(tracing, classes)
        revised = _revise(policy, tracing.ledger, formed, heads=heads, head_dims=head_dims)
        if revised == policy:
            break
        policy = revised
    if not tracing.weights:
        raise ModelError("the model has no weights that could be traced", hint="see `onnxprune inspect`")
    kinds = _head_classes(tracing.ledger, classes, frozenset(() if head_dims else attention))
    return Groups(formed.groups(kinds), tracing, formed.final, policy)


# --- policies of splits ----------------------------------------------------------------------------------


def _revise(
    policy: Mapping[tuple[str, int], int], ledger: Ledger, formed: _Forming, *, heads: bool, head_dims: bool
) -> dict[tuple[str, int], int]:
    """The policy for the next trace: attention splits by heads, locked splits one axis further out."""
    revised = dict(policy)
    if not head_dims:
        for key, taken in ledger.heads.items():
            revised.setdefault(key, taken if heads else -1)
    if revised != policy:
        return revised
    free = formed.final.free
    for choice in ledger.choices:
        labels = choice.labels[choice.labels >= 0]
        if choice.taken > 0 and labels.size and not free[formed.final.of[labels]].any():
            revised[choice.key] = choice.taken - 1
    return revised


def _head_classes(
    ledger: Ledger, classes: Classes, attention: frozenset[tuple[str, int]]
) -> dict[str, Array]:
    """Classes of attention splits, by kind of unit."""
    found: dict[str, list[Array]] = {"head": [], "head dim": []}
    for choice in ledger.choices:
        flat = choice.labels[choice.labels >= 0]
        if choice.key in ledger.heads:
            found["head dim"].append(classes.of[flat])
        elif choice.key in attention:
            found["head"].append(classes.of[flat])
    return {kind: np.concatenate([np.empty(0, np.int32), *parts]) for kind, parts in found.items()}


# --- forming groups --------------------------------------------------------------------------------------


class _Forming:
    """Partitions the free classes of one trace into groups."""

    def __init__(self, tracing: Tracing, classes: Classes) -> None:
        self.tracing = tracing
        self.keys = [(key, axis) for key, axes in tracing.weights_axes() for axis in range(len(axes))]
        flat = [tracing.axes[key][axis].reshape(-1) for key, axis in self.keys]
        lengths = [len(f) for f in flat]
        labels = np.concatenate([np.empty(0, np.int32), *flat])
        owner = np.repeat(np.arange(len(flat)), lengths)
        held = labels >= 0
        self.owner, of = owner[held], classes.of[labels[held]]
        count = max(1, len(flat))
        pairs, self.positions = np.unique(of.astype(np.int64) * count + self.owner, return_counts=True)
        self.pair_class, self.pair_owner = pairs // count, pairs % count
        rng = np.random.default_rng(0)
        salt = rng.integers(1, 1 << 63, (count,), dtype=np.uint64)
        self.signature = np.zeros(classes.count, np.uint64)
        np.add.at(self.signature, self.pair_class, salt[self.pair_owner])
        self.cell = self.signature.copy()
        self.link = np.arange(classes.count, dtype=np.int32)
        self.final = self._balance(classes, rng)

    def _balance(self, classes: Classes, rng: np.random.Generator) -> Classes:
        """Link the classes that must be removed in proportion; fix those for which there is no proportion."""
        free = classes.free
        edges: list[tuple[Array, Array]] = []
        stuck: list[Array] = []
        for rows in classes.balances:
            lopsided, counts = _lopsided(rows)
            loose = free[lopsided]
            if not loose.any():
                continue
            totals = counts[loose].sum(axis=0)
            if (totals != totals[0]).any():
                stuck.append(lopsided[loose])
                continue
            salt = rng.integers(1, 1 << 63, (counts.shape[1],), dtype=np.uint64)
            self.cell[lopsided[loose]] += (counts[loose].astype(np.uint64) * salt).sum(
                axis=1, dtype=np.uint64
            )
            members = lopsided[loose]
            edges.append((np.repeat(members[:1], len(members)), members))
        if edges:
            self.link = components(
                classes.count, np.concatenate([a for a, _ in edges]), np.concatenate([b for _, b in edges])
            )
        self.linked = np.zeros(classes.count, bool)
        for _, members in edges:
            self.linked[members] = True
        if stuck:
            self.linked[np.concatenate(stuck)] = True
        bad = np.zeros(classes.count, bool)
        for members in stuck:
            bad |= self.link == self.link[members[0]]
            bad[members] = True
        for root in np.unique(self.link[self.linked & free & ~bad]):
            members = np.flatnonzero((self.link == root) & self.linked & free)
            _, sizes = np.unique(self.cell[members], return_counts=True)
            if math.gcd(*sizes.tolist()) == 1:
                bad[members] = True
        bad &= free & self.linked
        return _with_fixes(classes, np.flatnonzero(bad), self.tracing.ledger) if bad.any() else classes

    def groups(self, kinds: Mapping[str, Array]) -> tuple[Group, ...]:
        """The groups, in the order in which the graph meets them."""
        free = self.final.free.copy()
        weighted = np.zeros(self.final.count, bool)
        weighted[self.pair_class] = True
        usable = np.flatnonzero(free & weighted)
        linked = self.linked[usable]
        group_key = np.where(linked, self.link[usable].astype(np.uint64), self.signature[usable])
        order = np.lexsort((usable, group_key, linked))
        usable, group_key, linked = usable[order], group_key[order], linked[order]
        starts = (
            np.flatnonzero(np.r_[True, (group_key[1:] != group_key[:-1]) | (linked[1:] != linked[:-1])])
            if len(usable)
            else []
        )
        chunks = np.split(usable, starts[1:]) if len(usable) else []
        chunks.sort(key=lambda c: int(c[0]))
        return _describe(self, chunks, kinds)

    def cells(self, classes: Array) -> tuple[Array, ...]:
        """The cells of one group: classes that lie in the same rows and cut the same weights."""
        if not self.linked[classes[0]]:
            return (classes,)
        _, inverse = np.unique(self.cell[classes], return_inverse=True)
        cells = [classes[inverse == i] for i in range(int(inverse.max()) + 1)]
        return tuple(sorted(cells, key=lambda c: int(c[0])))


def _lopsided(rows: Array) -> tuple[Array, Array]:
    """The classes with unequal shares of the rows, and how many positions each has in every row."""
    ids, inverse = np.unique(rows, return_inverse=True)
    inverse = inverse.reshape(rows.shape)
    flat = np.bincount(
        (inverse + np.arange(len(rows))[:, None] * len(ids)).ravel(), minlength=len(rows) * len(ids)
    )
    counts = flat.reshape(len(rows), len(ids)).T
    uneven = (counts != counts[:, :1]).any(axis=1) & (ids >= 0)
    return ids[uneven], counts[uneven]


def _with_fixes(classes: Classes, bad: Array, ledger: Ledger) -> Classes:
    reason = -1 - int(ledger.barrier(UNBALANCED)[0])
    fixes = np.concatenate([classes.fixes, np.stack([bad, np.full_like(bad, reason)], axis=1)])
    return Classes(classes.of, classes.count, fixes, classes.mixed, classes.balances)


def _describe(formed: _Forming, chunks: Sequence[Array], kinds: Mapping[str, Array]) -> tuple[Group, ...]:
    """Names, members and costs of the groups."""
    tracing, classes = formed.tracing, formed.final
    group_of = np.full(classes.count, -1, np.int64)
    for index, chunk in enumerate(chunks):
        group_of[chunk] = index
    members = _members(formed, group_of, len(chunks))
    params = np.zeros(len(chunks))
    for key, axes in tracing.weights_axes():
        params += _elements(tracing, key) * _shares(axes, classes, group_of, len(chunks))
    macs = np.zeros(len(chunks))
    for site, rule in tracing.sites:
        if rule is not None and rule.work is not None:
            sizes, axes = _work(tracing, site, rule.work(site))
            macs += float(np.prod(sizes, dtype=float)) * _shares(axes, classes, group_of, len(chunks))
    kind_of = np.full(classes.count, "channel", object)
    for kind, ids in kinds.items():
        kind_of[ids] = kind
    names = _names(tracing, members)
    return tuple(
        Group(
            names[i],
            str(kind_of[chunk[0]]),
            formed.cells(chunk),
            members[i],
            not bool(classes.mixed[chunk].any()),
            round(params[i]),
            round(macs[i]),
        )
        for i, chunk in enumerate(chunks)
    )


def _members(formed: _Forming, group_of: Array, count: int) -> list[tuple[Member, ...]]:
    tracing = formed.tracing
    width = max(1, len(formed.keys))
    owning = group_of[formed.pair_class]
    held = owning >= 0
    totals = np.bincount(
        owning[held] * width + formed.pair_owner[held], weights=formed.positions[held], minlength=0
    )
    found: list[list[Member]] = [[] for _ in range(count)]
    for index in np.flatnonzero(totals):
        key, axis = formed.keys[index % width]
        labels = tracing.axes[key][axis]
        rows = labels.size // labels.shape[axis] if labels.ndim > 1 else 1
        size = labels.shape[axis] if labels.ndim > 1 else labels.size
        found[index // width].append(
            Member(tracing.weights[key], key, axis, size, round(totals[index] / rows))
        )
    return [tuple(f) for f in found]


def _work(
    tracing: Tracing, site: object, places: Sequence[tuple[int | None, int]]
) -> tuple[list[int], list[Array]]:
    sizes, axes = [], []
    for slot, axis in places:
        shape = site.out_shape() if slot is None else site.shape(slot)  # type: ignore[attr-defined]
        labels = tracing.axes[site.node.output[0]] if slot is None else site.labels(slot)  # type: ignore[attr-defined]
        sizes.append(shape[axis])
        axes.append(labels[axis])
    return sizes, axes


def _shares(axes: Sequence[Array], classes: Classes, group_of: Array, count: int) -> Array:
    """float[groups]: the share of a tensor's elements (a node's work) that depends on each group."""
    kept = np.ones(count)
    for labels in axes:
        flat = labels.reshape(-1)
        flat = flat[flat >= 0]
        if flat.size:
            owning = group_of[classes.of[flat]]
            kept *= 1 - np.bincount(owning[owning >= 0], minlength=count) / labels.size
    return 1 - kept


def _share(axes: Sequence[Array], is_in: object) -> float:
    kept = 1.0
    for labels in axes:
        kept *= 1 - float(is_in(labels).mean())  # type: ignore[operator]
    return 1 - kept


def _elements(tracing: Tracing, key: str) -> int:
    return math.prod(tracing.facts.shapes[tracing.weights[key]])


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
        first = group[0]
        name = users.get(first.tensor, first.tensor) if _ANONYMOUS.match(first.tensor) else first.tensor
        if name in taken:
            taken[name] += 1
            name = f"{name}#{taken[name]}"
        taken.setdefault(name, 1)
        names.append(name)
    return names


def _barriers(tracing: Tracing, classes: Classes) -> tuple[Barrier, ...]:
    """What every reason locks, by the classes that it fixes."""
    reasons = tracing.ledger.reasons
    order = np.argsort(classes.fixes[:, 0], kind="stable")
    fixed, reason = classes.fixes[order, 0], classes.fixes[order, 1]
    locks: dict[int, list[tuple[str, int, int]]] = {}
    params: dict[int, float] = {}
    for key, axes in tracing.weights_axes():
        elements = _elements(tracing, key)
        for axis, labels in enumerate(axes):
            flat = labels.reshape(-1)
            ids = classes.of[flat[flat >= 0]]
            low, high = np.searchsorted(fixed, ids), np.searchsorted(fixed, ids, "right")
            for step in range(int((high - low).max()) if ids.size else 0):
                hit = low + step < high
                for r, n in zip(*np.unique(reason[(low + step)[hit]], return_counts=True), strict=True):
                    if not reasons[r].inherent:
                        locks.setdefault(int(r), []).append((tracing.weights[key], axis, int(n)))
                        params[int(r)] = params.get(int(r), 0.0) + elements * n / flat.size
    found = [
        Barrier(reasons[r].text, reasons[r].node, reasons[r].op, tuple(members), round(params[r]))
        for r, members in locks.items()
    ]
    return tuple(sorted(found, key=lambda b: -b.params))
