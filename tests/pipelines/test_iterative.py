"""Removal in steps: what is chosen, what is proven, and that later steps know of earlier ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune import api, criteria
from onnxprune.allocation import Options
from onnxprune.autodiff import write_back
from onnxprune.errors import UsageError
from onnxprune.model import Model, load
from onnxprune.pipelines.iterative import PARTS, CarriedWeights
from onnxprune.recovery import TrainingOptions
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite

MODELS = Path(__file__).parents[2] / "models"


def pairs() -> onnx.ModelProto:
    """Hidden units of about the same size that come in pairs of copies: either of a pair may go, but not both."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((6, 4)), rng.standard_normal((4, 5))
    first, second = first / np.linalg.norm(first, axis=0), second / np.linalg.norm(second, axis=1, keepdims=True)
    weights = {"w1": np.repeat(first, 2, axis=1), "w2": np.repeat(second, 2, axis=0)}
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", ["r", "w2"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_later_steps_know_what_went_before():
    """By the sum of their readers' weights both of the weakest pair go; once one has gone, the other counts double."""
    runs = [{"x": part} for part in np.random.default_rng(1).standard_normal((8, 16, 6)).astype(np.float32)]
    kept = {}
    for steps in (1, 4):
        plan = onnxprune.prune(pairs(), 0.5, "wanda", data=runs, aggregate="sum", steps=steps).plan
        kept[steps] = np.flatnonzero(plan.masks(pairs())["w2"][:, 0])
    assert len(kept[1]) == len(kept[4]) == 4
    assert len(set(kept[1] // 2)) < 4, "in one step whole pairs go"
    assert len(set(kept[4] // 2)) == 4, "in steps one of every pair stays"


def test_kept_scores_are_not_made_again(tmp_path, monkeypatch):
    """Another budget for the same model and data starts from them, and gives what it gives without them."""
    model, made = pairs(), []
    runs = [{"x": part} for part in np.random.default_rng(1).standard_normal((8, 16, 6)).astype(np.float32)]
    given = {"data": runs, "verify": False}
    plain = onnxprune.prune(model, params="40%", **given).plan
    score = criteria.score

    def counted(*args, **more):
        made.append(args[1])
        return score(*args, **more)

    monkeypatch.setattr(criteria, "score", counted)
    kept = {**given, "cache": str(tmp_path / "scores.jsonl")}
    onnxprune.prune(model, macs="70%", **kept)
    told = []
    again = api.run(load(model), Options(params="40%", cache=kept["cache"]), progress=told.append, **given)
    assert made == ["obs"] and any("scores are known" in line for line in told)
    assert [(s.group, list(s.remove)) for s in again.plan.steps] == [(s.group, list(s.remove)) for s in plain.steps]
    for other in ({"criterion": "wanda"}, {"data": runs[1:]}, {"seed": 1}, {"allocation": "uniform"}):
        before = len(made)
        onnxprune.prune(model, macs="70%", **kept | other)
        onnxprune.prune(model, params="60%", **kept | other)
        assert len(made) == before + 1, other


def test_scores_of_a_function_of_ones_own_are_not_kept(tmp_path):
    cache = tmp_path / "scores.jsonl"
    onnxprune.prune(pairs(), 0.5, lambda groups, rng: np.arange(groups.classes.count, dtype=float), cache=str(cache))
    assert not cache.exists()


def test_a_file_that_holds_something_else_is_no_cache(tmp_path):
    cache = tmp_path / "notes.txt"
    cache.write_text("nothing of the kind")
    with pytest.raises(UsageError, match="no file of kept results"):
        onnxprune.prune(pairs(), 0.5, cache=str(cache))
    assert cache.read_text() == "nothing of the kind"


def test_the_plan_is_one_of_the_original_and_proven():
    path = MODELS / "digits.onnx"
    given = {"criterion": "wanda", "data": MODELS / "digits_calibration.npz", "samples": 32}
    result = onnxprune.prune(path, 0.5, steps=2, **given)
    assert result.report.verdict.ok and result.report.recovery.kept
    once = onnxprune.prune(path, 0.5, **given)
    counts = [[(step.group, len(step.remove)) for step in r.plan.steps] for r in (result, once)]
    assert counts[0] == counts[1]
    cut = onnxprune.apply(path, result.plan)
    assert onnxprune.verify(path, cut, result.plan).ok
    assert [tuple(t.dims) for t in cut.graph.initializer] == [tuple(t.dims) for t in result.model.graph.initializer]


@pytest.mark.parametrize("name", ["resnet", "vit", "mobilenet_v2"])
def test_without_data_steps_only_score_again(name: str):
    once, steps = (onnxprune.prune(MODELS / f"{name}.onnx", 0.4, "l2", steps=n) for n in (1, 2))
    assert steps.report.verdict.ok and steps.report.after.macs == once.report.after.macs


def test_no_steps_are_an_error():
    with pytest.raises(UsageError, match="steps is 0"):
        onnxprune.prune(pairs(), 0.5, steps=0)


# --- trained between the steps ----------------------------------------------------------------------------


def cut_of(ratio: float) -> tuple[Removal, Model]:
    """Digits, and what is left of it without the first units of every group."""
    groups = api.trace(MODELS / "digits.onnx")
    removed = {g.name: np.arange(int(len(g.classes) * ratio)) for g in groups.groups}
    cut = Removal(groups, removed_classes(groups, removed))
    return cut, rewrite(groups, cut.removed_classes)


def test_weights_are_carried_to_a_later_cut():
    """Cutting what was cut before, and carrying, is the same as cutting the model that was changed."""
    (early, first), (late, second) = cut_of(0.25), cut_of(0.5)
    rng = np.random.default_rng(0)
    changed = {}
    for name, tensor in first.initializers.items():
        array = first.array(tensor)
        changed[name] = array + rng.standard_normal(array.shape).astype(array.dtype)
    trained = write_back(first, changed)
    carried = CarriedWeights(early, trained)
    again = carried.onto(early, first)
    assert all(np.array_equal(again.array(n), a) for n, a in changed.items())
    whole = write_back(early.groups.model, {n: spread(early, n, a) for n, a in changed.items()})
    wanted = rewrite(api.trace(whole), late.removed_classes)
    found = carried.onto(late, second)
    assert all(np.array_equal(found.array(n), wanted.array(n)) for n in wanted.initializers)


def spread(cut: Removal, name: str, array: np.ndarray) -> np.ndarray:
    """A weight in its original shape, with the original's elements where it was cut."""
    whole, mask = cut.groups.model.array(name).copy(), cut.masks().get(name)
    whole[np.ones(whole.shape, bool) if mask is None else mask] = array.reshape(-1)
    return whole


@pytest.mark.parametrize("schedule", PARTS)
def test_parts_grow_to_the_whole(schedule):
    part = PARTS[schedule]
    shares = [part(step / 5, 0.8) for step in range(6)]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == pytest.approx(1)
    if schedule == "geometric":
        left = [1 - 0.8 * share for share in shares]
        assert np.allclose(np.divide(left[1:], left[:-1]), 0.2**0.2)
    if schedule == "cubic":
        assert shares[1] > 0.4


def test_training_between_the_steps():
    """The plan is one of the original and proven; what was trained in between is where the last training begins."""
    path, data = MODELS / "digits.onnx", MODELS / "digits_calibration.npz"
    recovery = api.RecoveryOptions(train=TrainingOptions(20, rate=1e-3, batch=32, threads=1))
    options = onnxprune.Options(ratio=0.85, steps=3, step_schedule="cubic", criterion="wanda")
    outcome = api.run(load(path), options, data=data, recovery=recovery)
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.training is not None
    plain = api.run(load(path), replace(options, steps=1), data=data, verify=False)
    assert plain.judged is not None and outcome.judged is not None
    assert outcome.judged.error < plain.judged.error
    assert onnxprune.verify(path, onnxprune.apply(path, outcome.plan), outcome.plan).ok
    with pytest.raises(UsageError, match="no step schedule"):
        onnxprune.Options(steps=3, step_schedule="sudden")
