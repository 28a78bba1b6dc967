"""Masks of units that grow and settle while a model trains."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.autodiff import write_back
from onnxprune.layers.unit_axes import unit_reads
from onnxprune.model import Model, load
from onnxprune.pipelines import dynamic_units
from onnxprune.pipelines.iterative import units_to_go
from onnxprune.pipelines.unit_masks import SoftMasks
from onnxprune.recovery import Masks, Thinning, TrainingOptions
from onnxprune.rewriting import Removal
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Session
from onnxprune.typing import Array
from tests.pipelines.test_dynamic_units import DIGITS


def pair() -> Model:
    """Two products with eight hidden units in between."""
    rng = np.random.default_rng(0)
    weights = {"w1": rng.standard_normal((6, 8)), "w2": rng.standard_normal((8, 5))}
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", ["r", "w2"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def thinning(criterion: str, steps: int = 20, every: int = 1) -> SoftMasks:
    """Of the pair: half of the units go, at first the first ones."""
    groups = api.trace(pair())
    options, scores = Options(ratio=0.5, criterion=criterion), np.zeros(groups.classes.count)
    scores[groups.groups[0].classes] = np.arange(8) + 1.0
    going = units_to_go(groups, scores, options, None, lambda said: None)
    return SoftMasks(going, scores, options, TrainingOptions(steps, while_training="soft", every=every))


def test_what_is_masked_gives_nothing() -> None:
    """With zeros where units are read the original computes what the smaller model does, to rounding."""
    groups = api.trace(DIGITS)
    rng = np.random.default_rng(0)
    away = np.zeros(groups.classes.count, bool)
    for group in groups.groups:
        away[rng.choice(group.classes, len(group.classes) // 2, replace=False)] = True
    model, reads = groups.model, unit_reads(groups, groups.model.initializers)
    values = {read.name: model.array(read.name).copy() for read in reads}
    for read in reads:
        values[read.name][~read.kept(away)] = 0
    x = {"image": rng.standard_normal((8, 1, 8, 8)).astype(np.float32)}
    with Session(write_back(model, values)) as one, Session(rewrite(groups, away)) as two, Session(model) as whole:
        masked, cut, plain = (s.run(x)[0] for s in (one, two, whole))
    assert np.abs(masked - cut).max() <= 1e-5 * np.abs(cut).max()
    assert np.abs(plain - cut).max() > 1e-2 * np.abs(cut).max()


def test_weights_that_are_not_trained_do_not_count() -> None:
    groups = api.trace(DIGITS)
    assert unit_reads(groups, []) == []


def test_masks_grow_and_settle() -> None:
    course = thinning("l2")
    weights = {n: course.groups.model.array(n) for n in ("w1", "w2")}
    counts = [_masked(course.chosen(step, weights)) for step in range(20)]
    first = counts.index(None)
    assert counts[0] == 0 and counts[first - 1] == 4 and counts[:first] == sorted(counts[:first])  # type: ignore[type-var]
    assert counts[first:] == [None] * (20 - first), "then they stay"
    assert counts[2] >= 1, "most go early"
    assert _masked(course.target(weights)) == 4


def _masked(masks: Masks | None) -> int | None:
    return None if masks is None else int((~masks["w2"]).all(axis=1).sum())


def test_magnitudes_are_those_of_the_present_weights() -> None:
    course = thinning("l2")
    weights = {n: course.groups.model.array(n).copy() for n in ("w1", "w2")}
    weights["w1"][:, [1, 2, 5, 6]] *= 1e-3
    weights["w2"][[1, 2, 5, 6]] *= 1e-3
    masks: Masks = course.chosen(0, weights) or {}
    masks = course.target(weights)
    assert np.flatnonzero(~masks["w2"][:, 0]).tolist() == [1, 2, 5, 6] and set(masks) == {"w2"}


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_gradients_choose_and_what_went_may_return(criterion: str) -> None:
    """A unit with a large slope stays; one that is masked returns only if that makes the loss less."""
    course = thinning(criterion, steps=100, every=10)
    weights = {n: course.groups.model.array(n) for n in ("w1", "w2")}
    ones = np.sign(weights["w2"])
    order = np.array([0, 1, 2, 3, 7, 6, 5, 4])[:, None] + 1.0  # the last of the first choice are now the least
    course.target(weights)  # units 0 to 3 are masked
    course.observe(weights, {"w2": -ones * order})
    assert course.chosen(10, weights) is not None
    assert np.flatnonzero(course.gone()[course.groups.groups[0].classes]).tolist() == [0, 1, 2, 3]
    course.target(weights)
    course.observe(weights, {"w2": -ones * np.array([9, 9, 0, 0, 1, 1, 1, 1])[:, None] * 1e3})
    course.chosen(20, weights)
    assert not course.gone()[course.groups.groups[0].classes][:2].any(), "their return makes the loss less"
    course.target(weights)
    course.observe(weights, {"w2": ones * np.array([0, 0, 9, 9, 1, 1, 1, 1])[:, None] * 1e6})
    course.chosen(30, weights)
    assert course.gone()[course.groups.groups[0].classes][2:4].all(), "theirs makes it more"


def test_movement_is_summed_up() -> None:
    course = thinning("movement", steps=100, every=10)
    weights = {n: course.groups.model.array(n) for n in ("w1", "w2")}
    ones, classes = np.sign(weights["w2"]), course.groups.groups[0].classes
    wanted = -np.abs(weights["w2"]).sum(axis=1) * np.array([1, 2, 3, 4, -1, -2, -3, -4])
    for step in (10, 20, 30):
        course.observe(weights, {"w2": ones * np.array([1, 2, 3, 4, -1, -2, -3, -4])[:, None]})
        course.chosen(step, weights)
        assert np.allclose(course.scores[classes], wanted)


def test_the_slope_is_that_of_a_factor_on_the_unit() -> None:
    groups = api.trace(pair())
    (read,) = unit_reads(groups, groups.model.initializers)
    rng = np.random.default_rng(0)
    weight, gradient = rng.standard_normal((8, 5)), rng.standard_normal((8, 5))
    sums = read.sums(weight * gradient, groups.classes.count)[groups.groups[0].classes]
    assert np.allclose(sums, (weight * gradient).sum(axis=1))


class _Fixed(Thinning):
    """Masks the first row of a weight from the first step on."""

    until = 5

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.mask, self.name = np.ones(shape, bool), name
        self.mask[0] = False
        self.seen: list[float] = []

    def target(self, weights: Mapping[str, Array]) -> Masks:
        return {self.name: self.mask}

    def chosen(self, step: int, weights: Mapping[str, Array]) -> Masks | None:
        self.seen.append(float(np.abs(weights[self.name][0]).sum()))
        return self.target(weights)


def test_loose_masks_learn_and_are_held_in_the_end() -> None:
    model = pair()
    groups = api.trace(model)
    nothing = Removal(groups, np.zeros(groups.classes.count, bool))
    x = np.random.default_rng(0).standard_normal((8, 16, 6)).astype(np.float32)
    course = _Fixed("w2", (8, 5))
    options = TrainingOptions(10, rate=1e-2, batch=16, threads=1)
    small, done = dynamic_units.learn_after(nothing, groups.model, [{"x": part} for part in x], options, masks=course)
    assert len(course.seen) == 5 and len(set(course.seen)) == 5, "what is masked learns"
    assert (small.array("w2")[0] == 0).all() and done.best >= 5
    assert done.before > 0, "the loss with the zeros of the end"
