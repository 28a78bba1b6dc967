"""Optimal brain surgery on the readers of a group: what their outputs lose if a unit goes and the rest is re-fitted.

For a layer with weights W [D, O], inputs with centred second moment S, and H = (S + l I)^-1, removing the columns P and
re-fitting the others in the least-squares sense costs

    e(P) = tr(W_P^T (H_PP)^-1 W_P).

Units are removed greedily: the one with the least e(P), summed over all layers that read the group, each divided by its
output energy tr(W^T S W), goes first; then W <- W - H_:P (H_PP)^-1 W_P and H <- H - H_:P (H_PP)^-1 H_P: in every layer,
so that the scores of the others know what has gone already. A unit's score is the damage that had accumulated when it
went: scores of a group ascend in the order of removal, and are comparable between groups.

Sources: Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", 1993, eq. 5;
Frantar and Alistarh, "Optimal Brain Compression", 2022, section 4 (greedy removal with downdates of the inverse);
Kurtic et al., "ZipLM", 2023, section 3.1 (whole structures).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from onnxprune.criteria.aggregate import Aggregate, aggregated
from onnxprune.criteria.magnitude import norms
from onnxprune.criteria.output_damage import DamageTrial, impacts, parted
from onnxprune.criteria.reader_moments import InputMoments, MeasuredReader, measured_readers
from onnxprune.criteria.registry import Evidence, criterion
from onnxprune.layers import quick_factor
from onnxprune.progress import WorkPart
from onnxprune.runtime import SpillBuffer, blas_threads
from onnxprune.tracing import Group
from onnxprune.typing import Array

DAMPING = 1e-2
# Shares of a group that are taken out to see what that does to the outputs: errors grow faster there than in the layer.
TRIED = (0.5, 0.75)
# Relative squared errors below this count as none: so small, they are rounding.
NEGLIGIBLE = 1e-5
# Of the units that are left, one in so many goes in a round, and at least one: every round goes through all that is
# left of the matrices, so these should shrink in few rounds while they are large.
EACH = 24
# Elements of a product that are made at a time.
SLAB = 1 << 20


@criterion(
    "obs",
    needs_data=True,
    normalize="none",
    accumulates=True,
    source="Hassibi and Stork 1993; Kurtic et al. 2023, arXiv:2302.04089",
)
def obs(evidence: Evidence, rng: np.random.Generator, aggregate: Aggregate) -> Array:
    """Error of the readers' outputs when a unit goes and the others are re-fitted, units going greedily."""
    groups = evidence.groups
    scores = _fallback(evidence)
    store = SpillBuffer()
    trials: dict[tuple[int, float], list[DamageTrial]] = {}
    try:
        runs, judging = parted(groups, evidence.runs) if evidence.compared else (evidence.runs, ())
        readers = measured_readers(groups, runs, store)
        for number, group in enumerate(groups.groups):
            evidence.progress(WorkPart.of("scoring group", number + 1, len(groups.groups)))
            own = [r for r in readers if np.isin(r.owner, group.classes).any()]
            if own:
                with blas_threads():  # thousands of products, of few columns each: threads would wait for each other
                    scores[group.classes], tried = _greedy(group, own, store)
                trials |= {(number, damage): layers for damage, layers in tried.items()}
        if evidence.compared:
            found = impacts(groups, judging, trials, evidence.progress)
            usual = float(np.median([_ratio(damage, error) for (_, damage), error in found.items()] or [1.0]))
            for number in {number for number, _ in trials}:
                known = {damage: error for (owner, damage), error in found.items() if owner == number}
                classes = groups.groups[number].classes
                scores[classes] = _outward(scores[classes], known, usual)
    finally:
        store.close()
    return scores


def _outward(damage: Array, known: Mapping[float, float], usual: float) -> Array:
    """Errors of the outputs for damages of layers: straight lines through the known ones, from zero on.

    Beyond the last they grow as far as there; where none is known, as usual.
    """
    ends, errors = zip((0.0, 0.0), *sorted(known.items()), strict=True)
    last = _ratio(ends[-1], max(errors)) if known else usual
    return np.where(damage <= ends[-1], np.interp(damage, ends, np.maximum.accumulate(errors)), last * damage)


