"""The time of a whole model as a function of what its groups lose: what every node takes, times what is left of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.cost import contractions
from onnxprune.labels import Array
from onnxprune.latency.operators import Operator, operators
from onnxprune.latency.profile import Profile
from onnxprune.latency.tables import Table, proportional, tables
from onnxprune.measures import Sum, Terms
from onnxprune.runtime import Setting
from onnxprune.shapes import Facts, infer
from onnxprune.tracing import Tracing
from onnxprune.widths import Widths
from onnxprune.wiring import first_output


@dataclass(frozen=True, eq=False)
class _Touched:
    """The operators that a group changes: their numbers, and for each the axis of every letter, or None."""

    numbers: Array
    gone: Mapping[int, Array]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted seconds of a run; a `measures.Measure`.

    Attributes:
        widths: lengths as functions of what groups lose.
        operators: the contractions that change.
        tables: their times alone.
        weights: float64[operators], what a second of each counts in the model.
        rest: what everything else takes: in proportion to its elements, or constant.
        scale: correction of the whole, from measurements of it.
    """

    widths: Widths
    operators: Sequence[Operator]
    tables: Sequence[Table]
    weights: Array
    rest: Sum
    scale: float = 1.0
    _known: dict[int, _Touched] = field(default_factory=dict, repr=False)

    def total(self, counts: Array) -> float:
        """See `Measure`."""
        return self.scale * (float(self._values(counts).sum()) + self.rest.total(counts))

    def along(self, counts: Array, group: int, menu: Array) -> Array:
        """See `Measure`."""
        numbers, changed = self.changed(counts, group, menu)
        values = self._values(counts)
        own = values.sum() - values[numbers].sum() + changed.sum(axis=1)
        return np.asarray(self.scale * (own + self.rest.along(counts, group, menu)))

    def changed(self, counts: Array, group: int, menu: Array) -> tuple[Array, Array]:
        """(int[k] the operators that a group changes, float64[menu, k] what they take if it loses `menu` units)."""
        touched = self._touched(group)
        others = counts.copy()
        others[group] = 0
        lengths = self.widths.lengths(others)
        columns = [self._value(i, self._menu(i, lengths, touched.gone, menu)) for i in touched.numbers]
        return touched.numbers, np.stack(columns, axis=1) if columns else np.zeros((len(menu), 0))

    def _menu(self, number: int, lengths: Array, gone: Mapping[int, Array], menu: Array) -> Array:
        letters = self.operators[number].letters
        columns = [
            (lengths[x.axis] - (gone[x.axis][menu] if x.axis in gone else np.zeros(len(menu), int))) * x.base // x.full
            for x in letters
        ]
        return np.stack(columns, axis=1)

    def _values(self, counts: Array) -> Array:
        lengths = self.widths.lengths(counts)
        found = [
            self._value(i, np.array([[lengths[x.axis] * x.base // x.full for x in o.letters]]))[0]
            for i, o in enumerate(self.operators)
        ]
        return np.array(found, float)

    def _value(self, number: int, lengths: Array) -> Array:
        return np.asarray(self.weights[number] * self.tables[number](lengths))

    def _touched(self, group: int) -> _Touched:
        if group not in self._known:
            axes, gone = self.widths.along(group)
            by_axis = {int(axis): gone[:, k] for k, axis in enumerate(axes)}
            hit = [i for i, o in enumerate(self.operators) if any(x.axis in by_axis for x in o.letters)]
            self._known[group] = _Touched(np.array(hit, np.int64), by_axis)
        return self._known[group]

    def scaled_to(self, seconds: float) -> Prediction:
        """The same, such that nothing removed takes `seconds`."""
        return replace(self, scale=self.scale * seconds / self.total(np.zeros(self.widths.count, np.int64)))


def predict(
    widths: Widths,
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
    facts = infer(tracing.model, sizes)
    changing = operators(widths, facts)
    if nodes is None:
        nodes, found = _by_work(tracing, facts), [proportional(operator) for operator in changing]
    else:
        found = tables(changing, setting, groups.model.proto, progress)
    base = [float(table(np.array(o.base))) for o, table in zip(changing, found, strict=True)]
    shares = _shares(tracing, nodes, {first_output(o.site.node): b for o, b in zip(changing, base, strict=True)})
    weights = np.array([shares.operators.get(first_output(o.site.node), 0.0) for o in changing])
    return Prediction(widths, changing, found, weights, _rest(widths, shares))


def _by_work(tracing: Tracing, facts: Facts) -> Profile:
    """Multiply-accumulates of every contraction, by its first output."""
    found: dict[str, float] = {}
    for site, products in contractions(tracing):
        node = site.node
        shapes = {s: facts.shapes.get(name) for s, name in [(None, first_output(node)), *enumerate(node.input)]}
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


def _shares(tracing: Tracing, nodes: Mapping[str, float], base: Mapping[str, float]) -> _Shares:
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


def _fused(tracing: Tracing, tensor: str, nodes: Mapping[str, float]) -> Iterator[str]:
    """First outputs of all nodes of the original that became the one that makes `tensor`."""
    pending, met = [tensor], {tensor}
    while pending:
        node = tracing.maker(pending.pop())
        if node is not None:
            yield first_output(node)
            new = [name for name in node.input if name and name not in nodes and name not in met]
            met.update(new)
            pending += new


def _rest(widths: Widths, shares: _Shares) -> Sum:
    """What takes time in proportion to a tensor's elements; all of its axes keep their length where it is not known."""
    known = widths.groups.tracing.facts.shapes
    axes = [widths.axes(name) if name in known else () for name in shares.tensors]
    full = widths.lengths(np.zeros(widths.count, np.int64))
    seconds = [s / max(1.0, float(np.prod(full[list(a)]))) for s, a in zip(shares.tensors.values(), axes, strict=True)]
    return Sum(Terms.of(widths, list(zip(seconds, axes, strict=True))))
