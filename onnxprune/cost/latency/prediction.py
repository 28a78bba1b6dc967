"""Predicted latency of a whole model as a function of how many units its groups lose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onnxprune.cost.axis_lengths import ONE, AxisLengths
from onnxprune.cost.counts import contractions
from onnxprune.cost.functions import Sum, Terms
from onnxprune.cost.latency.correction import CorrectionCurve
from onnxprune.cost.latency.operators import Operator, operators
from onnxprune.cost.latency.profile import Profile
from onnxprune.cost.latency.tables import Table, proportional, tables
from onnxprune.model.graph import first_output
from onnxprune.model.shapes.infer import StaticInfo, infer
from onnxprune.runtime import Setting
from onnxprune.tracing import TraceResult
from onnxprune.typing import Array

# What times of the same node may differ by between two profiles because of what else the machine does.
DRIFT = 3.0


@dataclass(frozen=True, eq=False)
class _Batch:
    """Operators of one table, some or all that it is for.

    Attributes:
        table: the table.
        numbers: int[n], the operators.
        weights: float64[n], what a second of each counts in the model.
        axes: int[n, letters], numbers of axes in `AxisLengths`.
        full: int[n, letters], their lengths.
        there: int[n], numbers of axes that are of length 1 while the operators are there.
    """

    table: Table
    numbers: Array
    weights: Array
    axes: Array
    full: Array
    there: Array

    @classmethod
    def of(
        cls, table: Table, numbers: Sequence[int], operators: Sequence[Operator], weights: Array, widths: AxisLengths
    ) -> _Batch:
        axes, full = ([[getattr(x, of) for x in operators[i].letters] for i in numbers] for of in ("axis", "full"))
        there = [(*widths.there(first_output(operators[i].view.node)), ONE)[0] for i in numbers]
        return cls(table, np.array(numbers), weights[numbers], np.array(axes), np.array(full), there=np.array(there))

    def seconds(self, lengths: Array) -> Array:
        """float64[..., n], given int[..., axes], the lengths of all axes."""
        each = self.table(lengths[..., self.axes] * self.table.base // self.full)
        return np.asarray(self.weights * each * lengths[..., self.there])

    def touched(self, axes: Array) -> _Batch | None:
        """Those that have one of `axes`."""
        hit = np.isin(self.axes, axes).any(axis=1) | np.isin(self.there, axes)
        parts = (part[hit] for part in (self.numbers, self.weights, self.axes, self.full, self.there))
        return _Batch(self.table, *parts) if hit.any() else None


@dataclass(frozen=True)
class _Seen:
    """A smaller model whose nodes were timed.

    Attributes:
        counts: int[groups], the units that its groups had lost.
        nodes: what its nodes take.
    """

    counts: Array
    nodes: Profile


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted seconds of a run; a `measures.Measure`.

    Attributes:
        widths: lengths as functions of what groups lose.
        batches: the contractions that change, by their tables.
        outputs: the first output of every contraction that changes.
        others: tensor -> seconds of the node that makes it, in the original, where no contraction is in it.
        overhead: seconds of a run in which no node runs.
        scale: what nodes take in a run, over what they take while they are timed.
        seen: smaller models that were timed node by node.
        is_relative: nodes are known by their shares of a run alone.
    """

    widths: AxisLengths
    batches: Sequence[_Batch]
    outputs: Sequence[str]
    others: Mapping[str, float]
    overhead: float = 0.0
    scale: float = 1.0
    seen: tuple[_Seen, ...] = ()
    is_relative: bool = False
    _known: dict[int, list[_Batch]] = field(default_factory=dict, repr=False)
    _last: dict[bytes, Array] = field(default_factory=dict, repr=False)

    def total(self, counts: Array) -> float:
        """See `Measure`."""
        return self.overhead + self.scale * (float(self._values(counts).sum()) + self._rest.total(counts))

    def along(self, counts: Array, group: int, allowed: Array) -> Array:
        """See `Measure`."""
        numbers, changed = self.changed(counts, group, allowed)
        values = self._values(counts)
        own = values.sum() - values[numbers].sum() + changed.sum(axis=1)
        return np.asarray(self.overhead + self.scale * (own + self._rest.along(counts, group, allowed)))

    def changed(self, counts: Array, group: int, allowed: Array) -> tuple[Array, Array]:
        """(int[k] the operators that a group changes, float64[allowed, k] their times if it loses `allowed` units)."""
        axes, removed = self.widths.along(group)
        if group not in self._known:
            self._known[group] = [part for batch in self.batches if (part := batch.touched(axes))]
        others = counts.copy()
        others[group] = 0
        lengths = np.repeat(self.widths.lengths(others)[None], len(allowed), axis=0)
        lengths[:, axes] -= removed[allowed]
        parts = self._known[group]
        numbers = np.concatenate([np.empty(0, np.int64), *(part.numbers for part in parts)])
        found = [np.empty((len(allowed), 0)), *(part.seconds(lengths) for part in parts)]
        return numbers, self._corrected(numbers, np.concatenate(found, axis=1))

    def _values(self, counts: Array) -> Array:
        """float64[operators]; those of the last counts are kept, since they are asked for again and again."""
        key = counts.tobytes()
        if key not in self._last:
            self._last.clear()
            self._last[key] = self._corrected(np.arange(len(self.outputs)), self._by_tables(counts))
        return self._last[key]

    def _by_tables(self, counts: Array) -> Array:
        """float64[operators]: what tables alone say."""
        lengths = self.widths.lengths(counts)
        values = np.zeros(len(self.outputs))
        for batch in self.batches:
            values[batch.numbers] = batch.seconds(lengths)
        return values

    def _corrected(self, numbers: Array, values: Array) -> Array:
        """float64[..., k]: what tables say of the operators `numbers`, corrected by what was measured of each."""
        if self._curves:
            values = values.copy()
            for place, number in enumerate(numbers):
                if number in self._curves:
                    values[..., place] = self._curves[number](values[..., place])
        return values

    @cached_property
    def layers(self) -> Mapping[str, float]:
        """Name of the node of every contraction that changes -> seconds of it in a run where nothing is removed."""
        seconds, made_by = (self.scale * self._values(self._nothing)).tolist(), self.widths.groups.tracing.by_output
        return {made_by[name][0].name: taken for name, taken in zip(self.outputs, seconds, strict=True)}

    # --- what measurements of smaller models change --------------------------------------------------------

    def anchored(self, seconds: float) -> Prediction:
        """The same, such that nothing removed takes `seconds`: what no node takes is overhead of a run."""
        nodes = self.total(self._nothing) - self.overhead
        if nodes <= seconds and not self.is_relative:
            return replace(self, overhead=seconds - nodes)
        return replace(self, overhead=0.0, scale=self.scale * seconds / nodes)

    def corrected(self, counts: Array, nodes: Profile, seconds: float) -> Prediction:
        """The same, after a smaller model was timed.

        How its time is shared out is taken from its nodes, and how much there is from its run: whatever else the
        machine did while nodes were timed slowed all of them.

        Args:
            counts: int[groups], the units that its groups have lost.
            nodes: what its nodes take.
            seconds: what a run of it takes.
        """
        told = self.scale * sum(nodes.values())
        factor = (seconds - self.overhead) / told if told > 0 else 1.0
        factor = factor if 1 / DRIFT < factor < DRIFT else 1.0
        found = _Seen(counts, {tensor: factor * value for tensor, value in nodes.items()})
        return replace(self, seen=(*self.seen, found), _known={}, _last={})

    @cached_property
    def _curves(self) -> Mapping[int, CorrectionCurve]:
        """Contraction -> its curve, where a smaller model has told of it."""
        whole, points = self._by_tables(self._nothing), dict[int, list[tuple[float, float]]]()
        for one in self.seen:
            predicted = self._by_tables(one.counts)
            base = {name: float(p) for name, p in zip(self.outputs, predicted, strict=True)}
            shares = _shares(self.widths.groups.tracing, one.nodes, base).operators
            for number, name in enumerate(self.outputs):
                if shares.get(name):
                    points.setdefault(number, []).append((base[name], shares[name] * base[name]))
        return {
            number: CorrectionCurve.of(float(whole[number]), seen)
            for number, seen in points.items()
            if whole[number] > 0
        }

    @cached_property
    def _rest(self) -> Sum:
        """What no contraction takes: what stays however small a tensor is, and what goes with its elements."""
        known = self.widths.groups.tracing.static.shapes
        # All axes of a tensor keep their length where its shape is not known.
        axes_of = {
            tensor: (*(self.widths.axes(tensor) if tensor in known else ()), *self.widths.there(tensor))
            for tensor in self.others
        }
        full = self.widths.lengths(self._nothing)
        terms: list[tuple[float, tuple[int, ...]]] = []
        for tensor, whole in self.others.items():
            axes = axes_of[tensor]
            full_size = max(1.0, float(np.prod(full[list(axes)])))
            points = []
            for one in self.seen:
                if tensor in one.nodes:
                    share = float(np.prod(self.widths.lengths(one.counts)[list(axes)])) / full_size
                    points.append((share * whole, one.nodes[tensor]))
            floor = float(CorrectionCurve.of(whole, points).measured[0])
            terms += [(floor, self.widths.there(tensor)), ((whole - floor) / full_size, axes)]
        return Sum(Terms.of(self.widths, terms))

    @property
    def _nothing(self) -> Array:
        return np.zeros(self.widths.count, np.int64)


