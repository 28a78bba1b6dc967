"""Repair without training: every layer behind a cut is re-fitted to the outputs that the original gave.

The original and the pruned model take the calibration inputs through their graphs side by side. Layers are fitted in
graph order, each on the inputs that the layers in front of it, already fitted, give. A fit is kept only if it lowers
the error on samples that it has not seen. The fits themselves are in `refit.py`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import onnx

from onnxprune import interface, refit
from onnxprune.agreement import Agreement, agreement
from onnxprune.cut import Cut
from onnxprune.errors import UsageError
from onnxprune.labels import Array
from onnxprune.layers import Layer, layer_of
from onnxprune.model import Model
from onnxprune.parameters import NORMS, Parameters
from onnxprune.rules.site import Site
from onnxprune.tapped import MEMORY, Walk

logger = logging.getLogger(__name__)

# Rows per layer that enter the moments: enough for D x D moments of some thousands.
ROWS = 16384
# Shares of the runs, at even steps, that judge the fits, and that no fit sees at all.
JUDGES, HELD_OUT = 0.2, 0.1
# Widest layer (D of its weight) that is fitted: the solve is cubic in it.
WIDEST = 6144
# Input name -> array, of one run.
Runs = Mapping[str, Array]
METHODS = ("none", *refit.FITS, "batchnorm")


@dataclass(frozen=True)
class Options:
    """How to repair.

    Attributes:
        method: one of `METHODS`.
        sequential: fit each layer on what the pruned model gives it by then; otherwise on what remains of the
            original's input (one pass over the original alone, cheaper).
        dampings: ridge weights that are tried, relative to the mean of a moment's diagonal.
        memory: bytes of activations that are kept in memory; what is more lies in temporary files.
    """

    method: str = "least-squares"
    sequential: bool = True
    dampings: tuple[float, ...] = refit.DAMPINGS
    memory: int = MEMORY

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"no way to recover is called {self.method!r}", hint=f"known: {', '.join(METHODS)}")


@dataclass(frozen=True)
class Fit:
    """What became of one layer.

    Attributes:
        node: name of the layer.
        before: relative squared error of its outputs on held-out samples, sliced only.
        after: the same with the fitted weights.
        kept: whether the fit was kept.
    """

    node: str
    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class Repair:
    """What the repair did.

    Attributes:
        fits: every layer behind a cut that could be fitted.
        before: agreement with the original on held-out samples, as the model was cut.
        after: the same after the repair.
        kept: whether the repaired model is the better one, and so was kept.
        method: how it was done.
    """

    fits: tuple[Fit, ...]
    before: Agreement
    after: Agreement
    kept: bool
    method: str = "least-squares"


@dataclass(frozen=True)
class _Target:
    """A layer or a norm behind a cut, in the original and in the pruned graph."""

    site: Site
    node: onnx.NodeProto
    old: Layer | None
    new: Layer | None

    @property
    def taps(self) -> tuple[str, str]:
        """The tensors of the original and of the pruned model that a fit looks at."""
        if self.old is None or self.new is None:
            return self.site.node.output[0], self.node.output[0]
        return self.old.input, self.new.input


def repair(
    cut: Cut,
    pruned: Model,
    runs: Sequence[Runs],
    options: Options | None = None,
    *,
    progress: Callable[[str], None] = logger.info,
) -> tuple[Model, Repair]:
    """Re-fit the layers of `pruned` behind what was cut.

    Time is that of two runs of every sample through either model, and of the fits; memory is `options.memory` for
    activations, and the moments of one layer (8 D^2 bytes).

    Args:
        cut: what was removed, with the traced original.
        pruned: the smaller model.
        runs: calibration inputs, at least two; some of them judge what is kept.
        options: how to repair.
        progress: is told about every layer.

    Returns:
        The repaired model (the pruned one if that is no worse), and what was done.

    Raises:
        UsageError: there are fewer than two runs.
    """
    options = options or Options()
    if len(runs) < 2:
        raise UsageError("calibration data: one batch is not enough to fit and to judge", hint="give more samples")
    original = cut.groups.model
    runs, held = _split(runs, HELD_OUT)
    fitting, judging = _split(runs, JUDGES)
    train, runs = len(fitting), [*fitting, *judging]
    parameters = Parameters(pruned)
    targets = list(_targets(cut, parameters, norms=options.method == "batchnorm"))
    fits = []
    names, given = [t.taps for t in targets], [interface.feeds(cut, feeds) for feeds in runs]
    with (
        Walk(original, runs, [n for n, _ in names], memory=options.memory // 2) as one,
        Walk(parameters.model, given, [n for _, n in names], memory=options.memory // 2) as two,
    ):
        for number, (target, (old, new)) in enumerate(zip(targets, names, strict=True), 1):
            progress(f"repairing layer {number} of {len(targets)}")
            values = (run[old] for run in one.take([old]))
            follows = options.sequential or target.old is None
            others = (run[new] for run in two.take([new])) if follows else itertools.repeat(None)
            pairs = zip(values, others, strict=False)
            fit = _fit_norm if target.old is None else _fit_layer
            fits.append(fit(cut, parameters, target, pairs, train, options))
    model = parameters.finished()
    before, after = (agreement(cut, m, held) for m in (pruned, model))
    kept = after.error < before.error
    return model if kept else pruned, Repair(tuple(fits), before, after, kept, options.method)


def _split(runs: Sequence[Runs], share: float) -> tuple[Sequence[Runs], Sequence[Runs]]:
    """The runs without some at even steps, and these; one run serves as both."""
    if len(runs) == 1:
        return runs, runs
    count = max(1, round(len(runs) * share))
    held = {(2 * i + 1) * len(runs) // (2 * count) for i in range(count)}
    return [r for i, r in enumerate(runs) if i not in held], [r for i, r in enumerate(runs) if i in held]


# --- what is fitted --------------------------------------------------------------------------------------


def _targets(cut: Cut, parameters: Parameters, *, norms: bool) -> Iterator[_Target]:
    """Layers (or norms) behind a cut, in graph order, with parameters of their own."""
    made = {n.output[0]: n for n in parameters.proto.graph.node if n.output}
    behind = cut.behind
    for site, _ in cut.groups.tracing.sites:
        node = made.get(site.node.output[0]) if site.node.output else None
        if node is None or node.op_type != site.node.op_type:
            continue
        if norms:
            if site.node.input[0] in behind and parameters.scale_and_bias(node):
                yield _Target(site, node, None, None)
            continue
        old, new = layer_of(site), layer_of(site, node)
        if old and new and old.input in behind and parameters.is_own(node.input[new.weight]):
            whole = old.matrix(np.broadcast_to(False, site.shape(old.weight)))
            if whole.shape[1] <= WIDEST:
                yield _Target(site, node, old, new)


# --- one layer -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kept:
    """What remains of a layer's weight: bool[groups], bool[groups, D] and bool[groups, O]."""

    groups: Array
    inputs: Array
    outputs: Array

    @classmethod
    def of(cls, cut: Cut, site: Site, layer: Layer) -> Self:
        """What `cut` leaves of the weight."""
        shape = site.shape(layer.weight)
        mask = cut.mask(shape, site.labels(layer.weight))
        whole: Array = layer.matrix(np.broadcast_to(np.array(True) if mask is None else mask, shape))
        return cls(*(np.asarray(whole.any(axis=axes)) for axes in ((1, 2), 2, 1)))


