"""Widths and bits chosen together, so that a file is no larger, or a run no longer, than a budget.

A file of a given size holds a wide model of 4 bits, or a narrower one of 8. The shares of the parameters at which all
layers could have 8 bits, and at which all would need 4, are the ends; at these and between them the model is cut and
repaired (`prune`), and as many layers as it takes get 4 bits, those first that lose least for every byte that they
save. Numbers of every such model are fitted to the outputs of the original (`recovery/requantize.py`), which also says
on held-out samples which of them stays.

With a budget on time, the layers that compute in whole numbers are chosen first (`layer_forms.py`); for every choice,
`prune` removes units until a run of the quantised model holds the budget: what it expects are the times of kernels of
whole numbers, and what it measures is the quantised model.

Every width is chosen by the allocation of `prune`, so a share is all that is left to search, and bits are a knapsack
that the ratio of loss to bytes fills.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial
from glob import escape
from pathlib import Path

import numpy as np

from onnxprune.allocation import KINDS, Options
from onnxprune.allocation.amount import read_amount
from onnxprune.criteria import DamageTrial, impacts
from onnxprune.errors import GoalMissed
from onnxprune.layers import Grid, LinearLayer, layer_weight, linear_layer
from onnxprune.model import Model, file_size
from onnxprune.pipelines import prune
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.layer_forms import layers_in_float, saved_seconds
from onnxprune.pipelines.quantize import named_nodes, quantize_model
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.quantized import Quantized, TriedShare
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.progress import Progress
from onnxprune.recovery import held_out
from onnxprune.rewriting import Removal
from onnxprune.runtime import Agreement, quantizer
from onnxprune.runtime.bench import Place
from onnxprune.sparsity import Speed, measured_speed
from onnxprune.tracing import Groups, NodeView
from onnxprune.tracing import trace as trace_model
from onnxprune.typing import Array

# Shares that are tried, and how much less than the largest one that could hold the first one is: a knapsack is not
# filled to the last byte.
SHARES, ROOM = 4, 0.02
# Of 4 bits: the largest number, and bytes of a number less than with 8; the largest number of these.
LARGEST, SAVED, LARGEST_WHOLE = 7, 0.5, 127
# Times that a result is measured before it counts as slower than it may be: machines do other things, too.
MEASURED = 2
# Runs that say what 4 bits do to a layer.
WEIGHED = 2


def quantize_within(
    model: Model,
    options: QuantizeOptions,
    inputs: RunInputs | None = None,
    *,
    place: Place | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Quantise a model, and cut it where a budget on its size, its multiply-accumulates or its time asks for it.

    Args:
        model: a float model.
        options: how, with the budgets.
        inputs: calibration inputs.
        place: where the models are timed; they are not where None, unless there is a budget on time.
        progress: is told about every stage.

    Returns:
        The quantised model that is best on held-out samples, and what was done and tried.

    Raises:
        UsageError: the form needs inputs, or a glob matches nothing.
        GoalMissed: no model that was tried is within the budgets, or the best of them is not good enough.
        RunError: the quantiser refuses the model.
    """
    if not options.is_budgeted:
        return quantize_model(model, options, inputs, place=place, progress=progress)
    inputs, clock = inputs or RunInputs(), Clock(progress)
    options = replace(options, form="qdq").settled(data=inputs.data is not None)
    timed = None if options.latency is None else place or Place()
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        work = _Within(named_nodes(model, narrow=True), options, inputs, clock, Path(folder) / "scores", place=timed)
        made = [found for trial in work.trials() if (found := work.at(*trial)) is not None]
    if not made:
        raise GoalMissed("no model that was tried is within the budgets", hint="allow a larger file, or more time")
    best, _ = max(made, key=lambda pair: work.worth(pair[0]))
    work.check(best)
    if place is not None and best.speed is None:
        with clock("timing"):
            best = replace(best, speed=measured_speed(model, best.model, place))
    sizes = (file_size(model), best.sizes[1])
    return replace(best, sizes=sizes, tried=tuple(tried for _, tried in made), seconds=clock.seconds)