def predict(
    widths: AxisLengths,
    sizes: Mapping[str, int],
    nodes: Profile | None,
    setting: Setting,
    progress: Callable[[str], object] = lambda stage: None,
) -> Prediction:
    """Measure what the operators of a model take.

    Args:
        widths: lengths as functions of what groups lose.
        sizes: numbers for symbolic dims, those of the profile.
        nodes: what the nodes of the model take; in proportion to their multiply-accumulates where None.
        setting: what the model runs on.
        progress: is told about every stage.
    """
    groups, tracing = widths.groups, widths.groups.tracing
    static = infer(tracing.model, sizes)
    changing = operators(widths, static)
    is_relative = nodes is None
    if nodes is None:
        nodes, found = _by_macs(tracing, static), [proportional(operator) for operator in changing]
    else:
        found = tables(changing, setting, groups.model.proto, progress)
    base = [float(table(np.array(o.base))) for o, table in zip(changing, found, strict=True)]
    shares = _shares(tracing, nodes, {first_output(o.view.node): b for o, b in zip(changing, base, strict=True)})
    weights = np.array([shares.operators.get(first_output(o.view.node), 0.0) for o in changing])
    numbers: dict[int, list[int]] = {}
    for number, table in enumerate(found):
        numbers.setdefault(id(table), []).append(number)
    batches = [_Batch.of(found[members[0]], members, changing, weights, widths) for members in numbers.values()]
    names = [first_output(o.view.node) for o in changing]
    return Prediction(widths, batches, names, shares.tensors, is_relative=is_relative)