def _ratio(damage: float, error: float) -> float:
    """An error of the outputs over the damage of layers that makes it."""
    return (error + NEGLIGIBLE) / (damage + NEGLIGIBLE)


def _fallback(evidence: Evidence) -> Array:
    """Accumulated shares of squared norms, for groups that no layer reads in a way that could be re-fitted."""
    groups = evidence.groups
    scores = np.square(aggregated(norms(evidence.weights), "norm", groups.classes.count))
    for group in groups.groups:
        order = group.classes[np.argsort(scores[group.classes], kind="stable")]
        scores[order] = np.cumsum(scores[order]) / max(float(scores[order].sum()), 1e-30)
    return scores


# --- greedy removal --------------------------------------------------------------------------------------


class _Uncorrelated:
    """A reader of a group whose inputs count as uncorrelated: what remains is not re-fitted, and costs stay."""

    def __init__(self, reader: MeasuredReader, classes: Array) -> None:
        self._reader = reader
        self._columns = _columns(reader.owner, classes)
        self._weight, variance = np.array(reader.weight), reader.inputs.second
        squares = np.square(self._weight, dtype=np.float64).sum(axis=1)
        energy = max(float((squares * variance).sum()), 1e-30)
        self._costs = squares * (variance + _ridge(variance)) / energy

    def costs(self, units: Array) -> Array:
        """Damage of removing each of `units` next, as a share of the layer's output energy."""
        columns = self._columns[units]
        return np.where(columns >= 0, self._costs[columns], 0).sum(axis=1)

    def remove(self, units: Array) -> None:
        """Remove `units`."""
        columns = self._columns[units]
        self._weight[columns[columns >= 0]] = 0

    def trials(self, store: SpillBuffer) -> Iterator[DamageTrial]:
        """The layer as it is now."""
        yield _trial(self._reader, self._weight, store)


class _Surgery:
    """Readers of a group that read the same rows, while units are removed, and the weights of the others re-fitted.

    Their weights, each over the root of its layer's output energy, lie side by side. They and the inverse are in
    single precision, which ranks units alike, and hold no rows but those that are left.
    """

    def __init__(self, readers: Sequence[MeasuredReader], classes: Array) -> None:
        self._readers, self._inputs = readers, readers[0].inputs
        self._columns = _columns(readers[0].owner, classes)
        second = self._inputs.second
        self._scales = [_root_of_energy(reader.weight, second) for reader in readers]
        self._weight: Array = np.concatenate([r.weight / s for r, s in zip(readers, self._scales, strict=True)], axis=1)
        with blas_threads(len(second)):
            inverse = quick_factor(second, _ridge(second.diagonal())).inverse()
        self._inverse: Array = inverse.astype(np.float32, copy=False)
        self._rows: Array = np.arange(len(second))  # of the layer, that are left

    def costs(self, units: Array) -> Array:
        """Damage of removing each of `units` next, as a share of the layers' output energy."""
        columns = self._columns[units]
        weight, block = self._weight[columns], self._inverse[columns[:, :, None], columns[:, None, :]]
        missing = columns < 0
        if missing.any():
            weight[missing] = 0
            block = np.where(missing[:, :, None] | missing[:, None, :], np.eye(columns.shape[1], dtype="f4"), block)
        return np.asarray((np.linalg.inv(block) * (weight @ weight.transpose(0, 2, 1))).sum(axis=(1, 2)))

    def remove(self, units: Array) -> None:
        """Remove `units`, and re-fit what remains."""
        columns = self._columns[units].reshape(-1)
        columns = columns[columns >= 0]
        if not len(columns):
            return
        block, across, own = self._inverse[np.ix_(columns, columns)], self._inverse[columns], self._weight[columns]
        left = len(self._rows) - len(columns)
        # The last of those that are left take the places of those that go.
        free = columns[columns < left]
        last = np.setdiff1d(np.arange(left, len(self._rows)), columns)
        for array in (self._rows, self._weight, self._inverse, self._inverse.T, across.T):
            array[free] = array[last]
        places = np.arange(len(self._rows) + 1)  # the last is that of no row
        places[columns], places[last], places[-1] = -1, free, -1
        self._columns, self._rows = places[self._columns], self._rows[:left]
        self._weight, self._inverse, across = self._weight[:left], self._inverse[:left, :left], across[:, :left]
        shares = np.linalg.solve(block, across).T
        _subtract(self._weight, shares, own)
        _subtract(self._inverse, shares, across)

    def trials(self, store: SpillBuffer) -> Iterator[DamageTrial]:
        """The layers as they are re-fitted now."""
        start = 0
        for reader, scale in zip(self._readers, self._scales, strict=True):
            weight: Array = np.zeros(reader.weight.shape, np.float32)
            weight[self._rows] = self._weight[:, start : start + weight.shape[1]] * scale
            start += weight.shape[1]
            yield _trial(reader, weight, store)


