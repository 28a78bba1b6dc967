"""Removal in steps: what is chosen, what is proven, and that later steps know of earlier ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.errors import UsageError

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


def test_the_plan_is_one_of_the_original_and_proven():
    path = MODELS / "digits.onnx"
    given = {"criterion": "wanda", "data": MODELS / "digits_calibration.npz", "samples": 32}
    result = onnxprune.prune(path, 0.5, steps=2, **given)
    assert result.report.verdict.ok and result.report.repair.kept
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
