"""A walk through a model that makes products of its weights, one after the other, on the calibration inputs.

Two readers take the inputs through the original and through the changed model side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxprune.allocation.ranks import PLAIN, SCALED, FactorOption, LowRankOptions, RankChoice
from onnxprune.cost import Cost
from onnxprune.layers import Parameters
from onnxprune.layers.factor_forms import SIDES, Directions
from onnxprune.layers.low_rank import best_weight, entering_basis, output_energy, spectrum, weight_behind
from onnxprune.model import Model
from onnxprune.model.run_order import tappable
from onnxprune.model.tensors import item_bits
from onnxprune.pipelines.factor_options import WeightEnergy, factor_options, names_of
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
        directions: float32, what stays.
        rest: the weight behind the directions of what enters, fitted where there is data.
        lost: the share of the energy of the outputs that is lost.
        refitted: whether it is not that of the original's weight.
    """

    directions: Directions
    rest: Array
    lost: float
    refitted: bool


@dataclass(frozen=True, eq=False)
class FactorSweep:
    """A walk through a model that makes products of its weights.

    Attributes:
        groups: the traced original.
        weights: what becomes a product, in graph order.
        options: how.
        method: how directions are found.
        runs: calibration inputs; empty without data.
        products: name of a weight -> its form and ranks.
        left: weights that stay whole since their products are too slow.
    """

    groups: Groups
    weights: Sequence[FactorisableWeight]
    options: LowRankOptions
    method: str
    runs: Runs
    products: Mapping[str, FactorOption] = field(default_factory=dict)
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
                of = WeightEnergy(weight, matrix, self._second(moments), self.fits)
                found.append(self._choice(of, macs.get(weight.name, 0)))
        return found

    def _choice(self, of: WeightEnergy, macs: float) -> RankChoice:
        weight, elements = of.weight, of.matrix.size
        itemsize = item_bits(weight.view.static.dtypes[weight.name]) / 8
        whole = {"params": float(elements), "macs": float(macs), "size": elements * itemsize}
        fixed = self.options.rank_of(*names_of(weight)) is not None
        return RankChoice(weight.name, whole, factor_options(of, self.options, macs), fixed)

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
                found.append(self._found(weight, matrix, moments))
                product = found[-1].directions.product(found[-1].rest)
                parameters.store(weight.name, weight.tensor(product))
                if shifted and moments is not None:
                    shift = (moments.y - moments.x @ product)[0] * weight.layer.scale
                    parameters.shift(weight.layer, shift)
        names = {w.name for w in self.weights}
        biases = {name: make() for name, make in parameters.changes.items() if name not in names}
        pairs = list(zip(self.weights, found, strict=True))
        plain = [_factors(w, f.directions, f.directions.entered(w.as_matrix(original.value(w.name)))) for w, f in pairs]
        fitted = [_factors(w, f.directions, f.rest) for w, f in pairs]
        return found, with_factors(self.groups, plain), with_factors(self.groups, fitted, biases)

    def _found(self, weight: FactorisableWeight, matrix: Array, moments: PairMoments | None) -> FoundFactors:
        both = (moments.xx[0], moments.xy[0]) if self.fits and moments is not None else None
        best = matrix if both is None else best_weight(matrix, *both)
        second, given = self._second(moments), {step.tensor: step.directions for step in self.options.steps}
        directions = given.get(weight.name) or self._directions(WeightEnergy(weight, best, second, self.fits), both)
        rest = weight_behind(best, directions, both)
        lost = output_energy(best - directions.product(rest), second) / max(output_energy(best, second), 1e-300)
        return FoundFactors(directions, rest, lost, both is not None)

    def _directions(self, of: WeightEnergy, both: tuple[Array, Array] | None) -> Directions:
        """The directions that stay, of the form and the ranks that were chosen; float32, as a plan holds them."""
        product, entering, leaving = self.products[of.weight.name], None, None
        enters, leaves = SIDES[product.form]
        if enters:
            basis = entering_basis(of.matrix, of.second if of.fits else None, of.weight.kernel_sizes.head(product.form))
            entering = basis[:, : product.ranks[0]].astype(np.float32)
        if leaves:
            start = Directions(product.form, entering)
            second = None if of.second is None else start.entered_moment(of.second)
            found = spectrum(weight_behind(of.matrix, start, both), second)
            leaving = found.basis[:, : product.ranks[-1]].astype(np.float32)
        return Directions(product.form, entering, leaving)


def _factors(weight: FactorisableWeight, directions: Directions, rest: Array) -> Factors:
    return Factors(weight, directions.form, directions.chain(rest, weight.kernel_sizes))
