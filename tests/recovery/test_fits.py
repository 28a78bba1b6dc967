"""Fits of a layer to what it should give."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.model import load
from onnxprune.recovery import RecoveryOptions, recover
from onnxprune.rewriting import Removal
from tests.recovery.test_closed_form import net, redundant


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
