"""Targets of recovery: one layer or norm, fitted to the original's outputs and judged on held-out runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import onnx

from onnxprune.layers import LinearLayer, Parameters, weight_axes
from onnxprune.recovery import fits
from onnxprune.recovery.downstream import Downstream
from onnxprune.rewriting import Removal
from onnxprune.runtime import PairMoments, WidePairMoments, blas_threads
from onnxprune.tracing import NodeView
from onnxprune.typing import Array

# Rows per layer that a fit looks at: enough for D x D moments of some thousands; more measured no better.
ROWS = 16384
# Rows for each input of one group, where there are several: a depthwise layer has nine, and far fewer rows than `ROWS`
# measured as good.
ROWS_PER_INPUT = 512
# Widest layer (D of its weight) whose D x D moments are made: equations are cubic in it. Where rows of all groups
# together are wider, so few are taken that they hold no more numbers than such moments.
WIDEST = 6144
# The values of a run's tapped tensors, in the original and in the pruned model (none where only the original is run).
Pair = tuple[Sequence[Array], Sequence[Array]]


@dataclass(frozen=True, eq=False)
class FitEvidence:
    """What a target is fitted to.

    Attributes:
        pairs: the values of its tapped tensors, run by run, at every visit.
        train: how many runs fit; the others judge.
        dampings: ridge weights to try, in ascending order.
    """

    pairs: Iterable[Sequence[Pair]]
    train: int
    dampings: Sequence[float]

    def visits(self, groups: int = 1, width: int = 1) -> Iterator[tuple[bool, Sequence[Pair], int]]:
        """Of every run: whether it judges, the values at every visit, and how many rows to take of one.

        Args:
            groups: of the layer.
            width: inputs of one of its groups.
        """
        rows = min(ROWS, ROWS_PER_INPUT * width) if width > 1 else ROWS
        rows = rows if groups * width <= WIDEST else min(rows, WIDEST**2 // (groups * width))
        for number, visits in enumerate(self.pairs):
            yield number >= self.train, visits, max(1, rows // (self.train * max(1, len(visits))))


@dataclass(frozen=True)
class Fit:
    """What became of one layer.

    Attributes:
        node: name of the layer.
        before: relative squared error of its outputs on held-out samples, sliced only.
        after: the same with the fitted weights.
        kept: whether the fit was kept.
        groups: names of the groups whose units it lost.
    """

    node: str
    before: float
    after: float
    kept: bool
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerFit(ABC):
    """Parameters of one node that are to be fitted.

    Attributes:
        method: the recovery method.
        parameters: the pruned model, whose parameters are replaced.
        sliced: the parameters as they were cut, float64[groups, D, O].
        full: those before, for the outputs that remain, float64[groups, D of the original, O].
        shifted: whether a bias may be fitted, too.
        groups: names of the groups whose units were inputs.
    """

    # Whether the moments of the inputs are asked for as a matrix, not only what follows from them.
    needs_second_moment: ClassVar[bool] = False

    method: fits.Method
    parameters: Parameters
    sliced: Array
    full: Array
    shifted: bool
    groups: tuple[str, ...] = ()

    @abstractmethod
    def rows(self, olds: Sequence[Array], news: Sequence[Array], most: int, rng: np.random.Generator) -> fits.Rows:
        """At most so many rows of a run, from the tapped tensors of the original and of the pruned model."""

    def channels(self, rows: fits.Rows) -> PairMoments | None:
        """Moments of channels, where the method asks for them."""
        return None

    def on_grid(self, fitted: fits.Fitted, moments: PairMoments) -> fits.Fitted:
        """The fitted parameters as they can be stored, given the moments of the rows that they were fitted to."""
        return fitted

    @abstractmethod
    def write(self, fitted: fits.Fitted, moments: PairMoments | None = None) -> None:
        """Put fitted parameters into the pruned model; the moments of their rows are None without data."""


@dataclass(frozen=True, eq=False)
class Target(ABC):
    """A node behind a cut with parameters that can be fitted.

    Attributes:
        view: where it stands in the original.
        node: its form in the pruned model.
    """

    view: NodeView
    node: onnx.NodeProto

    @property
    @abstractmethod
    def tapped_tensors(self) -> tuple[list[str], list[str]]:
        """The tensors of the original and of the pruned model that a fit looks at."""

    @property
    def outputs(self) -> list[str]:
        """What the fitted parameters make."""
        return [self.node.output[0]]

    @abstractmethod
    def fit(
        self, removal: Removal, parameters: Parameters, method: fits.Method, evidence: FitEvidence
    ) -> Iterator[Fit]:
        """Fit to the runs that fit, and keep the fit if it does better on the others."""


@dataclass(frozen=True, eq=False)
class MatrixTarget(Target):
    """A node that multiplies with one matrix, or with one per group of its channels."""

    @abstractmethod
    def task(self, removal: Removal, parameters: Parameters, method: fits.Method) -> LayerFit:
        """What is to be fitted, with the present parameters."""

    def fit(
        self, removal: Removal, parameters: Parameters, method: fits.Method, evidence: FitEvidence
    ) -> Iterator[Fit]:
        """Fit to the runs that fit, and keep the fit if it does better on the others."""
        return fit_layer(self.view, self.task(removal, parameters, method), evidence)


def fit_layer(view: NodeView, task: LayerFit, evidence: FitEvidence) -> Iterator[Fit]:
    """Fit to the runs that fit, and keep the fit if it does better on the others.

    Nothing is done unless some run of either kind visits the layer.
    """
    rng = np.random.default_rng(0)
    found: tuple[list[fits.Rows], list[fits.Rows]] = ([], [])
    groups, width, _ = task.sliced.shape
    for judges, visits, most in evidence.visits(groups, width):
        found[judges].extend(task.rows(old, new, most, rng) for old, new in visits)
    if not all(found):
        return
    rows, count = fits.Rows.joined([*found[0], *found[1]]), sum(part.x.shape[1] for part in found[0])
    del found
    fitting, judging = rows.parted(count)
    with blas_threads(task.full.shape[1]):
        kind = PairMoments if count >= width or task.needs_second_moment else WidePairMoments
        moments = kind.of(fitting.x, fitting.y, shifted=task.shifted)
        problem = fits.FitProblem(moments, task.channels(fitting), task.full, task.sliced, task.shifted)
        before = judging.error((task.sliced, np.zeros(task.sliced.shape[::2])))
        chosen = fits.best(task.method, problem, rows, count, dampings=evidence.dampings, stored=task.on_grid)
    if kept := chosen.error < before:
        task.write(chosen.fitted, chosen.moments)
    yield Fit(view.name, before, chosen.error, kept, task.groups)


# --- layers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeptMask:
    """What remains of a layer's weight.

    Attributes:
        groups: bool[groups].
        inputs: bool[groups, D].
        outputs: bool[groups, O].
    """

    groups: Array
    inputs: Array
    outputs: Array

    @classmethod
    def of(cls, removal: Removal, view: NodeView, layer: LinearLayer) -> Self:
        """What `removal` leaves of the weight."""
        shape, axes = weight_axes(view, layer.weight)
        mask = removal.mask(shape, axes)
        whole: Array = layer.as_matrix(np.broadcast_to(np.array(True) if mask is None else mask, shape))
        return cls(*(np.asarray(whole.any(axis=axes)) for axes in ((1, 2), 2, 1)))

    def equals(self, other: KeptMask) -> bool:
        """Whether another mask keeps the same."""
        mine, others = ((m.groups, m.inputs, m.outputs) for m in (self, other))
        return all(map(np.array_equal, mine, others))

    def of_remaining(self) -> KeptMask:
        """The mask of the groups that remain, none of which is missing."""
        return KeptMask(*(mask[self.groups] for mask in (self.groups, self.inputs, self.outputs)))


def lost_groups(removal: Removal, tensor: str) -> tuple[str, ...]:
    """Name the groups whose units a tensor lost."""
    groups, labels = removal.groups, removal.groups.tracing.axes.get(tensor, ())
    removed = [line[removal.removed(line)] for line in labels]
    owners = {int(i) for part in removed for i in groups.group_of[groups.classes.of[part]]}
    return tuple(groups.groups[i].name for i in sorted(owners) if i >= 0)


def _taken(values: Array, groups: Array, which: Array) -> Array:
    """The positions `which` [groups, last axis] of `values`, of the groups that remain."""
    if groups.all() and which.all():
        return values
    return np.stack([values[g][..., which[g]] for g in np.flatnonzero(groups)])


@dataclass(frozen=True, eq=False)
class LayerTarget(MatrixTarget):
    """A layer whose inputs became fewer, or others.

    Attributes:
        old: the layer in the original.
        new: the layer in the pruned model.
        downstream: what becomes of its output, if that matters.
    """

    old: LinearLayer
    new: LinearLayer
    downstream: Downstream | None

    @property
    def tapped_tensors(self) -> tuple[list[str], list[str]]:
        """The tensors of the original and of the pruned model that a fit looks at."""
        behind = self.downstream
        residual, activation_input = (behind.residual, behind.activation_input) if behind else ("", "")
        olds, news = (self.old.input, residual, activation_input), (self.new.input, residual)
        return [name for name in olds if name], [name for name in news if name]

    def task(self, removal: Removal, parameters: Parameters, method: fits.Method) -> LinearFit:
        """Weight and bias."""
        sliced = self.new.as_matrix(self.present(parameters)).astype(np.float64) * self.new.scale
        bias = parameters.bias(self.new, sliced.shape[0] * sliced.shape[2])
        return LinearFit(**self.parts(removal, parameters, method), sliced=sliced, shifted=bias is not None)

    def present(self, parameters: Parameters) -> Array:
        """The weight in the pruned model, as the layer sees it."""
        return parameters.value(self.node.input[self.new.weight])

    def original(self, removal: Removal) -> Array:
        """The weight in the original."""
        stored = removal.groups.tracing.stored_value(self.view.node.input[self.old.weight])
        assert stored is not None
        return stored

    def parts(self, removal: Removal, parameters: Parameters, method: fits.Method) -> dict[str, Any]:
        """What a fit holds beside the present weight and whether it may be shifted."""
        old, kept = self.old, KeptMask.of(removal, self.view, self.old)
        original = old.as_matrix(self.original(removal).astype(np.float32)) * np.float32(old.scale)
        factor = _taken(original, kept.groups, kept.outputs)
        return {
            "method": method,
            "parameters": parameters,
            "full": factor.astype(np.float64),
            "groups": lost_groups(removal, old.input),
            "target": self,
            "removal": removal,
            "kept": kept,
            "factor": factor,
        }

    def aim(
        self, removal: Removal, y: Array, olds: Sequence[Array], news: Sequence[Array], places: Array
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """The outputs to aim at, from those of the original, and how far others may lie from them."""
        downstream = self.downstream
        if downstream is None:
            return y, None

        def taken(values: Array) -> Array:
            return self.new.output_rows(values, places, y.shape[2])

        if downstream.residual and news:
            y = y + downstream.lost(removal, olds[1], news[1], taken)
        if not downstream.activation_input:
            return y, None
        return y, downstream.dead_zone(removal, olds[-1], taken)


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearFit(LayerFit):
    """The weight and bias of a layer.

    Attributes:
        target: the layer.
        removal: what goes of the traced original.
        kept: what remains of the weight.
        factor: the weight of the original for the outputs that remain, float32[groups, D of the original, O].
    """

    target: LayerTarget
    removal: Removal
    kept: KeptMask
    factor: Array

    def rows(self, olds: Sequence[Array], news: Sequence[Array], most: int, rng: np.random.Generator) -> fits.Rows:
        """Rows at drawn positions, with the outputs that the original gives there."""
        old, new = self.target.old, self.target.new
        places = old.sample_positions(olds[0], most, rng)
        x_old = old.input_rows(olds[0], places)[self.kept.groups]
        left = self.kept.of_remaining()
        x = new.input_rows(news[0], places) if news else _taken(x_old, left.groups, left.inputs)
        y, dead_zone = self.target.aim(self.removal, x_old @ self.factor, olds, news, places)
        return fits.Rows.around(x, y, dead_zone, x_old if self.method.merges else None)

    def channels(self, rows: fits.Rows) -> PairMoments | None:
        """Moments of the pruned layer's channels and the original's."""
        if rows.whole is None:
            return None
        pruned, original = self.target.new.channels(rows.x), self.target.old.channels(rows.whole)
        return PairMoments.of(pruned, original, shifted=self.shifted)

    def write(self, fitted: fits.Fitted, moments: PairMoments | None = None) -> None:
        """Store weight and bias in the layout of the node."""
        new, name = self.target.new, self.target.node.input[self.target.new.weight]
        shape = self.parameters.value(name).shape
        self.parameters.store(name, new.tensor(fitted[0] / new.scale, shape))
        self.parameters.shift(new, fitted[1].reshape(-1))
