"""Zeros chosen weight by weight, each on the inputs that the already changed model gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxprune.criteria import mean_square_gradients
from onnxprune.layers import LinearLayer, Parameters, layer_at
from onnxprune.model import Model
from onnxprune.model.run_order import tappable
from onnxprune.progress import Progress, WorkPart
from onnxprune.recovery import ROWS, WIDEST
from onnxprune.rewriting import with_dense, written_back
from onnxprune.runtime import MEMORY, ActivationReader, Moments, PairMoments, routes_of
from onnxprune.sparsity import (
    METHODS,
    ContractionWeight,
    LayerEvidence,
    MaskMethod,
    SparsifyOptions,
    refitted,
    shares_by_damage,
)
from onnxprune.tracing import Groups
from onnxprune.typing import Array

# What stands in where the inputs of a weight are not known.
WITHOUT_INPUTS = "magnitude"


@dataclass(frozen=True, eq=False)
class ChosenZeros:
    """What was chosen for one weight.

    Attributes:
        keep: bool of its stored shape, true where an element stays.
        method: how it was chosen.
        refitted: whether the elements that stay have other values.
        error: squared error of the layer's outputs relative to their squares, on the inputs that it was fitted to;
            None where these are not known.
    """

    keep: Array
    method: str
    refitted: bool
    error: float | None


@dataclass(frozen=True)
class Sweep:
    """A walk through a model that changes its weights.

    Attributes:
        groups: the traced original.
        weights: what is changed, in graph order.
        options: how.
        method: how elements are chosen.
        runs: calibration inputs; empty without data.
    """

    groups: Groups
    weights: Sequence[ContractionWeight]
    options: SparsifyOptions
    method: MaskMethod
    runs: Sequence[Mapping[str, Array]]
    progress: Progress = field(default=lambda stage: None)

    @cached_property
    def _routes(self) -> Sequence[Mapping[str, str]]:
        return routes_of(self.groups.tracing.model, self.runs)

    @cached_property
    def _reached(self) -> frozenset[str]:
        return tappable(self.groups.tracing.model, self._routes)

    @property
    def fits(self) -> bool:
        """Whether elements that stay may get other values."""
        return bool(self.runs) and (self.method.refits if self.options.recover is None else self.options.recover)

    def is_measured(self, weight: ContractionWeight) -> bool:
        """Whether the inputs of a weight are looked at."""
        if not self.runs or not (self.method.needs_data or self.fits):
            return False
        layer = weight.layer
        return layer is not None and weight.uses == 1 and layer.input in self._reached and weight.width <= WIDEST

    def shares(self, share: float | None = None) -> dict[str, float]:
        """The share of the elements of every weight that become zero.

        Args:
            share: of all, in place of that of the options.

        Returns:
            Name of a weight -> its share, in graph order.
        """
        options = self.options
        share = options.share if share is None else share
        own = {weight.name: options.share_of(weight) for weight in self.weights}
        shares = {name: share if other is None else other for name, other in own.items()}
        if options.per == "global":
            damage = {name: self._damage[name] for name in own if own[name] is None}
            shares |= shares_by_damage(damage, share, options.floor)
        return shares

    def by_size(self, weight: ContractionWeight, share: float) -> Array:
        """bool[groups, D, O], true where elements stay if `share` of a weight goes by the size of its elements."""
        value = self.groups.tracing.weight_value(weight.name)
        assert value is not None
        matrix = weight.as_matrix(value)
        kept = self.options.zeros.keep(np.abs(matrix), share, channels=weight.channels)
        return np.asarray(kept & (matrix != 0))

    @cached_property
    def _damage(self) -> dict[str, Array]:
        """Name of a weight -> what its elements are worth to the output of its layer, each relative to all."""
        damage: dict[str, Array] = {}
        taps = [w.layer.input for w in self.weights if w.layer is not None and self.is_measured(w)]
        with ActivationReader(self.groups.tracing.model, self.runs, taps, routes=self._routes) as reader:
            for weight in self.weights:
                value = self.groups.tracing.weight_value(weight.name)
                assert value is not None
                squares = np.square(weight.as_matrix(value).astype(np.float32))
                if self.is_measured(weight) and (moments := self._inputs(weight, reader)).count:
                    squares *= np.square(moments.norm).transpose(0, 2, 1).astype(np.float32)
                damage[weight.name] = squares / max(float(squares.sum()), 1e-30)
        return damage

    def _inputs(self, weight: ContractionWeight, reader: ActivationReader) -> Moments:
        """Moments of every input of a weight in the original."""
        layer, rng = weight.layer, np.random.default_rng(0)
        assert layer is not None
        found = Moments((weight.groups, 1, weight.width))
        for visits in reader.visits([layer.input]):
            most = max(1, ROWS // (len(self.runs) * max(1, len(visits))))
            for visit in visits:
                x = visit[layer.input]
                found.add(layer.input_rows(x, layer.sample_positions(x, most, rng))[..., weight.order])
        return found

    @cached_property
    def _gradients(self) -> Mapping[str, Array]:
        """Name of a weight -> mean square of its gradient; empty where no method asks."""
        if not self.method.needs_gradients or self.options.masks is not None:
            return {}
        rng = np.random.default_rng(self.options.seed)
        return mean_square_gradients(self.groups, self.runs, rng, self.progress)

    def gradient(self, weight: ContractionWeight) -> Array | None:
        """Mean square of the gradient of every element of a weight, [groups, D, O]; None where that is not known."""
        found = self._gradients.get(weight.name)
        return None if found is None or found.shape != weight.shape else weight.as_matrix(found)

    def run(self, shares: Mapping[str, float]) -> tuple[Model, list[ChosenZeros]]:
        """Change every weight.

        Args:
            shares: name -> share of its elements that become zero.

        Returns:
            The changed model, and what was chosen for every weight.
        """
        base = with_dense(self.groups, [w.name for w in self.weights])
        parameters = Parameters(base)
        taps = [w.layer.input for w in self.weights if w.layer is not None and self.is_measured(w)]
        chosen: list[ChosenZeros] = []
        with ExitStack() as stack:

            def walk(model: Model) -> ActivationReader:
                reader = ActivationReader(model, self.runs, taps, routes=self._routes, memory=MEMORY // 2)
                return stack.enter_context(reader)

            walks = (walk(self.groups.tracing.model), walk(parameters.model)) if taps else None
            for number, weight in enumerate(self.weights):
                self.progress(WorkPart.of("weight", number + 1, len(self.weights)))
                fitted = _Fitted(self, weight, parameters)
                found = fitted.moments(*walks) if walks and self.is_measured(weight) else None
                rng = np.random.default_rng([self.options.seed, number])
                chosen.append(fitted.change(found, shares[weight.name], rng))
        return written_back(self.groups, base, parameters.changes), chosen


@dataclass(frozen=True, eq=False)
class _Fitted:
    """One weight of a sweep."""

    sweep: Sweep
    weight: ContractionWeight
    parameters: Parameters

    @cached_property
    def original(self) -> Array:
        """What the stored elements stand for, float64[groups, D, O]."""
        value = self.sweep.groups.tracing.weight_value(self.weight.name)
        assert value is not None
        return self.weight.as_matrix(value).astype(np.float64)

    @cached_property
    def layer(self) -> LinearLayer:
        """The layer in the changed model."""
        view = self.weight.view
        node = next(n for n in self.parameters.proto.graph.node if n.output and n.output[0] == view.node.output[0])
        found = layer_at(view, self.weight.slot, node)
        assert found is not None
        return found

    @cached_property
    def shifted(self) -> bool:
        """Whether the layer has a bias of its own, which may change."""
        found = self.parameters.bias(self.layer, self.weight.outputs) if self.sweep.fits else None
        return found is not None and len(found[0].input) > found[1] and bool(found[0].input[found[1]])

    def moments(self, whole: ActivationReader, left: ActivationReader) -> PairMoments | None:
        """Moments of the inputs, and of the outputs that the original gives; None where no run comes here."""
        layer, order = self.layer, self.weight.order
        tap = layer.input
        weight = self.original.astype(np.float32)
        rng, found = np.random.default_rng(0), None
        pairs = zip(whole.visits([tap]), left.visits([tap]), strict=True)
        for olds, news in pairs:
            most = max(1, ROWS // (len(self.sweep.runs) * max(1, len(olds))))
            for old, new in zip(olds, news, strict=False):
                places = layer.sample_positions(old[tap], most, rng)
                x = layer.input_rows(old[tap], places)[..., order]
                y = x @ weight
                if self.sweep.options.in_sequence:
                    x = layer.input_rows(new[tap], places)[..., order]
                part = PairMoments.of(x, y, shifted=self.shifted)
                found = part if found is None else found + part
        return found

    def change(self, moments: PairMoments | None, share: float, rng: np.random.Generator) -> ChosenZeros:
        """Choose the zeros of the weight, and put it into the changed model."""
        sweep, weight = self.sweep, self.weight
        evidence = LayerEvidence(
            self.original,
            sweep.options.zeros,
            share,
            weight.channels,
            rng=rng,
            second=None if moments is None else moments.xx,
            cross=None if moments is None else moments.xy,
            gradient=sweep.gradient(weight),
        )
        known = evidence.gradient is not None if sweep.method.needs_gradients else moments is not None
        method = sweep.method if known or not sweep.method.needs_data else METHODS[WITHOUT_INPUTS]
        if sweep.options.masks is None:
            values, keep = method.make(evidence)
        else:
            keep = weight.as_matrix(sweep.options.masks[weight.name])
            values = self.original * keep
        fits = moments is not None and sweep.fits and weight.is_float
        if fits and sweep.options.recover:
            values = refitted(evidence, values, keep)
        if not fits:
            values = self.original * keep
        kept = weight.tensor(keep)
        self._store(weight.tensor(values) if fits else None, kept)
        if fits and moments is not None and self.shifted:
            shift = moments.y - (moments.x[:, None] @ values)[:, 0]
            self.parameters.shift(self.layer, shift.reshape(-1) * self.layer.scale)
        error = None if moments is None else _error(moments, values)
        return ChosenZeros(kept, method.name, fits, error)

    def _store(self, values: Array | None, keep: Array) -> None:
        name, tracing = self.weight.name, self.sweep.groups.tracing
        stored = self.parameters.value(name)
        zero = tracing.elements(name, tracing.stored_zero(name).astype(stored.dtype))
        numbers = tracing.elements(name, stored) if values is None else values
        self.parameters.store(name, tracing.from_elements(name, np.where(keep, numbers, zero)))


def _error(moments: PairMoments, weight: Array) -> float:
    """Squared error of the outputs that a weight gives, relative to the squares of those that it should give."""
    wrong = moments.yy.sum() - 2 * (weight * moments.xy).sum() + (weight * (moments.xx @ weight)).sum()
    return float(max(wrong, 0.0) / max(moments.yy.sum(), 1e-30))