def _taken(values: Array, groups: Array, which: Array) -> Array:
    """The positions `which` [groups, last axis] of `values`, of the groups that remain."""
    if groups.all() and which.all():
        return values
    return np.stack([values[g][..., which[g]] for g in np.flatnonzero(groups)])


def _fit_layer(
    cut: Cut,
    parameters: Parameters,
    target: _Target,
    pairs: Iterator[tuple[Array, Any]],
    train: int,
    options: Options,
) -> Fit:
    site, old, new = target.site, target.old, target.new
    assert old is not None and new is not None
    kept, rng = _Kept.of(cut, site, old), np.random.default_rng(0)
    name = target.node.input[new.weight]
    now = parameters.value(name)
    sliced = new.matrix(now).astype(np.float64) * new.scale
    weight = old.matrix(cut.groups.model.array(site.node.input[old.weight]).astype(np.float32)) * np.float32(old.scale)
    full = _taken(weight, kept.groups, kept.outputs)
    moments = refit.Moments.zero(len(sliced), *sliced.shape[1:])
    channels: refit.Moments | None = None
    held: list[tuple[Array, Array]] = []
    for number, (x, x_pruned) in enumerate(pairs):
        places = old.places(x, max(1, ROWS // train), rng)
        before = _rows(old, x, places)[kept.groups]
        y = before @ full
        rows = (
            _rows(new, x_pruned, places)
            if options.sequential
            else _taken(before, np.ones(len(before), bool), kept.inputs[kept.groups])
        )
        if number >= train:
            held.append((rows, y))
            continue
        moments.add(rows, y)
        if options.method == "merge":
            channels = channels or refit.Moments.zero(
                len(rows), new.channels(rows).shape[2], old.channels(before).shape[2]
            )
            channels.add(new.channels(rows), old.channels(before))
    shifted = parameters.bias(new, sliced.shape[0] * sliced.shape[2]) is not None
    evidence = refit.Evidence(moments, channels, full.astype(np.float64), sliced, shifted, 0.0)
    fitted, after = _best(evidence, held, options)
    before_error = _error(held, sliced, np.zeros(sliced.shape[::2]))
    if kept_fit := after < before_error:
        parameters.store(name, new.tensor(fitted[0] / new.scale, now.shape))
        parameters.shift(new, fitted[1].reshape(-1))
    return Fit(site.name, before_error, after, kept_fit)


def _rows(layer: Layer, x: Array, places: Array) -> Array:
    return layer.rows(x.astype(np.float32, copy=False), places)


def _best(
    evidence: refit.Evidence, held: Sequence[tuple[Array, Array]], options: Options
) -> tuple[refit.Fitted, float]:
    """The fit with the ridge weight that does best on held-out rows, and its error."""
    fit = refit.FITS[options.method]
    dampings = options.dampings if options.method in refit.RIDGE else (0.0,)
    errors = [_error(held, *fit(replace(evidence, damping=damping))) for damping in dampings]
    best = int(np.argmin(errors))
    for x, y in held:  # the choice is made: what judged it may serve, too
        evidence.moments.add(x, y)
    return fit(replace(evidence, damping=dampings[best])), errors[best]


def _error(held: Sequence[tuple[Array, Array]], weight: Array, shift: Array) -> float:
    """Relative squared error of the outputs, without the part of the bias that both have."""
    wrong = sum(float(np.square(y - (x @ weight + shift[:, None])).sum()) for x, y in held)
    mean = np.mean([y.mean(axis=1, keepdims=True) for _, y in held], axis=0)
    return wrong / max(sum(float(np.square(y - mean).sum()) for _, y in held), 1e-30)


# --- one norm --------------------------------------------------------------------------------------------


def _fit_norm(
    cut: Cut,
    parameters: Parameters,
    target: _Target,
    pairs: Iterator[tuple[Array, Any]],
    train: int,
    options: Options,
) -> Fit:
    """Scale and shift every channel of a norm's output to the deviation and mean that it had."""
    site = target.site
    axis = NORMS[site.node.op_type][2] % len(site.out_shape())
    kept = cut.kept(cut.groups.tracing.axes[site.node.output[0]][axis], axis, site.out_shape()[axis])
    sums, held = _Deviations(), []
    for number, (y, y_pruned) in enumerate(pairs):
        wanted, found = _by_channel(y, axis)[:, kept], _by_channel(y_pruned, axis)
        if number < train:
            sums.add(wanted, found)
        else:
            held.append((found[None], wanted[None]))
    scale, shift = sums.match()
    own = parameters.scale_and_bias(target.node)
    assert own is not None
    if not own[1]:
        shift = np.zeros_like(shift)
    before = _error(held, np.eye(len(scale))[None], np.zeros((1, len(scale))))
    after = _error(held, np.diag(scale)[None], shift[None])
    if kept_fit := after < before:
        parameters.store(own[0], parameters.value(own[0]) * scale)
        if own[1]:
            parameters.store(own[1], parameters.value(own[1]) * scale + shift)
    return Fit(site.name, before, after, kept_fit)


def _by_channel(value: Array, axis: int) -> Array:
    """[positions, channels]."""
    return np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis]).astype(np.float64)


class _Deviations:
    """Sums and sums of squares of two sets of channels."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: list[Array] | None = None

    def add(self, wanted: Array, found: Array) -> None:
        new = [f(v).sum(axis=0) for v in (wanted, found) for f in (np.asarray, np.square)]
        self._count += len(wanted)
        self._sums = new if self._sums is None else [a + b for a, b in zip(self._sums, new, strict=True)]

    def match(self) -> tuple[Array, Array]:
        """Scale and shift per channel that take `found` to the deviation and mean of `wanted`."""
        assert self._sums is not None
        wanted, wanted_squares, found, found_squares = (s / self._count for s in self._sums)
        deviation = np.sqrt(np.maximum(wanted_squares - wanted**2, 0)), np.sqrt(np.maximum(found_squares - found**2, 0))
        floor = 1e-6 * deviation[0].max() + 1e-30
        scale = (deviation[0] + floor) / (deviation[1] + floor)
        return scale, wanted - scale * found
