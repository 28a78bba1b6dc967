"""One measured cut, of which only the changed part runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto

from onnxprune.allocation import Options
from onnxprune.model import load
from onnxprune.pipelines import Sensitivity
from onnxprune.pipelines.sensitivity import SensitivityConfig, measure_curves
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import trace
from tests.graphs.net import Net
from tests.pipelines.test_sensitivity import DATA, DIGITS, MODELS


def values(of: Sensitivity):
    return {(c.group, p.removed): dict(p.values) for c in of.curves for p in c.points}


@pytest.mark.parametrize("name", ["resnet", "inception", "vit", "llama", "control_flow", "lstm", "quantized"])
def test_the_changed_part_gives_what_the_whole_model_gives(name):
    model, settings = load(str(MODELS / f"{name}.onnx")), SensitivityConfig(ratios=(0.3, 0.6), samples=4)
    part, whole = (
        values(measure_curves(model, Options(), replace(settings, whole=w), "random")) for w in (False, True)
    )
    assert part.keys() == whole.keys()
    for key, found in part.items():
        assert found["error"] > 0, key
        assert found == pytest.approx(whole[key], rel=1e-4), key


def test_the_changed_part_is_all_that_runs(monkeypatch):
    """Behind the last group of digits only its two layers are left of the whole graph."""
    from onnxprune.pipelines import probe
    from onnxprune.runtime import activations, subgraph

    ran = []
    real = probe.Session
    for module in (probe, activations, subgraph):
        monkeypatch.setattr(module, "Session", lambda m, **k: ran.append(len(m.proto.graph.node)) or real(m, **k))
    model = load(DIGITS)
    last = trace(model).groups[-1].name
    measure_curves(model, Options(only=[last], criterion="l2"), SensitivityConfig(ratios=(0.5,), samples=8), DATA)
    assert max(ran) == len(model.proto.graph.node)
    assert len(ran) == 3 and ran[-1] <= 4  # all of the original once, what is in front of the group, and what is behind


def test_groups_whose_inputs_and_outputs_shrink_are_measured_on_what_remains():
    model = load(str(MODELS / "autoencoder.onnx"))
    found = measure_curves(model, Options(allow_io_changes=True), SensitivityConfig(ratios=(0.5,), samples=4), "random")
    shut = measure_curves(model, Options(), SensitivityConfig(ratios=(0.5,), samples=4), "random")
    assert len(found.curves) > len(shut.curves)
    groups = trace(model, allow_io_changes=True)
    assert all(g.name in values_by_group(found) for g in groups.groups if g.units > 1)


def values_by_group(of: Sensitivity):
    return {c.group: c for c in of.curves}


def test_fronts_are_in_front_of_what_changes():
    """Every tensor that is kept is the original's, and with them the outputs can be computed from the smaller graph."""
    from onnxprune.model.run_order import Course
    from onnxprune.pipelines.probe import frontier

    groups = trace(load(str(MODELS / "resnet.onnx")))
    for group in groups.groups:
        front = frontier(groups, group)
        away = removed_classes(groups, {group.name: np.arange(len(group.classes) // 2)})
        small, cut = rewrite(groups, away), Removal(groups, away)
        assert front and cut.behind.isdisjoint(front)
        nodes = Course(small, {}).ancestors([o.name for o in small.proto.graph.output], front)
        assert {o for i in nodes for o in small.proto.graph.node[i].output}.isdisjoint(front)


@pytest.mark.parametrize("kind", ["sequence", "bfloat16"])
def test_a_front_that_cannot_be_held_is_none(kind):
    """Then the whole model runs."""
    net = Net()
    x = net.input(["N", 6])
    y = net.add("MatMul", net.add("Relu", net.add("MatMul", x, net.weight(6, 16))), net.weight(16, 6))
    if kind == "sequence":
        rows = net.add("SequenceInsert", net.add("SplitToSequence", x, axis=1), y)
        net.output(net.add("ConcatFromSequence", rows, axis=1), ["N", 12])
    else:
        both = [net.cast(tensor, TensorProto.BFLOAT16) for tensor in (x, y)]
        net.output(net.cast(net.add("Concat", *both, axis=1), TensorProto.FLOAT), ["N", 12])
    data = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    model, settings = net.model(), SensitivityConfig(ratios=(0.5,))
    part, whole = (
        measure_curves(model, Options(criterion="l2"), replace(settings, whole=w), data) for w in (False, True)
    )
    assert values(part) == values(whole) and len(part.curves) == 1