@dataclass(frozen=True, eq=False)
class _Within:
    """What is worked on.

    Attributes:
        model: the float model, every node of which has a name.
        options: how, with the budgets.
        inputs: what it is run on.
        clock: times the stages.
        scores: the file that keeps the scores of units from share to share.
        place: where models are timed; None without a budget on time.
    """

    model: Model
    options: QuantizeOptions
    inputs: RunInputs
    clock: Clock
    scores: Path
    place: Place | None = None

    @cached_property
    def limit(self) -> float:
        """The most bytes of a file."""
        if self.options.size is None:
            return float(file_size(self.model))
        return read_amount("size", KINDS["size"].unit, self.options.size).limit(file_size(self.model))

    @cached_property
    def groups(self) -> Groups:
        """The traced float model."""
        return trace_model(self.model, sizes=self.inputs.sizes)

    @property
    def _given(self) -> QuantizeOptions:
        return replace(self.options, size=None, macs=None, latency=None, constraint=None, evaluation=None)

    def trials(self) -> Sequence[tuple[float, tuple[str, ...]]]:
        """What to try: a share of the parameters, and the layers that stay in float.

        Raises:
            GoalMissed: the budget does not even hold what is no weight of a layer.
        """
        share, *wider = self.shares()
        if self.options.latency is None:
            return [(one, ()) for one in (share, *wider)]
        with self.clock("weighing"):
            saved = saved_seconds(self.groups, self._timed_as(()), self.clock.progress)
        return [(share, floats) for floats in layers_in_float(saved, self._lost(self.groups, LARGEST_WHOLE))]

    def _timed_as(self, floats: Collection[str]) -> Place:
        """Where a model is timed: as it will be written, with some layers in float; all of them, and it is as it is."""
        assert self.place is not None
        if len(floats) == len(_layers(self.groups)):
            return self.place
        return replace(self.place, deployed=partial(self._nearest, floats))

    def _nearest(self, floats: Collection[str], model: Model) -> Model:
        """A model with the nearest numbers, quickly: kernels do not depend on them."""
        given = {name: getattr(self.options, name) for name in ("weights", "activations", "per_channel")}
        runs = held_out(self.inputs.read(model, batch=32))[0][:1]
        return quantizer.quantized_static(model, runs, [*self._kept, *floats], operators=False, **given)

    @property
    def _kept(self) -> list[str]:
        return [name for name in _layers(self.groups) if any(fnmatchcase(name, glob) for glob in self.options.keep)]

    def shares(self) -> Sequence[float]:
        """Shares of the parameters to try, the smallest first.

        Raises:
            GoalMissed: the budget does not even hold what is no weight of a layer.
        """
        if self.options.size is None:
            return [1.0]
        whole = quantize_model(self.model, replace(self._given, fit=False), self.inputs)
        weights = sum(elements for elements in _elements(self.groups).values())
        rest = whole.sizes[1] - weights
        if self.limit <= rest:
            raise GoalMissed(
                f"{self.limit:.0f} bytes hold no weights: all else takes {rest}", hint="allow a larger file"
            )
        narrow, wide = ((self.limit - rest) / (weights * each) for each in (1.0, 1.0 - SAVED))
        fits = wide > 1 - 2 * ROOM and self._all_narrow().sizes[1] <= self.limit
        narrow, wide = min(narrow, 1.0), 1.0 if fits else wide * (1 - ROOM)
        return [narrow] if narrow >= wide else [float(share) for share in np.geomspace(narrow, wide, SHARES)]

    def _all_narrow(self) -> Quantized:
        """The whole model with 4 bits in all layers."""
        return quantize_model(self.model, replace(self._given, fit=False, narrow=("*",)), self.inputs)

    def at(self, share: float, floats: Collection[str]) -> tuple[Quantized, TriedShare] | None:
        """The best model with these widths and forms; None if it is not within the budgets.

        Args:
            share: of the parameters that may be left.
            floats: the layers that stay in float.
        """
        cut = self._cut(share, floats)
        if cut is None:
            return None
        whole = len(floats) == len(_layers(self.groups))
        done = self._in_float(cut) if whole else self._narrowed_to_size(cut, floats)
        judged = done.judged
        if done.sizes[1] > self.limit or judged is None:
            return None
        if self.place is not None:
            with self.clock("timing"):
                speeds = (measured_speed(self.model, done.model, self.place) for _ in range(MEASURED))
                done = replace(done, speed=next(filter(self._is_quick, speeds), None))
            if done.speed is None:
                return None
        values = None if self.options.evaluation is None else (self._value, self.options.evaluation.of(done.model))
        done = replace(done, values=values, share=cut.share)
        tried = TriedShare(
            cut.share,
            len(done.narrow),
            floats=len(done.floats),
            bytes=done.sizes[1],
            outputs=judged,
            value=None if values is None else values[1],
            speed=done.speed,
        )
        return done, tried

    def _narrowed_to_size(self, cut: _Cut, floats: Collection[str]) -> Quantized:
        """A model with as many layers of 4 bits as it takes, fitted to the outputs of the original."""
        given = replace(self._given, keep=(*self.options.keep, *map(escape, floats)))
        narrow = list[str]()
        if self.options.size is not None:
            order = self._order(cut.model)
            left = quantize_model(cut.model, replace(given, fit=False), self.inputs).sizes[1] - self.limit
            for name, saved in order.items():
                if left <= 0:
                    break
                narrow.append(name)
                left -= saved
        while True:
            with self.clock("quantising"):
                done = quantize_model(
                    cut.model,
                    replace(given, narrow=tuple(map(escape, narrow))),
                    self.inputs,
                    cut=cut.removal,
                    progress=self.clock.progress,
                )
            if self.options.size is None or done.sizes[1] <= self.limit or len(narrow) == len(order):
                return replace(done, narrow=tuple(narrow))
            narrow.append(next(name for name in order if name not in narrow))

    def _in_float(self, cut: _Cut) -> Quantized:
        """A model that holds the budget by its widths alone."""
        why = dict.fromkeys(_layers(self.groups), "within the time, floats are nearer to the outputs")
        sizes = file_size(self.model), file_size(cut.model)
        return Quantized(cut.model, "qdq", layers=(), floats=why, sizes=sizes, judged=cut.judged)

    def _is_quick(self, speed: Speed) -> bool:
        """Whether a run takes no longer than the budget, but for what two measurements differ by."""
        assert self.options.latency is not None
        kind = KINDS["latency"]
        limit = read_amount(kind.name, kind.unit, self.options.latency).limit(speed.before)
        return speed.ratio.value * speed.before <= limit * (1 + kind.noise)

    @cached_property
    def _value(self) -> float:
        assert self.options.evaluation is not None
        return self.options.evaluation.of(self.model)

    def worth(self, done: Quantized) -> float:
        """How good a model is: the user's measure, or how near its outputs are."""
        assert done.judged is not None
        return done.values[1] if done.values is not None else -done.judged.error

    def check(self, done: Quantized) -> None:
        """Refuse a model that is not as good as the constraint asks for.

        Raises:
            GoalMissed: it is not.
        """
        constraint, judged = self.options.constraint, done.judged
        if constraint is None or judged is None:
            return
        values = {"sqnr": judged.sqnr, "error": judged.error} | ({"value": done.values[1]} if done.values else {})
        if not constraint.holds(values, {"value": done.values[0]} if done.values else {}):
            raise GoalMissed(
                "the best model within the budgets is not good enough", hint="allow a larger file, or more damage"
            )

    def _cut(self, share: float, floats: Collection[str]) -> _Cut | None:
        """Cut, prove and repair; nothing goes where all of it fits, and None is for what no widths hold."""
        if share >= 1 and self.options.macs is None and self.options.latency is None:
            nothing = Removal(self.groups, np.zeros(self.groups.classes.count, bool))
            return _Cut(nothing, self.model, 1.0)
        params = f"{100 * min(share, 1):.4f}%"
        outcome = prune.run(
            self.model,
            Options(params=params, macs=self.options.macs, latency=self.options.latency, cache=str(self.scores)),
            data=self.inputs.data,
            samples=self.inputs.samples,
            sizes=self.inputs.sizes,
            place=None if self.options.latency is None else self._timed_as(floats),
            progress=self.clock.progress,
        )
        if self.options.latency is not None and not all(goal.met for goal in outcome.goals):
            return None
        prune.check_proven(outcome.groups, outcome.verdict)
        left = share if self.options.latency is None else outcome.after.params / outcome.before.params
        removal = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
        return _Cut(removal, outcome.model, left, outcome.judged)

    def _order(self, small: Model) -> Mapping[str, float]:
        """Layer -> bytes that 4 bits save, those first that lose least for each of these bytes."""
        groups = trace_model(small, sizes=self.inputs.sizes)
        saved = {name: elements * SAVED for name, elements in _elements(groups).items()}
        lost = self._lost(groups, LARGEST)
        return dict(sorted(saved.items(), key=lambda item: lost.get(item[0], 0.0) / item[1]))

    def _lost(self, groups: Groups, largest: int) -> Mapping[str, float]:
        """Layer -> what numbers up to `largest` in it alone do to the outputs."""
        trials = {name: [_rounded(groups, view, layer, largest)] for name, (view, layer) in _layers(groups).items()}
        runs = held_out(self.inputs.read(groups.model, batch=32))[0][:WEIGHED]
        with self.clock("weighing"):
            return dict.fromkeys(trials, 0.0) | impacts(groups, runs, trials, self.clock.progress)


