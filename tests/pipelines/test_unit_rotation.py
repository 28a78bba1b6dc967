"""`prune --rotate`: directions go in place of channels; the plan says which, and carries that over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import load, to_proto
from onnxprune.pipelines import unit_rotation, verify
from onnxprune.pipelines.apply import execute
from onnxprune.pipelines.search import search
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.search_trials import SearchConfig
from onnxprune.pipelines.unit_rotation import proven_rotation, with_principal_axes
from onnxprune.rewriting import Plan, RotateStep
from onnxprune.rewriting.rotate import nearest_orthogonal
from onnxprune.tracing import trace
from tests.graphs.linear import SIZE, WIDTH, bottleneck, normed
from tests.graphs.net import run

DATA = [{"x": np.random.default_rng(0).standard_normal((64, 3, SIZE, SIZE)).astype(np.float32)}]
OTHERS = {"x": np.random.default_rng(1).standard_normal((32, 3, SIZE, SIZE)).astype(np.float32)}


def pruned(proto: onnx.ModelProto, recovery: str = "none", **options: object) -> onnxprune.PruneResult:
    options = {"rotate": True, "only": ["stem"], **options}
    return onnxprune.prune(proto, 0.5, data=DATA, recovery=recovery, **options)


def projected(proto: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    """The original, all of whose readers of the stream see it projected to the directions that stay."""
    (rotation,), (step,) = plan.rotations, [s for s in plan.steps if s.remove]
    stay = np.delete(nearest_orthogonal(rotation.bases[0]), step.remove, axis=1)
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for tensor in made.graph.initializer:
        axis = {"expand0": 1, "expand1": 1, "classes": 0}.get(tensor.name)
        if axis is not None:
            value = np.moveaxis(numpy_helper.to_array(tensor).astype(np.float64), axis, -1) @ stay @ stay.T
            tensor.CopyFrom(numpy_helper.from_array(np.moveaxis(value, -1, axis).astype(np.float32), tensor.name))
    return made


def outputs(proto: onnx.ModelProto) -> np.ndarray:
    (found,) = run(proto, feeds=OTHERS).values()
    return found


def test_what_is_left_reads_the_stream_projected_to_the_directions_that_stay() -> None:
    proto = bottleneck()
    result = pruned(proto)
    assert result.report.verdict is not None
    assert result.report.verdict.ok
    shapes = {t.name: tuple(t.dims) for t in result.model.graph.initializer}
    assert (shapes["stem"][0], shapes["expand0"][1], shapes["classes"][0]) == (WIDTH // 2,) * 3
    assert len(result.model.graph.node) == len(proto.graph.node)
    np.testing.assert_allclose(outputs(result.model), outputs(projected(proto, result.plan)), rtol=1e-4, atol=1e-5)


def test_less_is_lost_than_by_removing_channels() -> None:
    """A stream of rank four, whose channels are all alike: half of its directions hold nothing."""
    proto = bottleneck(blocks=0)
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((WIDTH, WIDTH)))[0]
    for tensor in proto.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.name == "stem":  # three inputs and a bias: four directions
            tensor.CopyFrom(
                numpy_helper.from_array((turn @ value[..., 0, 0])[..., None, None].astype(np.float32), "stem")
            )
    wanted = outputs(proto)
    errors = {
        rotate: float(np.square(outputs(pruned(proto, rotate=rotate).model) - wanted).mean() / wanted.var())
        for rotate in (False, True)
    }
    assert errors[True] < 1e-8 < 1e-2 < errors[False]


def test_a_plan_rotates_another_export_and_is_verified() -> None:
    proto = bottleneck()
    result = pruned(proto)
    plan = Plan.from_json(result.plan.to_json())
    assert plan.source["digest"] == load(proto).digest
    again = execute(load(proto), plan)
    assert again.verdict is not None
    assert again.verdict.ok
    np.testing.assert_allclose(outputs(to_proto(again.model)), outputs(result.model), rtol=1e-4, atol=1e-5)
    assert verify.prove(load(proto), load(result.model), plan).ok
    without = Plan.from_json(Plan(plan.steps, options=plan.options).to_json())
    assert not verify.prove(load(proto), load(result.model), without).ok
    turning = Plan((), rotations=plan.rotations, options=plan.options)
    whole = execute(load(proto), turning)
    assert verify.prove(load(proto), whole.model, turning).ok
    made = onnxprune.make_plan(proto, 0.5, data=DATA, rotate=True, only=["stem"])
    assert made.to_json() == result.plan.to_json()


def test_budgets_count_from_the_original_where_a_weight_is_copied() -> None:
    proto = normed()
    data = [{"ids": np.random.default_rng(0).integers(0, 16, (64, 5))}]
    result = onnxprune.prune(proto, params="60%", data=data, rotate=True, recovery="none")
    report = result.report
    assert report.before.params == onnxprune.prune(proto, 0.0).report.before.params
    assert report.after.params <= 0.6 * report.before.params
    assert "table_scaled" in {t.name for t in result.model.graph.initializer}
    plan = Plan.from_json(result.plan.to_json())
    assert (plan.options["params"], plan.source["digest"]) == ("60%", load(proto).digest)
    again = execute(load(proto), plan)
    assert again.verdict is not None
    assert again.verdict.ok
    assert verify.prove(load(proto), again.model, plan).ok


def test_directions_that_do_not_keep_the_outputs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = trace(load(bottleneck()))
    step = RotateStep("stem", (np.eye(WIDTH, dtype=np.float32),))
    real = unit_rotation.with_rotation

    def broken(groups, steps):
        proto = to_proto(real(groups, steps))
        proto.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(2 * numpy_helper.to_array(proto.graph.initializer[0]), "stem")
        )
        return load(proto)

    monkeypatch.setattr(unit_rotation, "with_rotation", broken)
    with pytest.raises(GoalMissed, match="not proven"):
        proven_rotation(groups, [step])
    assert proven_rotation(groups, [step], verify=False) is not groups.model
    options = onnxprune.Options(0.5, rotate=True)
    left = with_principal_axes(groups, options, DATA)
    assert left.steps == ()
    assert left.groups is groups


def test_what_stays_whole_is_not_rotated() -> None:
    groups = trace(load(bottleneck()))
    kept = with_principal_axes(groups, onnxprune.Options(0.5, rotate=True, keep=["stem"]), DATA)
    assert kept.steps == ()
    assert with_principal_axes(groups, onnxprune.Options(0.5), DATA).groups is groups
    unproven = with_principal_axes(groups, onnxprune.Options(0.5, rotate=True), DATA, verify=False)
    assert [step.group for step in unproven.steps] == ["stem"]


@pytest.mark.parametrize("data", [None, "random"])
def test_directions_need_inputs(data: str | None) -> None:
    with pytest.raises(UsageError, match="needs inputs"):
        onnxprune.prune(bottleneck(), 0.5, data=data, rotate=True)


def test_a_search_rotates_nothing() -> None:
    config = SearchConfig((QualityConstraint("sqnr", 6.0),), samples=64)
    with pytest.raises(UsageError, match="rotates nothing"):
        search(load(bottleneck()), onnxprune.Options(rotate=True), config, DATA)


def test_the_bundled_network_has_no_linear_group() -> None:
    models = Path(__file__).parents[2] / "models"
    result = onnxprune.prune(
        str(models / "digits.onnx"), 0.5, data=str(models / "digits_calibration.npz"), rotate=True, samples=32
    )
    assert result.plan.rotations == ()
