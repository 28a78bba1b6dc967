"""What becomes of a layer's output."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.layers import Parameters, linear_layer, weighted_layer
from onnxprune.model import load, to_proto
from onnxprune.recovery import RecoveryOptions, recover
from onnxprune.recovery.downstream import downstream_of
from onnxprune.rewriting import Removal
from tests.graphs.net import Net
from tests.recovery.test_closed_form import net, outputs


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
    for end in found.dead_zone(cut, entering, lambda values: values):
        moved = entering + found.factor * np.clip(end, -5, 5)
        assert np.abs(np.clip(moved, -0.5, 0.5) - np.clip(entering, -0.5, 0.5)).max() < 1e-5
        assert np.abs(moved - entering).max() > 1


def test_a_sum_behind_steps_is_seen() -> None:
    """A quantised residual branch is fitted for the sum; a zero point at the end of its type is a Relu."""
    proto = Net(opset=17)
    x = proto.input(["n", 8])
    scale, low, middle = proto.const(np.float32(0.05)), proto.const(np.uint8(0)), proto.const(np.uint8(128))
    weight = proto.const(np.ones((8, 8), np.int8))
    decoded = proto.add("DequantizeLinear", weight, scale, proto.const(np.int8(0)))
    made = proto.add("MatMul", x, decoded, name="made")
    through = proto.add("DequantizeLinear", proto.add("QuantizeLinear", made, scale, middle), scale, middle)
    total = proto.add("Add", through, x, name="total")
    proto.output(proto.add("DequantizeLinear", proto.add("QuantizeLinear", total, scale, low), scale, low))
    groups = api.trace(proto.proto())
    view = next(v for v, _ in groups.tracing.views if v.node.op_type == "MatMul")
    layer = weighted_layer(view)
    assert layer is not None
    nothing = Removal(groups, np.zeros(groups.classes.count, bool))
    found = downstream_of(nothing, Parameters(groups.tracing.model), layer)
    assert found is not None and (found.residual, found.activation_input) == ("x", "total")
    assert found.low == 0 and found.high == pytest.approx(255 * 0.05)