def _root_of_energy(weight: Array, second: Array) -> np.float32:
    """The root of the energy of a layer's outputs."""
    energy = float((weight * (second @ weight)).sum(dtype=np.float64))
    return np.float32(math.sqrt(max(energy, 1e-30)))


def _subtract(array: Array, left: Array, right: Array) -> None:
    """Subtract the product of two matrices, some rows at a time: no array as large as the result is made."""
    step = max(1, SLAB // max(1, array.shape[1]))
    for start in range(0, len(array), step):
        array[start : start + step] -= left[start : start + step] @ right


def _ridge(variance: Array) -> float:
    """What is added to second moments; inputs that never vary cost nothing, whatever it is."""
    return DAMPING * float(variance.mean(dtype=np.float64)) or 1.0


def _trial(reader: MeasuredReader, weight: Array, store: SpillBuffer) -> DamageTrial:
    """A reader with other weights, and the shift that keeps its mean output."""
    return DamageTrial(reader.view, store.keep(weight), (reader.weight - weight).T @ reader.inputs.mean, reader.way)


def _columns(owner: Array, classes: Array) -> Array:
    """int[units, most rows of any]: the rows of every class; -1 fills up."""
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], classes, "left")
    counts = np.searchsorted(owner[order], classes, "right") - starts
    steps = np.arange(max(1, int(counts.max())))
    places = np.minimum(starts[:, None] + steps, len(owner) - 1)
    return np.where(steps < counts[:, None], order[places], -1)


def _surgeries(group: Group, readers: Sequence[MeasuredReader]) -> Iterator[_Surgery | _Uncorrelated]:
    """What removes units from the readers of a group: those that read the same rows are treated together."""
    alike: dict[tuple[InputMoments, bytes], list[MeasuredReader]] = {}
    for reader in readers:
        alike.setdefault((reader.inputs, reader.owner.tobytes()), []).append(reader)
    for (inputs, _), some in alike.items():
        if inputs.second.ndim == 2:
            yield _Surgery(some, group.classes)
        else:
            yield from (_Uncorrelated(reader, group.classes) for reader in some)


def _greedy(
    group: Group, readers: Sequence[MeasuredReader], store: SpillBuffer
) -> tuple[Array, dict[float, list[DamageTrial]]]:
    """(accumulated damage at the removal of every class; damage -> the readers then, when `TRIED` of them are gone)."""
    surgeries = list(_surgeries(group, readers))
    left = np.arange(len(group.classes))
    scores, damage = np.zeros(len(left)), 0.0
    trials: dict[float, list[DamageTrial]] = {}
    stops = [(1 - share) * len(left) for share in TRIED]
    while len(left):
        costs = np.sum([surgery.costs(left) for surgery in surgeries], axis=0)
        order = np.argsort(costs, kind="stable")[: max(1, len(left) // EACH)]
        scores[left[order]] = damage + np.cumsum(np.maximum(costs[order], 0))
        damage = float(scores[left[order[-1]]])
        for surgery in surgeries:
            surgery.remove(left[order])
        left = np.delete(left, order)
        if stops and len(left) <= stops[0]:
            stops = [stop for stop in stops if len(left) > stop]
            trials[damage] = [trial for surgery in surgeries for trial in surgery.trials(store)]
    return scores, trials
