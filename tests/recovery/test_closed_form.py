"""Recovery by least squares: what it must restore, and what it must leave alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from threadpoolctl import threadpool_limits

import onnxprune
from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.errors import UsageError
from onnxprune.model import Model, load, to_proto
from onnxprune.recovery import RecoveryOptions, RecoveryReport, closed_form, fits, recover, targets
from onnxprune.recovery.targets import Fit
from onnxprune.report import data as report
from onnxprune.report import text
from onnxprune.rewriting import Removal
from onnxprune.runtime import Agreement, PairMoments
from onnxprune.runtime.random_inputs import random_feeds
from onnxprune.typing import Runs

MODELS = Path(__file__).parents[2] / "models"


def accuracy(model: onnx.ModelProto) -> float:
    test = np.load(MODELS / "digits_test.npz")
    session = ort.InferenceSession(model.SerializeToString())
    return float((session.run(None, {"image": test["image"]})[0].argmax(1) == test["label"]).mean())


def net(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int | str]) -> onnx.ModelProto:
    made = [f"y{axis}" for axis in range(len(shape))]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, made)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def outputs(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, feeds)[0]


def redundant(form: str, *, bias: bool) -> tuple[onnx.ModelProto, np.ndarray]:
    """A net whose hidden channels 4..7 are copies (times two) of 0..3: half of them can go without any loss."""
    rng = np.random.default_rng(0)
    if form == "Conv":
        first = rng.standard_normal((4, 3, 3, 3))
        second, shape = rng.standard_normal((5, 8, 3, 3)), ["n", 3, 9, 9]
        tail = {"pads": [1, 2, 0, 1], "strides": [2, 1], "dilations": [1, 2]}
        nodes = [helper.make_node("Conv", ["x", "w1"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
        nodes.append(helper.make_node("Conv", ["r", "w2", *(["b"] if bias else [])], ["y"], **tail))
        doubled = np.concatenate([first, 2 * first])
    else:
        first, shape = rng.standard_normal((6, 4)), ["n", 6]
        second = rng.standard_normal((8, 5))
        nodes = [helper.make_node("MatMul", ["x", "w1"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
        if form == "Gemm":
            nodes.append(helper.make_node("Gemm", ["r", "w2", *(["b"] if bias else [])], ["y"], transB=1))
            second = second.T
        else:
            nodes.append(helper.make_node("MatMul", ["r", "w2"], ["m" if bias else "y"]))
            nodes += [helper.make_node("Add", ["m", "b"], ["y"])] if bias else []
        doubled = np.concatenate([first, 2 * first], axis=1)
    weights = {"w1": doubled, "w2": second} | ({"b": rng.standard_normal(5)} if bias else {})
    data = rng.standard_normal((256, *shape[1:])).astype(np.float32)
    return net(nodes, weights, shape), data


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", ["Conv", "Gemm", "MatMul"])
def test_redundant_channels_go_without_loss(form: str, bias: bool):
    model, data = redundant(form, bias=bias)
    plain = onnxprune.prune(model, 0.5)
    mended = onnxprune.prune(model, 0.5, data=[{"x": part} for part in np.split(data, 8)])
    fresh = {"x": np.random.default_rng(1).standard_normal((64, *data.shape[1:])).astype(np.float32)}
    wanted = outputs(model, fresh)
    errors = [float(np.square(outputs(m, fresh) - wanted).mean() / wanted.var()) for m in (plain.model, mended.model)]
    # The ridge of 1 % pulls towards the sliced weights: what is left of the error is about its square.
    assert errors[0] > 0.05 and errors[1] < 0.01 * errors[0]
    repair = mended.report.recovery
    assert repair.kept and repair.after.error < 0.01 * repair.before.error and [f.kept for f in repair.fits] == [True]
    ((group, (cut, fitted)),) = repair.damage.items()
    assert group == mended.plan.steps[0].group and fitted < 0.01 * cut


@pytest.mark.parametrize("form", ["Conv", "Gemm", "MatMul"])
def test_fitted_weights_are_the_same_whatever_the_number_of_threads_of_linear_algebra(form: str):
    model, data = redundant(form, bias=True)
    found = []
    for count in (1, 2):
        with threadpool_limits(count, user_api="blas"):
            result = onnxprune.prune(model, 0.5, data=[{"x": part} for part in np.split(data, 8)])
        assert result.report.recovery.kept
        found.append(result.model.SerializeToString(deterministic=True))
    assert found[0] == found[1]


def test_accuracy_of_the_trained_example_comes_back():
    data = MODELS / "digits_calibration.npz"
    assert accuracy(onnx.load(MODELS / "digits.onnx")) == pytest.approx(0.989, abs=0.001)
    cut = onnxprune.prune(MODELS / "digits.onnx", 0.5)
    mended = onnxprune.prune(MODELS / "digits.onnx", 0.5, data=data)
    assert accuracy(cut.model) < 0.6
    assert accuracy(mended.model) > 0.97
    assert mended.report.verdict.ok
    sizes = [[tuple(t.dims) for t in m.graph.initializer] for m in (cut.model, mended.model)]
    assert sizes[0] == sizes[1]
    onnx.checker.check_model(mended.model, full_check=True)


def test_a_fit_that_does_not_help_is_left_out(monkeypatch):
    model, data = redundant("Gemm", bias=True)
    source = load(model)
    outcome = api.run(source, Options())
    cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))

    def worse(evidence):
        return -evidence.sliced, np.ones(evidence.sliced.shape[::2])

    monkeypatch.setitem(fits.METHODS, "least-squares", fits.Method("least-squares", worse))
    mended, repair = recover(cut, outcome.model, [{"x": part} for part in np.split(data, 4)])
    assert [fit.kept for fit in repair.fits] == [False] and not repair.kept
    assert mended is outcome.model


def test_classes_are_judged_by_the_floats_before_them():
    """Classes as numbers do not tell how far apart two models are; what they were taken from does."""
    model, data = redundant("Gemm", bias=True)
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["class"], axis=1, keepdims=0))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("class", onnx.TensorProto.INT64, ["n"]))
    outcome = onnxprune.prune(model, 0.5, data=[{"x": part} for part in np.split(data, 4)]).report
    repair = outcome.recovery
    assert repair is not None and repair.kept and all(fit.kept for fit in repair.fits)
    assert repair.after.error < 1e-4 < repair.before.error and repair.after.top1 == 1


def test_where_no_output_tells_the_layers_do():
    """Nothing is claimed of outputs that cannot be compared: the text says so, and JSON has no numbers."""
    unknown = Agreement(math.nan, math.nan, math.nan, None)
    fitted = Fit(node="Gemm_2", before=0.25, after=1e-6, kept=True, groups=("w1",))
    repair = RecoveryReport(fits=(fitted,), before=unknown, after=unknown, kept=True)
    assert "1 of 1 layer re-fitted, no output tells what that is worth" in text.recovery_lines(repair)
    told = json.dumps(report.recovery_json(repair), allow_nan=False)
    assert json.loads(told)["after"]["error"] is None


def test_same_data_same_result():
    runs = [{"x": part} for part in np.split(redundant("Conv", bias=True)[1], 4)]
    twice = [onnxprune.prune(redundant("Conv", bias=True)[0], 0.5, data=runs).model for _ in range(2)]
    assert twice[0].SerializeToString() == twice[1].SerializeToString()


def test_one_sample_is_not_enough():
    model, data = redundant("Gemm", bias=True)
    with pytest.raises(UsageError, match="one batch is not enough"):
        onnxprune.prune(model, 0.5, data=[{"x": data[:1]}])
    assert onnxprune.prune(model, 0.5, data=[{"x": data[:8]}]).report.recovery is not None


@pytest.mark.parametrize(
    "name", ["resnet", "densenet", "bert", "vit", "unet", "mobilenet_v2", "alexnet", "tcn", "merged"]
)
def test_repair_of_every_kind_of_net_is_valid_and_no_worse(name: str):
    source = load(str(MODELS / f"{name}.onnx"))
    groups = api.trace_model(source)
    runs = [random_feeds(source, groups.static, np.random.default_rng(i)) for i in range(10)]
    outcome = api.run(source, Options(ratio=0.3), data=runs, sizes=dict(groups.static.sizes))
    repair = outcome.recovery
    assert outcome.verdict.ok and any(fit.kept and fit.after < fit.before for fit in repair.fits)
    # Random weights on random inputs leave little to fit: what is written is the better of the two.
    assert repair.kept == (repair.after.error < repair.before.error)
    onnx.checker.check_model(to_proto(outcome.model), full_check=True)


@pytest.mark.parametrize(("samples", "kept"), [(32, True), (512, False)])
def test_few_held_out_samples_do_not_decide_alone(monkeypatch, samples: int, kept: bool):
    """The held-out samples alone would refuse the repair, all samples accept it."""
    model, data = redundant("Conv", bias=True)
    outcome = api.run(load(model), Options(ratio=0.3))
    cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    right = closed_form.agreement

    def swapped(removal: Removal, other: Model, runs: Runs) -> Agreement:
        found = right(removal, other, runs)
        return found if sum(len(run["x"]) for run in runs) == samples else replace(found, error=-found.error)

    monkeypatch.setattr(closed_form, "agreement", swapped)
    runs = [{"x": part} for part in np.split(np.resize(data, (samples, *data.shape[1:])), 8)]
    _, report = recover(cut, outcome.model, runs)
    assert report.held == samples // 8 and report.kept == kept
    assert report.after.error > report.before.error  # as measured on what was held out


@pytest.mark.parametrize(("samples", "most"), [(16, 10.0), (64, 0.1)])
def test_larger_ridge_weights_are_tried_where_samples_are_few(monkeypatch, samples: int, most: float):
    model, data = redundant("Conv", bias=True)
    outcome = api.run(load(model), Options())
    cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    tried: list[float] = []
    monkeypatch.setattr(targets, "fit_layer", lambda view, task, evidence: tried.extend(evidence.dampings) or [])
    recover(cut, outcome.model, [{"x": part} for part in np.split(np.resize(data, (samples, *data.shape[1:])), 8)])
    assert tried[:3] == [1e-3, 1e-2, 1e-1] and max(tried) == most


@pytest.mark.parametrize("method", ["least-squares", "affine", "one-pass", "merge"])
def test_layers_wider_than_moments_are_made_for_are_fitted_alike(monkeypatch, method: str):
    """The same few rows, with and without the matrix of their moments."""
    model, data = redundant("Conv", bias=True)
    outcome = api.run(load(model), Options(ratio=0.5))
    cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    runs = [{"x": part} for part in np.split(data, 4)]
    monkeypatch.setattr(targets, "WIDEST", 35)  # 36 inputs remain: as many rows are taken as hold 35 x 35 numbers
    wide, after = recover(cut, outcome.model, runs, RecoveryOptions(method))
    monkeypatch.setattr(targets, "WidePairMoments", PairMoments)
    plain, before = recover(cut, outcome.model, runs, RecoveryOptions(method))
    assert [fit.kept for fit in after.fits] == [fit.kept for fit in before.fits]
    assert [fit.after for fit in after.fits] == pytest.approx([fit.after for fit in before.fits], rel=1e-3)
    one, two = (outputs(to_proto(m), {"x": data}) for m in (plain, wide))
    np.testing.assert_allclose(two, one, atol=1e-3 * np.abs(one).max())
