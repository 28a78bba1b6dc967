"""Blocks and units removed together: what goes, that one plan holds both, and that it is replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.pipelines import prune_drop
from onnxprune.pipelines.block_prices import BlockPrices
from onnxprune.rewriting import Plan
from tests.graphs.net import run
from tests.pipelines.test_drop import assert_equal, residual, without_branch

MODELS = Path(__file__).parents[2] / "models"
DIGITS = str(MODELS / "digits.onnx")
DATA = str(MODELS / "digits_calibration.npz")


def faint(factor: float = 1e-3) -> onnx.ModelProto:
    """Three blocks, the second of which adds next to nothing."""
    model = residual(3).proto()
    for tensor in model.graph.initializer:
        if tensor.name == "layers.1.down.weight":
            value = onnx.numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return model


def inputs(count: int = 128) -> list[dict[str, Any]]:
    return [{"x": np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)}]


@pytest.fixture(scope="module")
def both() -> onnxprune.PruneResult:
    return onnxprune.prune(faint(), params="55%", drop=True, data=inputs())


def test_the_block_that_adds_nothing_goes_first_and_units_make_up_the_rest(both: onnxprune.PruneResult) -> None:
    assert [step.block for step in both.plan.bypasses] == ["layers.1"]
    assert any(step.remove for step in both.plan.steps)
    assert all(goal.met for goal in both.report.goals)
    assert both.report.goals[0].before == both.report.before.params == 6 * 8 + 3 * 2 * 8 * 12 + 8 * 5
    names = {tensor.name for tensor in both.model.graph.initializer}
    assert not any(name.startswith("layers.1") for name in names)


def test_it_is_nearer_to_the_original_than_units_alone(both: onnxprune.PruneResult) -> None:
    judged, instead = both.report.judged, both.report.instead
    assert judged is not None and instead is not None and judged.distance < instead.distance
    feeds = {"x": np.random.default_rng(5).normal(size=(64, 6)).astype(np.float32)}
    alone = onnxprune.prune(faint(), params="55%", data=inputs()).model
    (wanted,) = run(faint(), feeds=feeds).values()
    errors = [float(np.square(wanted - next(iter(run(m, feeds=feeds).values()))).sum()) for m in (both.model, alone)]
    assert errors[0] < errors[1]


def test_the_verdict_has_the_checks_of_both(both: onnxprune.PruneResult) -> None:
    verdict = both.report.verdict
    assert verdict is not None and verdict.ok
    assert any("blocks gone" in check for check in verdict.checks) and len(verdict.checks) > 3


def test_one_plan_is_replayed_without_data_and_with_it(both: onnxprune.PruneResult) -> None:
    plan = Plan.from_json(both.plan.to_json())
    bare = onnxprune.apply(faint(), plan)
    assert onnxprune.verify(faint(), bare, plan).ok
    # Without data: the block adds nothing, and the others have no weights for the units that went.
    zeroed = without_branch(faint(), "layers.1.down.weight")
    for step in plan.steps:
        for member in step.members:
            for tensor in zeroed.graph.initializer:
                if tensor.name == member["tensor"] and step.remove:
                    value = onnx.numpy_helper.to_array(tensor).copy()
                    np.moveaxis(value, member["axis"], 0)[list(member["removed"])] = 0
                    tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    assert_equal(zeroed, bare)
    again = onnxprune.apply(faint(), plan, data=inputs())
    assert_equal(both.model, again)


def projected(proto: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    """The model whose units that go have weights of zero, and whose stream holds the directions alone that stay."""
    turned = {step.group: step.bases[0].astype(np.float64) for step in plan.rotations}
    changed = without_branch(proto, *(f"{step.block}.down.weight" for step in plan.bypasses))
    for step in plan.steps:
        kept = np.eye(step.size)
        kept[list(step.remove)] = 0
        basis = turned.get(step.group, np.eye(step.size))
        for member in step.members if step.remove else ():
            for tensor in changed.graph.initializer:
                if tensor.name == member["tensor"]:
                    value = np.moveaxis(onnx.numpy_helper.to_array(tensor), member["axis"], -1) @ (
                        basis @ kept @ basis.T
                    )
                    value = np.moveaxis(value, -1, member["axis"]).astype(np.float32)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return changed


def test_directions_go_of_what_is_left_without_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge projects the stream of the original onto the directions that stay, in all weights that touch it."""
    model = residual(3, 16).proto()
    cheapest = BlockPrices.cheapest
    monkeypatch.setattr(BlockPrices, "cheapest", lambda prices: cheapest(prices) or prices.work.blocks[1:2])
    monkeypatch.setattr(prune_drop, "_better", lambda both, alone: both)
    found = onnxprune.prune(model, params="30%", drop=True, rotate=True, data=inputs())
    plan = Plan.from_json(found.plan.to_json())
    assert plan.bypasses and len(plan.rotations) == 1 and all(goal.met for goal in found.report.goals)
    (stream,) = (step for step in plan.steps if step.group == plan.rotations[0].group)
    assert stream.remove and found.report.verdict is not None and found.report.verdict.ok
    bare = onnxprune.apply(model, plan)
    assert_equal(projected(model, plan), bare, tolerance=1e-4)
    assert onnxprune.verify(model, bare, plan).ok
    assert_equal(found.model, onnxprune.apply(model, plan, data=inputs()), tolerance=1e-4)


