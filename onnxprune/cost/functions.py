"""Exact costs as functions of how many units every group loses: parameters, bytes, MACs, memory, units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from onnx import TensorProto

from onnxprune.cost.axis_lengths import ONE, AxisLengths
from onnxprune.cost.counts import contractions, idle_nodes, of_trace
from onnxprune.model import file_size
from onnxprune.model.graph import WEIGHT_TYPES, captured, first_output
from onnxprune.model.tensors import item_bits
from onnxprune.model.traits import operators_where
from onnxprune.tracing import Groups, TraceResult, batch_size
from onnxprune.typing import Array

STRING = TensorProto.STRING

# Memory of a run over what its activations need at least: masks, layouts of kernels, and what is not given back.
RUN_COPIES = 2
# What these put out lies where their input does.
ALIASES = operators_where(lambda traits: traits.lays_out or (traits.same and traits.moves), "")


class CostFunction(Protocol):
    """A cost as a function of how many units every group loses, those that matter least first."""

    def total(self, counts: Array) -> float:
        """The cost if every group loses `counts` units, int[groups]."""
        ...

    def along(self, counts: Array, group: int, allowed: Array) -> Array:
        """float64[allowed]: the cost if one group loses `allowed` units, int[allowed], and the others `counts`."""
        ...


@dataclass(frozen=True)
class _Touched:
    """The terms that a group changes.

    Attributes:
        terms: their numbers.
        axes: the axes that are their factors, each once.
        factors: int[terms, most], indices into `axes`.
        shrinking: indices into `axes` of those that the group shortens.
        removed: int[units + 1, shrinking], by how much.
    """

    terms: Array
    axes: Array
    factors: Array
    shrinking: Array
    removed: Array


@dataclass(frozen=True, eq=False)
class Terms:
    """Products of axis lengths, each with a weight.

    Attributes:
        widths: the lengths.
        weights: float64[terms].
        factors: int64[terms, most], numbers of axes.
    """

    widths: AxisLengths
    weights: Array
    factors: Array
    _known: dict[int, _Touched] = field(default_factory=dict, repr=False)
    _last: dict[bytes, Array] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, widths: AxisLengths, terms: Sequence[tuple[float, Sequence[int]]]) -> Terms:
        """From (weight, axes) of every term."""
        factors = np.full((len(terms), max([1, *(len(axes) for _, axes in terms)])), ONE, np.int64)
        for row, (_, axes) in zip(factors, terms, strict=True):
            row[: len(axes)] = axes
        return cls(widths, np.array([weight for weight, _ in terms], np.float64), factors)

    def values(self, counts: Array) -> Array:
        """float64[terms]: the value of every term; not to be changed."""
        key = counts.tobytes()
        if key not in self._last:
            self._last.clear()
            self._last[key] = self.weights * self.widths.lengths(counts)[self.factors].prod(axis=1, dtype=np.float64)
        return self._last[key]

    def changed(self, counts: Array, group: int, allowed: Array) -> tuple[Array, Array]:
        """(int[k] the terms that a group changes, float64[allowed, k] their values if it loses `allowed` units)."""
        touched = self._touched(group)
        lengths = np.repeat(self.widths.lengths(counts)[touched.axes][None].astype(np.float64), len(allowed), axis=0)
        lengths[:, touched.shrinking] += touched.removed[counts[group]] - touched.removed[allowed]
        # Factor by factor: a product over a short last axis is far slower.
        values = np.repeat(self.weights[touched.terms][None], len(allowed), axis=0)
        for factor in touched.factors.T:
            values *= lengths[:, factor]
        return touched.terms, values

    def _touched(self, group: int) -> _Touched:
        if group not in self._known:
            shrinking, removed = self.widths.along(group)
            terms = np.flatnonzero(np.isin(self.factors, shrinking).any(axis=1))
            axes, factors = np.unique(self.factors[terms], return_inverse=True)
            here = np.isin(shrinking, axes)
            places = np.searchsorted(axes, shrinking[here])
            shape = (len(terms), self.factors.shape[1])
            self._known[group] = _Touched(terms, axes, factors.reshape(shape), places, removed[:, here])
        return self._known[group]


@dataclass(frozen=True, eq=False)
class Sum:
    """The sum of terms, and of a constant."""

    terms: Terms
    constant: float = 0.0

    def total(self, counts: Array) -> float:
        """See `CostFunction`."""
        return self.constant + float(self.terms.values(counts).sum())

    def along(self, counts: Array, group: int, allowed: Array) -> Array:
        """See `CostFunction`."""
        values = self.terms.values(counts)
        touched, changed = self.terms.changed(counts, group, allowed)
        return np.asarray(self.constant + values.sum() - values[touched].sum() + changed.sum(axis=1))


@dataclass(frozen=True, eq=False)
class Peak:
    """The most that lies in memory at once, of tensors that are made at a step and needed up to another.

    Attributes:
        terms: bytes of every tensor.
        births: int[tensors], the step that makes it.
        deaths: int[tensors], the last step that needs it.
    """

    terms: Terms
    births: Array
    deaths: Array

    def total(self, counts: Array) -> float:
        """See `CostFunction`."""
        return self._peak(self.terms.values(counts))

    def along(self, counts: Array, group: int, allowed: Array) -> Array:
        """See `CostFunction`."""
        values = self.terms.values(counts).copy()
        touched, changed = self.terms.changed(counts, group, allowed)
        found = np.empty(len(allowed))
        for row, new in enumerate(changed):
            values[touched] = new
            found[row] = self._peak(values)
        return found

    def _peak(self, sizes: Array) -> float:
        steps = self._steps
        change = np.bincount(self.births, sizes, steps) - np.bincount(self.deaths + 1, sizes, steps)
        return float(change.cumsum().max(initial=0.0))

    @cached_property
    def _steps(self) -> int:
        return int(self.deaths.max(initial=0)) + 2


@dataclass(frozen=True, eq=False)
class Units:
    """The units that remain in some of the groups.

    Attributes:
        units: int[groups], 0 for those that do not count.
    """

    units: Array

    def total(self, counts: Array) -> float:
        """See `CostFunction`."""
        return float((self.units - counts)[self.units > 0].sum())

    def along(self, counts: Array, group: int, allowed: Array) -> Array:
        """See `CostFunction`."""
        own = self.total(counts) + float(counts[group])
        return own - allowed if self.units[group] else np.full(len(allowed), self.total(counts))


# --- what a model costs ----------------------------------------------------------------------------------


def of_a_run(groups: Groups) -> float:
    """Bytes of memory that a run of the original takes: its activations of all samples, and what is made of them."""
    widths = AxisLengths(groups, {})
    return RUN_COPIES * memory(widths).total(np.zeros(widths.count, np.int64)) * batch_size(groups.tracing)


def macs(widths: AxisLengths) -> Sum:
    """Multiply-accumulates for one sample."""
    tracing = widths.groups.tracing
    share = 1 / batch_size(tracing)
    terms = []
    for view, products in contractions(tracing):
        names = {None: first_output(view.node)} | {
            s: tracing.use_key(view.node, s) for s in range(len(view.node.input))
        }
        there = widths.there(first_output(view.node))
        terms += [
            (share, [*there, *(widths.axes(names[slot])[axis] for slot, axis in product)]) for product in products
        ]
    return Sum(Terms.of(widths, terms))


def params(widths: AxisLengths) -> Sum:
    """Elements of all weights."""
    total = of_trace(widths.groups.tracing, widths.groups.model).params
    # Masks and indices are stored like weights, but are none.
    return _shrinking(widths, total, widths.groups.tracing.weights, lambda dtype: float(dtype in WEIGHT_TYPES))


def size(widths: AxisLengths) -> Sum:
    """Bytes of the file."""
    tracing = widths.groups.tracing
    stored = [key for key, name in tracing.weights.items() if not tracing.is_filled(name)]
    return _shrinking(widths, file_size(widths.groups.model), stored, lambda dtype: item_bits(dtype) / 8)


def _shrinking(widths: AxisLengths, total: float, keys: Iterable[str], each: Callable[[int], float]) -> Sum:
    """`total`, less what goes of weights, an element of which counts as `each` says of its type."""
    tracing = widths.groups.tracing
    # A weight that is duplicated per use counts as one that stays: each use may get a copy of its own.
    names = [key for key in keys if key == tracing.weights[key]]
    axes = [(*widths.axes(name), *widths.there(name)) for name in names]
    weights = (each(tracing.static.dtypes[name]) for name in names)
    terms = Terms.of(widths, list(zip(weights, axes, strict=True)))
    return Sum(terms, total - float(terms.values(np.zeros(widths.count, np.int64)).sum()))


def memory(widths: AxisLengths) -> Peak:
    """Bytes of activations that lie in memory at once, for one sample.

    A tensor lies there from the node that makes it to the last that reads it; weights, and what is computed of them
    alone, do not count, nor do branches that do not run, and a reshaped tensor is the tensor.
    """
    tracing = widths.groups.tracing
    spans = _spans(tracing)
    each = {name: item_bits(tracing.static.dtypes[name]) / 8 / batch_size(tracing) for name in spans}
    terms = Terms.of(widths, [(each[name], (*widths.axes(name), *widths.there(name))) for name in spans])
    births, deaths = (np.array([span[i] for span in spans.values()], np.int64) for i in (0, 1))
    return Peak(terms, births, deaths)


def _spans(tracing: TraceResult) -> dict[str, tuple[int, int]]:
    """Activation -> the step that makes it, and the last that needs it; steps are nodes, from 1."""
    graph, static, idle = tracing.model.proto.graph, tracing.static, idle_nodes(tracing)
    spans: dict[str, tuple[int, int]] = {}
    root: dict[str, str] = {}

    def add(name: str, step: int) -> None:
        if name in static.shapes and static.dtypes.get(name, STRING) != STRING:
            spans[name], root[name] = (step, step), name

    for value in graph.input:
        if not tracing.is_weight(value.name):
            add(value.name, 0)
    for step, node in enumerate(graph.node, 1):
        if first_output(node) in idle:
            continue
        for name in {*node.input, *captured(node)} & root.keys():
            spans[root[name]] = (spans[root[name]][0], step)
        for name in node.output:
            if node.op_type in ALIASES and node.input[0] in root:
                root[name] = root[node.input[0]]
            elif name and name not in tracing.constants and not tracing.is_weight(name):
                add(name, step)
    for value in graph.output:
        if value.name in root:
            spans[root[value.name]] = (spans[root[value.name]][0], len(graph.node) + 1)
    return spans


def units(widths: AxisLengths, chosen: Sequence[int]) -> Units:
    """The units that remain in the groups `chosen`."""
    found = np.zeros(widths.count, np.int64)
    found[list(chosen)] = [widths.units(group) for group in chosen]
    return Units(found)
