"""Norms that get back the deviation and mean of their outputs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.model import load, to_proto
from onnxprune.recovery import RecoveryOptions, recover
from onnxprune.rewriting import Removal
from onnxprune.runtime.random_inputs import random_feeds
from tests.recovery.test_closed_form import MODELS, net, outputs


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