def _by_macs(tracing: TraceResult, static: StaticInfo) -> Profile:
    """Multiply-accumulates of every contraction, by its first output."""
    found: dict[str, float] = {}
    for view, products in contractions(tracing):
        node = view.node
        shapes = {s: static.shapes.get(name) for s, name in [(None, first_output(node)), *enumerate(node.input)]}
        sizes = [[(shapes[slot] or ())[axis:][:1] or (1,) for slot, axis in product] for product in products]
        found[first_output(node)] = float(sum(math.prod(n for (n,) in product) for product in sizes))
    return found


@dataclass(frozen=True)
class _Shares:
    """What takes the time of a run.

    Attributes:
        operators: contraction, by its first output -> what a second of its table counts.
        tensors: tensor -> seconds of the node that makes it, where no contraction is in it.
    """

    operators: Mapping[str, float]
    tensors: Mapping[str, float]


def _shares(tracing: TraceResult, nodes: Mapping[str, float], base: Mapping[str, float]) -> _Shares:
    """The contractions, or the tensor, that every node of the optimised graph stands for.

    Args:
        tracing: the traced original.
        nodes: tensor -> seconds of the node that makes it now.
        base: contraction, by its first output -> seconds of it alone.
    """
    found: dict[str, float] = {}
    tensors: dict[str, float] = {}
    for tensor, seconds in nodes.items():
        inside = [name for name in _fused(tracing, tensor, nodes) if name in base]
        for name in inside:
            found[name] = found.get(name, 0.0) + seconds / sum(base[n] for n in inside)
        if not inside:
            tensors[tensor] = seconds
    return _Shares(found, tensors)


def _fused(tracing: TraceResult, tensor: str, nodes: Mapping[str, float]) -> Iterator[str]:
    """First outputs of all nodes of the original that became the one that makes `tensor`."""
    pending, met = [tensor], {tensor}
    while pending:
        node = tracing.producer(pending.pop())
        if node is not None:
            yield first_output(node)
            new = [name for name in node.input if name and name not in nodes and name not in met]
            met.update(new)
            pending += new
