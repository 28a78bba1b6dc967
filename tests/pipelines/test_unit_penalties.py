"""Units that penalties draw to zero while the model trains: as many as go, held at zero, and cut without a loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.autodiff import write_back
from onnxprune.errors import UsageError
from onnxprune.layers.unit_axes import norm_scales, unit_axes
from onnxprune.model import Model, load
from onnxprune.pipelines import dynamic_units
from onnxprune.pipelines.dynamic_units import WAYS
from onnxprune.pipelines.iterative import first_scores, units_to_go
from onnxprune.recovery import RecoveryOptions, TrainingOptions
from onnxprune.rewriting import Removal
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Session
from onnxprune.typing import Array
from tests.graphs.net import Net

MODELS = Path(__file__).parents[2] / "models"
DIGITS, DATA = MODELS / "digits.onnx", MODELS / "digits_calibration.npz"
PENALTIES = ("group-lasso", "growing", "slimming")
STEPS = 60


def normed() -> Model:
    """Two convolutions, each with a norm that has a scale and a shift, and a product."""
    net = Net()
    x = net.input(("n", 3, 8, 8), name="x")
    for inputs, outputs in ((3, 8), (8, 12)):
        x = net.add("Conv", x, net.weight(outputs, inputs, 3, 3), pads=[1, 1, 1, 1])
        stored = (np.ones(outputs), net.rng.standard_normal(outputs) / 4, np.zeros(outputs), np.full(outputs, 4.0))
        x = net.add("Relu", net.add("BatchNormalization", x, *(net.const(v.astype(np.float32)) for v in stored)))
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.output(net.add("MatMul", x, net.weight(12, 4)))
    return load(net.proto())


def runs() -> list[dict[str, Array]]:
    pictures = np.random.default_rng(0).standard_normal((12, 8, 3, 8, 8)).astype(np.float32)
    return [{"x": part} for part in pictures]


class _Watched:
    """A course that remembers how many units were zero after every step."""

    def __init__(self, way: str, ratio: float = 0.5) -> None:
        self.groups, options = api.trace(normed()), Options(ratio=ratio, criterion="l2")
        scores = first_scores(self.groups, options, [], lambda said: None)
        going = units_to_go(self.groups, scores, options, None, lambda said: None)
        self.course = WAYS[way](going, scores, options, TrainingOptions(STEPS, while_training=way))
        self.counts: list[list[int]] = []
        shrink = self.course.shrink

        def watched(step: int, weights: Mapping[str, Array], rate: float) -> None:
            shrink(step, weights, rate)
            zero = self.course.norms(weights) == 0  # type: ignore[attr-defined]
            self.counts.append([int(zero[g.classes].sum()) for g in self.groups.groups])

        self.course.shrink = watched  # type: ignore[method-assign]

    def run(self) -> tuple[Model, Removal]:
        nothing = Removal(self.groups, np.zeros(self.groups.classes.count, bool))
        options = TrainingOptions(STEPS, rate=3e-3, batch=8, threads=1)
        trained, _ = dynamic_units.learn_after(nothing, self.groups.model, runs(), options, masks=self.course)
        return trained, Removal(self.groups, self.course.gone())


@pytest.mark.parametrize("way", PENALTIES)
def test_as_many_reach_zero_as_go(way: str) -> None:
    """Neither fewer nor more, whatever the gradients of the other units do; and they stay there."""
    watched = _Watched(way)
    watched.run()
    wanted = [watched.course.going.counts.get(g.name, 0) for g in watched.groups.groups]
    assert wanted == [4, 6] and watched.counts[-1] == wanted
    for before, after in zip(watched.counts, watched.counts[1:], strict=False):
        assert all(b <= a <= w for b, a, w in zip(before, after, wanted, strict=True))
    settled = next(i for i, counts in enumerate(watched.counts) if counts == wanted)
    assert settled < STEPS - 5, "the others train on"


@pytest.mark.parametrize("way", PENALTIES)
def test_what_reached_zero_is_cut_without_a_loss(way: str) -> None:
    """Without any mask: the weights that the penalty left, with and without the units."""
    watched = _Watched(way)
    seen: dict[str, Array] = {}
    target = watched.course.target

    def last(weights: Mapping[str, Array]) -> object:
        seen.update({name: array.copy() for name, array in weights.items()})
        return target(weights)

    watched.course.target = last  # type: ignore[method-assign, assignment]
    _, cut = watched.run()
    whole = write_back(watched.groups.model, seen)
    small = rewrite(api.trace(whole), cut.removed_classes)
    x = runs()[0]
    with Session(whole) as one, Session(small) as two, Session(watched.groups.model) as first:
        before, after, original = (s.run(x)[0] for s in (one, two, first))
    assert np.abs(before - after).max() <= 1e-5 * np.abs(before).max()
    assert np.abs(before - original).max() > 1e-3 * np.abs(before).max(), "it was trained"


def test_what_units_hold() -> None:
    groups = api.trace(normed())
    held = unit_axes(groups, groups.model.initializers)
    first, second = (g.classes for g in groups.groups)
    count = sum(axis.sums(np.ones(axis.shape), groups.classes.count) for axis in held)
    assert set(count[first]) == {3 * 9 + 2 + 12 * 9} and set(count[second]) == {8 * 9 + 2 + 4}
    assert len(norm_scales(groups, groups.model.initializers)) == 2
    assert not unit_axes(groups, ())


def test_a_pull_grows() -> None:
    course = _Watched("growing").course
    size = np.ones(course.groups.classes.count)
    factors = []
    for step in range(1, STEPS):
        found = course.factors(step, size)  # type: ignore[attr-defined]
        factors.append(found[course.gone()].max())
        size = size * found
    assert factors[:10] == sorted(factors[:10], reverse=True) and factors[0] > 0.95 > factors[10]
    assert (size[course.gone()] == 0).all() and (size[~course.gone()] == 1).all()


@pytest.mark.parametrize("way", ["group-lasso", "growing"])
def test_pruned_by_a_penalty(way: str) -> None:
    training = TrainingOptions(40, while_training=way, rate=1e-3, batch=32, threads=1, patience=0)
    options = Options(macs="40%", criterion="l2")
    outcome = api.run(load(DIGITS), options, data=DATA, recovery=RecoveryOptions(train=training))
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.goals[0].met
    assert outcome.chosen is not None and outcome.training is not None
    assert outcome.training.after <= outcome.training.before
    assert onnxprune.verify(DIGITS, onnxprune.apply(DIGITS, outcome.plan), outcome.plan).ok


def test_slimming_needs_scales() -> None:
    training = TrainingOptions(8, while_training="slimming", rate=1e-3, threads=1)
    with pytest.raises(UsageError, match="have no scale of a BatchNormalization"):
        onnxprune.prune(DIGITS, 0.5, data=DATA, train=training)
    onnxprune.prune(normed(), 0.5, data=runs(), train=training)
