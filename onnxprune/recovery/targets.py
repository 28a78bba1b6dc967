"""One layer, or norm, fitted to the outputs that the original gave, and judged on runs that the fit has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import onnx

from onnxprune.layers import LinearLayer, Parameters
from onnxprune.layers.parameters import NORMS
from onnxprune.recovery import fits
from onnxprune.recovery.downstream import Downstream
from onnxprune.rewriting import Removal
from onnxprune.runtime import resumed
from onnxprune.tracing import Site
from onnxprune.typing import Array

# Rows per layer that a fit looks at: enough for D x D moments of some thousands; more measured no better.
ROWS = 16384
# The values of the taps of a run, in the original and in the pruned model (none where only the original is run).
Pair = tuple[Sequence[Array], Sequence[Array]]


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


@dataclass(frozen=True, eq=False)
class LayerFit:
    """Parameters that are to be fitted.

    Attributes:
        method: the recovery method.
        sliced: the parameters as they were cut, [groups, D, O].
        full: those before, for the outputs that remain.
        shifted: whether a bias may be fitted, too.
        rows: at most so many rows of a run, from the values of the taps.
        channels: moments of channels, where the method asks for them.
        write: puts fitted parameters into the pruned model.
        groups: names of the groups whose units were inputs.
    """

    method: fits.Method
    sliced: Array
    full: Array
    shifted: bool
    rows: Callable[[Sequence[Array], Sequence[Array], int, np.random.Generator], fits.Rows]
    channels: Callable[[fits.Rows], fits.PairMoments | None]
    write: Callable[[fits.Fitted], None]
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Target:
    """A node behind a cut with parameters that can be fitted.

    Attributes:
        site: where it stands in the original.
        node: its form in the pruned model.
    """

    site: Site
    node: onnx.NodeProto

    @property
    def taps(self) -> tuple[list[str], list[str]]:
        """The tensors of the original and of the pruned model that a fit looks at."""
        raise NotImplementedError

    def task(self, cut: Removal, parameters: Parameters, method: fits.Method) -> LayerFit:
        """What is to be fitted, with the present parameters."""
        raise NotImplementedError


def fit_layer(
    site: Site, task: LayerFit, pairs: Iterable[Sequence[Pair]], train: int, dampings: Sequence[float]
) -> Iterator[Fit]:
    """Fit to the first `train` runs, and keep the fit if it does better on the others.

    Nothing is done unless some run of either kind visits the layer.
    """
    rng = np.random.default_rng(0)
    found: tuple[list[fits.Rows], list[fits.Rows]] = ([], [])
    for number, visits in enumerate(pairs):
        most = max(1, ROWS // (train * max(1, len(visits))))
        found[number >= train].extend(task.rows(old, new, most, rng) for old, new in visits)
    if not all(found):
        return
    fitting, judging = map(fits.Rows.joined, found)
    del found
    moments = fits.PairMoments.of(fitting.x, fitting.y, shifted=task.shifted)
    evidence = fits.FitProblem(moments, task.channels(fitting), task.full, task.sliced, task.shifted)
    before = judging.error((task.sliced, np.zeros(task.sliced.shape[::2])))
    fitted, after = fits.best(task.method, evidence, fitting, judging, dampings)
    if kept := after < before:
        task.write(fitted)
    yield Fit(site.name, before, after, kept, task.groups)


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
    def of(cls, cut: Removal, site: Site, layer: LinearLayer) -> Self:
        """What `cut` leaves of the weight."""
        shape = site.shape(layer.weight)
        mask = cut.mask(shape, site.labels(layer.weight))
        whole: Array = layer.matrix(np.broadcast_to(np.array(True) if mask is None else mask, shape))
        return cls(*(np.asarray(whole.any(axis=axes)) for axes in ((1, 2), 2, 1)))


def _lost(cut: Removal, tensor: str) -> tuple[str, ...]:
    """The groups whose units a tensor lost."""
    groups, labels = cut.groups, cut.groups.tracing.axes.get(tensor, ())
    gone = [line[cut.removed(line)] for line in labels]
    owners = {int(i) for part in gone for i in groups.group_of[groups.classes.of[part]]}
    return tuple(groups.groups[i].name for i in sorted(owners) if i >= 0)


def _taken(values: Array, groups: Array, which: Array) -> Array:
    """The positions `which` [groups, last axis] of `values`, of the groups that remain."""
    if groups.all() and which.all():
        return values
    return np.stack([values[g][..., which[g]] for g in np.flatnonzero(groups)])


@dataclass(frozen=True, eq=False)
class LayerTarget(Target):
    """A layer whose inputs became fewer, or others.

    Attributes:
        old: the layer in the original.
        new: the layer in the pruned model.
        onward: what becomes of its output, if that matters.
    """

    old: LinearLayer
    new: LinearLayer
    onward: Downstream | None

    @property
    def taps(self) -> tuple[list[str], list[str]]:
        """The tensors of the original and of the pruned model that a fit looks at."""
        other, entering = (self.onward.other, self.onward.entering) if self.onward else ("", "")
        return [n for n in (self.old.input, other, entering) if n], [n for n in (self.new.input, other) if n]

    def task(self, cut: Removal, parameters: Parameters, method: fits.Method) -> LayerFit:
        """Weight and bias."""
        old, new, name = self.old, self.new, self.node.input[self.new.weight]
        now = parameters.value(name)
        sliced = new.matrix(now).astype(np.float64) * new.scale
        stored = cut.groups.tracing.stored_value(self.site.node.input[old.weight])
        assert stored is not None
        whole = stored.astype(np.float32)
        kept = KeptMask.of(cut, self.site, old)
        full = _taken(old.matrix(whole) * np.float32(old.scale), kept.groups, kept.outputs)

        def rows(olds: Sequence[Array], news: Sequence[Array], most: int, rng: np.random.Generator) -> fits.Rows:
            places = old.places(olds[0], most, rng)
            x_old = old.rows(olds[0], places)[kept.groups]
            x = new.rows(news[0], places) if news else _taken(x_old, kept.groups[kept.groups], kept.inputs[kept.groups])
            y, room = self._aim(cut, x_old @ full, olds, news, places)
            return fits.Rows(x, y, room, x_old if method.merges else None)

        def channels(found: fits.Rows) -> fits.PairMoments | None:
            if found.whole is None:
                return None
            return fits.PairMoments.of(new.channels(found.x), old.channels(found.whole), shifted=shifted)

        def write(fitted: fits.Fitted) -> None:
            parameters.store(name, new.tensor(fitted[0] / new.scale, now.shape))
            parameters.shift(new, fitted[1].reshape(-1))

        shifted = parameters.bias(new, sliced.shape[0] * sliced.shape[2]) is not None
        groups = _lost(cut, old.input)
        return LayerFit(method, sliced, full.astype(np.float64), shifted, rows, channels, write, groups)

    def _aim(
        self, cut: Removal, y: Array, olds: Sequence[Array], news: Sequence[Array], places: Array
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """The outputs to aim at, from those of the original, and how far others may lie from them."""
        onward = self.onward
        if onward is None:
            return y, None
        if onward.other and news:
            y = y + self.new.made(onward.lost(cut, olds[1], news[1]), places, y.shape[2])
        if not onward.entering:
            return y, None
        low, high = (self.new.made(end, places, y.shape[2]) for end in onward.room(cut, olds[-1]))
        return y, (low, high)


# --- norms -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class NormTarget(Target):
    """A norm: every channel is a layer of one input, which gets back the deviation and mean that it had."""

    @property
    def taps(self) -> tuple[list[str], list[str]]:
        """The output of the original's norm; the input of the pruned one, which runs when those before are fitted."""
        return [self.site.node.output[0]], [self.node.input[0]]

    def task(self, cut: Removal, parameters: Parameters, method: fits.Method) -> LayerFit:
        """Scale and bias, as factors of and additions to what they are."""
        own, shape = parameters.scale_and_bias(self.node), self.site.out_shape()
        assert own is not None
        axis = NORMS[self.site.node.op_type].axis % len(shape)
        kept = cut.kept(cut.groups.tracing.axes[self.site.node.output[0]][axis], axis, shape[axis])

        def rows(olds: Sequence[Array], news: Sequence[Array], most: int, rng: np.random.Generator) -> fits.Rows:
            entry, made = self.node.input[0], self.node.output[0]
            ((output,),) = resumed(parameters.model, [{entry: news[0]}], [made])
            places = rng.permutation(olds[0].size // len(kept))[:most]
            return fits.Rows(_by_channel(output, axis)[:, places], _by_channel(olds[0], axis)[kept][:, places])

        def write(fitted: fits.Fitted) -> None:
            scale, shift = fitted[0].reshape(-1), fitted[1].reshape(-1)
            parameters.store(own[0], parameters.value(own[0]) * scale)
            if own[1]:
                parameters.store(own[1], parameters.value(own[1]) * scale + shift)

        ones = np.ones((int(kept.sum()), 1, 1))
        return LayerFit(method, ones, ones, bool(own[1]), rows, lambda _: None, write)


def _by_channel(value: Array, axis: int) -> Array:
    """[channels, positions, 1]."""
    return np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1, 1).astype(np.float32)