@dataclass(frozen=True, eq=False)
class _Cut:
    """A smaller float model.

    Attributes:
        removal: what went.
        model: the model, repaired.
        share: of the parameters that is left.
        judged: agreement with the original on held-out samples; None where nothing went.
    """

    removal: Removal
    model: Model
    share: float
    judged: Agreement | None = None


def _layers(groups: Groups) -> dict[str, tuple[NodeView, LinearLayer]]:
    """Name of a layer with a stored float weight -> its node, and the layer."""
    views = [view for view, rule in groups.tracing.views if rule is not None]
    layers = ((view, linear_layer(view)) for view in views)
    return {view.name: (view, layer) for view, layer in layers if layer is not None}


def _elements(groups: Groups) -> dict[str, int]:
    """Name of a layer -> elements of its weight."""
    return {name: layer_weight(groups.tracing, layer).size for name, (_, layer) in _layers(groups).items()}


def _rounded(groups: Groups, view: NodeView, layer: LinearLayer, largest: int) -> DamageTrial:
    """A layer with the nearest numbers up to `largest`, a scale for every output."""
    matrix = layer.as_matrix(layer_weight(groups.tracing, layer)).astype(np.float64)
    count, _, outputs = matrix.shape
    scales = np.maximum(np.abs(matrix).max(axis=1).reshape(-1) / largest, np.finfo(np.float32).tiny)
    entry = np.broadcast_to(np.arange(count * outputs).reshape(count, 1, outputs), matrix.shape)
    grid = Grid(scales, np.zeros(scales.size), entry, (-largest - 1.0, float(largest)), float(largest))
    rounded: Array = grid.nearest(matrix) * layer.scale
    return DamageTrial(view, rounded, np.zeros(count * outputs))
