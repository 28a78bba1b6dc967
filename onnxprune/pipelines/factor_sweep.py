"""A walk through a model that makes products of its weights, one after the other, on the calibration inputs.

Two readers take the inputs through the original and through the changed model side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onnxprune.allocation.ranks import PLAIN, SCALED, LowRankOptions, RankChoice, multiple_for
from onnxprune.cost import Cost
from onnxprune.layers import Parameters
from onnxprune.layers.low_rank import best_weight, spectrum
from onnxprune.model import Model
from onnxprune.model.run_order import tappable
from onnxprune.model.tensors import item_bits
from onnxprune.progress import Progress, WorkPart
from onnxprune.recovery import ROWS, WIDEST
from onnxprune.rewriting import with_dense
from onnxprune.rewriting.factorise import FactorisableWeight, Factors, with_factors
from onnxprune.runtime import MEMORY, ActivationReader, PairMoments, routes_of
from onnxprune.tracing import Groups
from onnxprune.typing import Array, Runs


@dataclass(frozen=True, eq=False)
class FoundFactors:
    """What was found for one weight.

    Attributes:
        basis: float32[O, r], the directions that stay.
        first: float64[D, r], the first factor, fitted where there is data; the second is the basis.
        lost: the share of the energy of the outputs that is lost.
        refitted: whether the first factor is not that of the original's weight.
    """

    basis: Array
    first: Array
    lost: float
    refitted: bool


def names_of(weight: FactorisableWeight) -> tuple[str, str]:
    """What globs of weights match: its name, and that of its node."""
    return weight.name, weight.view.name


@dataclass(frozen=True, eq=False)
class FactorSweep:
    """A walk through a model that makes products of its weights.

    Attributes:
        groups: the traced original.
        weights: what becomes a product, in graph order.
        options: how.
        method: how directions are found.
        runs: calibration inputs; empty without data.
        ranks: name of a weight -> its rank.
        left: weights that stay whole since their products are too slow.
    """

    groups: Groups
    weights: Sequence[FactorisableWeight]
    options: LowRankOptions
    method: str
    runs: Runs
    ranks: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether factors are fitted to the outputs of the original."""
        return bool(self.runs) and self.options.recover

    @cached_property
    def _routes(self) -> Sequence[Mapping[str, str]]:
        return routes_of(self.groups.tracing.model, self.runs)

    @cached_property
    def _reached(self) -> frozenset[str]:
        return tappable(self.groups.tracing.model, self._routes)

    def _is_measured(self, weight: FactorisableWeight) -> bool:
        return bool(self.runs) and weight.layer.input in self._reached and weight.sizes[0] <= WIDEST

    @contextmanager
    def _readers(self, *models: Model) -> Iterator[list[ActivationReader]]:
        """Readers of what the measured weights read, side by side."""
        taps = [w.layer.input for w in self.weights if self._is_measured(w)]
        with ExitStack() as stack:
            share = MEMORY // len(models)
            readers = [ActivationReader(m, self.runs, taps, routes=self._routes, memory=share) for m in models]
            yield [stack.enter_context(reader) for reader in readers] if taps else []

    def _second(self, moments: PairMoments | None) -> Array | None:
        """What directions are found by: the second moment, or the sizes of the inputs alone."""
        if moments is None or self.method == PLAIN:
            return None
        return np.diag(np.sqrt(np.diagonal(moments.xx[0]))) if self.method == SCALED else moments.xx[0]

    def choices(self, cost: Cost) -> list[RankChoice]:
        """What every weight may become, by the inputs that it gets in the original."""
        parameters = Parameters(with_dense(self.groups, [w.name for w in self.weights]))
        macs = {layer.weight: layer.macs for layer in cost.layers}
        found = []
        with self._readers(self.groups.tracing.model) as readers:
            for weight in self.weights:
                matrix = weight.as_matrix(parameters.value(weight.name))
                shifted = self._is_shifted(parameters, weight)
                moments = self._moments(weight, matrix, readers, shifted=shifted) if readers else None
                lost = spectrum(matrix, self._second(moments)).lost()
                found.append(self._choice(weight, lost, macs.get(weight.name, 0)))
        return found

    def _choice(self, weight: FactorisableWeight, lost: Array, macs: float) -> RankChoice:
        inner, outer = weight.sizes
        each, itemsize = inner + outer, item_bits(weight.view.static.dtypes[weight.name]) / 8
        per_element = macs / (inner * outer)
        costs = {
            "params": (float(inner * outer), float(each)),
            "macs": (float(macs), per_element * each),
            "size": (float(inner * outer * itemsize), float(each * itemsize)),
        }
        choice = RankChoice(weight.name, (inner, outer), lost, costs, self.options.rank_of(*names_of(weight)))
        return replace(choice, multiple=multiple_for(choice.largest, self.options.round_to))

    def _is_shifted(self, parameters: Parameters, weight: FactorisableWeight) -> bool:
        """Whether the layer has a bias of its own, which may change."""
        found = parameters.bias(weight.layer, weight.sizes[1]) if self.fits else None
        return found is not None and len(found[0].input) > found[1] and bool(found[0].input[found[1]])

    def _moments(
        self, weight: FactorisableWeight, matrix: Array, readers: Sequence[ActivationReader], *, shifted: bool
    ) -> PairMoments | None:
        """Moments of the inputs, and of the outputs that the original gives; None where no run comes here."""
        layer, tap, rng = weight.layer, weight.layer.input, np.random.default_rng(0)
        if not self._is_measured(weight):
            return None
        others = readers[1].visits([tap]) if len(readers) > 1 else None
        found: PairMoments | None = None
        for olds in readers[0].visits([tap]):
            news = olds if others is None else next(others)
            most = max(1, ROWS // (len(self.runs) * max(1, len(olds))))
            for old, new in zip(olds, news, strict=False):
                places = layer.sample_positions(old[tap], most, rng)
                x = layer.input_rows(old[tap], places)
                y = x @ matrix.astype(np.float32)
                if self.options.in_sequence:
                    x = layer.input_rows(new[tap], places)
                part = PairMoments.of(x, y, shifted=shifted)
                found = part if found is None else found + part
        return found

    def run(self, progress: Progress) -> tuple[list[FoundFactors], Model, Model]:
        """Find all factors.

        Args:
            progress: is told about every weight.

        Returns:
            What was found, the model with the factors of the original's weights, and the one with fitted factors.
        """
        original = Parameters(with_dense(self.groups, [w.name for w in self.weights]))
        parameters = Parameters(with_dense(self.groups, [w.name for w in self.weights]))
        found: list[FoundFactors] = []
        with self._readers(self.groups.tracing.model, parameters.model) as readers:
            for number, weight in enumerate(self.weights):
                progress(WorkPart.of("weight", number + 1, len(self.weights)))
                matrix = weight.as_matrix(original.value(weight.name))
                shifted = self._is_shifted(parameters, weight)
                moments = self._moments(weight, matrix, readers, shifted=shifted) if readers else None
                found.append(self._factors(weight, matrix, moments))
                product = found[-1].first @ found[-1].basis.T
                parameters.store(weight.name, weight.tensor(product))
                if shifted and moments is not None:
                    shift = (moments.y - moments.x @ product)[0] * weight.layer.scale
                    parameters.shift(weight.layer, shift)
        names = {w.name for w in self.weights}
        biases = {name: make() for name, make in parameters.changes.items() if name not in names}
        plain = [
            Factors(w, w.as_matrix(original.value(w.name)) @ f.basis, f.basis.T)
            for w, f in zip(self.weights, found, strict=True)
        ]
        fitted = [Factors(w, f.first, f.basis.T) for w, f in zip(self.weights, found, strict=True)]
        return found, with_factors(self.groups, plain), with_factors(self.groups, fitted, biases)

    def _factors(self, weight: FactorisableWeight, matrix: Array, moments: PairMoments | None) -> FoundFactors:
        fits = self.fits and moments is not None
        best = best_weight(matrix, moments.xx[0], moments.xy[0]) if self.fits and moments is not None else matrix
        given = {step.tensor: step.basis for step in self.options.steps}
        second = self._second(moments)
        if weight.name in given:
            basis = given[weight.name].astype(np.float64)
        else:
            basis = spectrum(best, second).basis[:, : self.ranks[weight.name]]
        stored = basis.astype(np.float32)
        lost = _energy(best - best @ basis @ basis.T, second) / max(_energy(best, second), 1e-300)
        return FoundFactors(stored, best @ stored.astype(np.float64), lost, fits)


def _energy(weight: Array, second: Array | None) -> float:
    """The squared outputs of a layer."""
    return float((weight * (weight if second is None else second @ weight)).sum())