def test_directions_and_training() -> None:
    options = onnxprune.TrainingOptions(8)
    for model, budget in ((faint(), {"params": "40%"}), (DIGITS, {"macs": "60%"})):
        data = DATA if model is DIGITS else inputs()
        found = onnxprune.prune(model, **budget, drop=True, rotate=True, data=data, samples=64, train=options)
        assert found.report.training is not None and found.report.verdict is not None and found.report.verdict.ok


def test_steps_go_together_with_blocks() -> None:
    found = onnxprune.prune(faint(), params="55%", drop=True, data=inputs(), steps=2)
    assert [step.block for step in found.plan.bypasses] == ["layers.1"]
    assert all(goal.met for goal in found.report.goals) and found.report.verdict is not None and found.report.verdict.ok
    assert onnxprune.verify(faint(), onnxprune.apply(faint(), Plan.from_json(found.plan.to_json())), found.plan).ok


def test_what_is_trained_is_the_better_model_towards_the_original(both: onnxprune.PruneResult) -> None:
    options = onnxprune.TrainingOptions(60, batch=32)
    found = onnxprune.prune(faint(), params="55%", drop=True, data=inputs(), train=options)
    assert found.report.training is not None and found.plan.bypasses == both.plan.bypasses
    assert found.report.judged is not None and both.report.judged is not None
    assert found.report.judged.distance < both.report.judged.distance
    feeds = {"x": np.random.default_rng(5).normal(size=(64, 6)).astype(np.float32)}
    (wanted,) = run(faint(), feeds=feeds).values()
    errors = [
        float(np.square(wanted - next(iter(run(m, feeds=feeds).values()))).sum()) for m in (found.model, both.model)
    ]
    assert errors[0] < errors[1]


def test_units_alone_are_trained_where_no_block_goes() -> None:
    options = onnxprune.TrainingOptions(4)
    found = onnxprune.prune(DIGITS, macs="60%", drop=True, data=DATA, samples=64, train=options)
    alone = onnxprune.prune(DIGITS, macs="60%", data=DATA, samples=64, train=options)
    assert found.report.dropped is None and found.report.training is not None
    assert found.model == alone.model


def test_where_no_block_is_cheap_units_alone_go() -> None:
    found = onnxprune.prune(DIGITS, macs="60%", drop=True, data=DATA, samples=64)
    alone = onnxprune.prune(DIGITS, macs="60%", data=DATA, samples=64)
    assert found.report.dropped is None and not found.plan.bypasses and found.plan.options["drop"]
    assert found.model == alone.model


def test_kept_weights_keep_their_block() -> None:
    found = onnxprune.prune(faint(), params="55%", drop=True, keep=["layers.1.*"], data=inputs())
    assert found.report.dropped is None or "layers.1" not in [s.block for s in found.plan.bypasses]
    assert "layers.1.down.weight" in {tensor.name for tensor in found.model.graph.initializer}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"macs": "50%"}, "inputs as the model gets them"),
        ({"data": "random", "macs": "50%"}, "inputs as the model gets them"),
        ({"data": DATA}, "what budgets save"),
        ({"data": DATA, "ratio": 0.5}, "what budgets save"),
        ({"data": DATA, "macs": "50%", "criterion": "l2"}, "compares what the outputs lose"),
        ({"data": DATA, "macs": "50%", "allocation": "uniform"}, "compares what the outputs lose"),
        (
            {"data": DATA, "macs": "50%", "train": onnxprune.TrainingOptions(1), "steps": 2},
            "does not go with training in --steps",
        ),
    ],
)
def test_what_has_no_price_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        onnxprune.prune(DIGITS, drop=True, **options)


def test_a_plan_without_the_model_is_refused() -> None:
    with pytest.raises(UsageError, match="planned as it is carried out"):
        onnxprune.make_plan(DIGITS, macs="50%", drop=True, data=DATA)
