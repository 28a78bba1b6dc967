"""Recovery by least squares: what it must restore, and what it must leave alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.errors import UsageError
from onnxprune.layers import Parameters, linear_layer
from onnxprune.model import load, to_proto
from onnxprune.recovery import RecoveryOptions, RecoveryReport, fits, recover
from onnxprune.recovery.downstream import downstream_of
from onnxprune.recovery.targets import Fit
from onnxprune.report import data as report
from onnxprune.report import text
from onnxprune.rewriting import Removal
from onnxprune.runtime import Agreement
from onnxprune.runtime.random_inputs import random_feeds

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


@pytest.mark.parametrize("method", ["bias", "affine", "merge", "least-squares", "one-pass"])
def test_every_method_lowers_the_error(method: str):
    model, data = redundant("Conv", bias=True)
    source = load(model)
    outcome = api.run(source, Options())
    cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    runs = [{"x": part} for part in np.split(data, 16)]
    _, repair = recover(cut, outcome.model, runs, RecoveryOptions(method=method))
    assert repair.kept and repair.after.error < repair.before.error
    exact = method in ("merge", "least-squares", "one-pass")  # copies of channels are combinations of those that remain
    assert (repair.after.error < 0.01 * repair.before.error) == exact


def test_a_constant_channel_goes_without_loss_by_its_bias_alone():
    rng = np.random.default_rng(0)
    first = rng.standard_normal((6, 4))
    first[:, :2] = 0
    weights = {"w1": first, "b1": np.array([0.3, 0.2, 0, 0]), "w2": rng.standard_normal((4, 5))}
    nodes = [helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    model = net([*nodes, helper.make_node("Gemm", ["r", "w2"], ["y"])], weights, ["n", 6])
    outcome = api.run(load(model), Options(criterion=lambda groups, _: np.arange(groups.classes.count, dtype=float)))
    cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    assert not cut.masks()["w1"][:, :2].any()
    runs = [{"x": rng.standard_normal((8, 6)).astype(np.float32)} for _ in range(8)]
    _, repair = recover(cut, outcome.model, runs, RecoveryOptions(method="bias"))
    assert repair.before.error > 1e-3 and repair.after.error < 1e-10


def test_norms_get_the_deviation_back_that_their_outputs_had():
    source = load(str(MODELS / "densenet.onnx"))
    groups = api.trace_model(source)
    runs = [random_feeds(source, groups.static, np.random.default_rng(i)) for i in range(10)]
    outcome = api.run(source, Options(ratio=0.3), sizes=dict(groups.static.sizes))
    cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    _, repair = recover(cut, outcome.model, runs, RecoveryOptions(method="batchnorm"))
    assert repair.fits and any(fit.kept and fit.after < fit.before for fit in repair.fits)


def test_every_norm_is_fitted_to_what_those_before_it_then_give():
    """Three norms in a row: deviations and means are those on what the re-fitted ones in front let through."""
    rng = np.random.default_rng(2)
    weights, nodes, entry = {}, [], "x"
    for index in "123":
        weights |= {f"w{index}": rng.standard_normal((12, 12)), f"scale{index}": rng.uniform(0.5, 2, 12)}
        weights |= {f"shift{index}": rng.standard_normal(12), f"mean{index}": rng.standard_normal(12)}
        weights |= {f"spread{index}": rng.uniform(4, 9, 12)}
        stored = [f"{name}{index}" for name in ("scale", "shift", "mean", "spread")]
        nodes += [helper.make_node("MatMul", [entry, f"w{index}"], [f"h{index}"])]
        nodes += [helper.make_node("BatchNormalization", [f"h{index}", *stored], [f"n{index}"])]
        nodes += [helper.make_node("Relu", [f"n{index}"], [f"r{index}"])]
        entry = f"r{index}"
    source = load(
        net([*nodes, helper.make_node("MatMul", ["r3", "w"], ["y"])], weights | {"w": weights["w1"]}, ["n", 12])
    )
    outcome = api.run(source, Options(ratio=0.4))
    cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    runs = [{"x": part} for part in np.split(rng.standard_normal((1024, 12)).astype(np.float32), 32)]
    mended, repair = recover(cut, outcome.model, runs, RecoveryOptions(method="batchnorm"))
    assert repair.kept and [fit.kept for fit in repair.fits[1:]] == [True, True]  # no input of the first is gone

    def given(model: onnx.ModelProto) -> np.ndarray:
        tapped = onnx.ModelProto()
        tapped.CopyFrom(model)
        tapped.graph.output[0].name = "n3"
        return outputs(tapped, {"x": np.concatenate([run["x"] for run in runs])})

    wanted, found = given(to_proto(source))[:, cut.masks()["scale3"]], given(to_proto(mended))
    # A tenth of the runs judges, and no fit sees it.
    np.testing.assert_allclose(found.mean(axis=0), wanted.mean(axis=0), atol=0.05 * wanted.std())
    np.testing.assert_allclose(found.std(axis=0), wanted.std(axis=0), rtol=0.05)


def residual(*, activation: str, scaled: bool) -> tuple[onnx.ModelProto, np.ndarray]:
    """Two residual blocks of products, then an activation; the second branch may be scaled by numbers of both signs."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((12, 12)) / 3 for name in ("a1", "a2", "b1", "b2")}
    nodes = [helper.make_node("MatMul", ["x", "a1"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    nodes += [helper.make_node("MatMul", ["r", "a2"], ["m"]), helper.make_node("Add", ["x", "m"], ["s"])]
    nodes += [helper.make_node("MatMul", ["s", "b1"], ["h2"]), helper.make_node("Relu", ["h2"], ["r2"])]
    nodes += [helper.make_node("MatMul", ["r2", "b2"], ["m2"])]
    if scaled:
        nodes += [helper.make_node("BatchNormalization", ["m2", "scale", "shift", "mean", "spread"], ["n2"])]
        weights |= {"scale": rng.standard_normal(12), "shift": rng.standard_normal(12)}
        weights |= {"mean": rng.standard_normal(12), "spread": rng.uniform(0.2, 2, 12)}
    nodes += [helper.make_node("Add", ["s", "n2" if scaled else "m2"], ["t"])]
    nodes += [helper.make_node(activation, ["t", "least", "most"] if activation == "Clip" else ["t"], ["y"])]
    weights |= {"least": np.array(-0.5), "most": np.array(0.5)}
    return net(nodes, weights, ["n", 12]), rng.standard_normal((512, 12)).astype(np.float32)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("activation", ["Identity", "Relu", "Clip"])
def test_a_branch_makes_up_for_what_the_stream_lost(activation: str, scaled: bool):
    model, data = residual(activation=activation, scaled=scaled)
    source = load(model)
    outcome = api.run(source, Options())
    cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    runs = [{"x": part} for part in np.split(data, 16)]
    errors = {}
    for looks in (False, True):
        mended, repair = recover(cut, outcome.model, runs, RecoveryOptions(onward=looks))
        assert repair.kept
        fresh = {"x": np.random.default_rng(1).standard_normal((256, 12)).astype(np.float32)}
        errors[looks] = float(np.square(outputs(to_proto(mended), fresh) - outputs(model, fresh)).sum())
    assert errors[True] < 0.97 * errors[False]


def test_outputs_in_the_room_are_as_good():
    model, _ = residual(activation="Clip", scaled=True)
    source = load(model)
    outcome = api.run(source, Options())
    cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    parameters = Parameters(outcome.model)
    (view,) = [s for s, _ in outcome.groups.tracing.views if s.node.output[0] == "m2"]
    (node,) = [n for n in parameters.proto.graph.node if n.output[0] == "m2"]
    found = downstream_of(cut, parameters, linear_layer(view, node))
    assert (found.residual, found.activation_input, found.low, found.high) == ("s", "t", -0.5, 0.5)
    entering = np.random.default_rng(2).standard_normal((64, 12)).astype(np.float32)
    for end in found.dead_zone(cut, entering):
        moved = entering + found.factor * np.clip(end, -5, 5)
        assert np.abs(np.clip(moved, -0.5, 0.5) - np.clip(entering, -0.5, 0.5)).max() < 1e-5
        assert np.abs(moved - entering).max() > 1
