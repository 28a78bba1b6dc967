"""Layers compared one by one, where outputs do not show an error."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.proof.strength import Strength
from tests.graphs.net import Net
from tests.proof.proven import scaled, spoil


def behind(kind: str) -> onnx.ModelProto:
    """Two layers in front of an output that says little."""
    net = Net(18)
    x = net.add("Relu", net.add("MatMul", net.input([6, 16]), net.weight(16, 24, name="w1")))
    x = net.add("Relu", net.add("MatMul", x, net.weight(24, 20, name="w2")))
    x = net.add("MatMul", x, net.weight(20, 4, name="w3", scale=3e3 if kind in ("Softmax", "Tanh") else 0.3))
    if kind in ("Softmax", "LogSoftmax", "Hardmax"):
        y = net.add(kind, x, axis=1)
    elif kind == "ArgMax":
        y = net.add("ArgMax", x, axis=1)
    elif kind == "Clip":
        y = net.add("Clip", x, net.const(np.float32(1e3)), net.const(np.float32(1e4)))
    elif kind == "Greater":
        y = net.add("Greater", x, net.const(np.float32(50)))
    elif kind == "Inf":
        y = net.add("Div", net.add("Abs", x), net.const(np.float32(0)))
    elif kind == "TopK":
        y = net.add("TopK", x, net.ints(1), outputs=2)[1]
    elif kind == "Sigmoid":  # saturated: about 1e-8
        y = net.add("Sigmoid", net.add("Sub", x, net.const(np.float32(19))))
    else:
        y = net.add(kind, x)
    net.output(y)
    return net.proto()


VACUOUS = ("Softmax", "Tanh", "ArgMax", "Clip", "Greater", "Inf", "TopK", "Sign", "Hardmax", "Sigmoid")


@pytest.mark.parametrize("kind", VACUOUS)
def test_outputs_that_do_not_react_hide_nothing(kind: str) -> None:
    proto = behind(kind)
    result = onnxprune.prune(proto, 0.5)
    verdict = result.report.verdict
    assert verdict is not None
    assert verdict.ok
    assert result.report.rolled_back == ()
    assert {"w1", "w2"} == {g for g in result.report.plan.masks(proto) if g != "w3"}
    assert len(verdict.inside) == 3
    assert verdict.strength == Strength(2, {"w1": True, "w2": True})
    for name in ("w1", "w2", "w3"):
        wrong = spoil(result.model, name, lambda v: scaled(v, int(np.abs(v).argmax())))
        refused = onnxprune.verify(proto, wrong, result.plan)
        assert not refused.ok
        assert "differs from the masked original" in refused.problem
        assert refused.wrong


@pytest.mark.parametrize("kind", VACUOUS)
def test_positions_that_are_swapped_behind_such_outputs_show(kind: str) -> None:
    proto = behind(kind)
    result = onnxprune.prune(proto, 0.5)
    wrong = spoil(result.model, "w2", lambda v: v[:, [1, 0, *range(2, v.shape[1])]])
    refused = onnxprune.verify(proto, wrong, result.plan)
    assert not refused.ok
    assert next(iter(refused.wrong.values())) == ("w1", "w2")


def dead() -> onnx.ModelProto:
    """A layer whose units no input wakes."""
    net = Net()
    x = net.add("Relu", net.add("Sub", net.add("Abs", net.make((2, 5, 8), 2)), net.const(np.float32(1e6))))
    net.read(x, 2)
    return net.proto()


def test_a_wrong_weight_behind_units_that_never_wake_is_refused() -> None:
    result = onnxprune.prune(dead(), 0.5)
    assert onnxprune.verify(dead(), result.model, result.plan).ok
    verdict = onnxprune.verify(dead(), spoil(result.model, "w_out", lambda v: scaled(v, 0)), result.plan)
    assert not verdict.ok
    assert verdict.problem == "weight 'w_out' of MatMul 'matmul_6_node' is not the original's without what goes"
    assert verdict.wrong == {"w_out": ("w_in",)}


def selected() -> onnx.ModelProto:
    """Layers on the rows that a mask selects: how many there are depends on values."""
    net = Net(17)
    x = net.add("MatMul", net.input([40, 16]), net.weight(16, 24, name="w1"))
    chosen = net.add(
        "Compress", net.add("Relu", x), net.add("Greater", net.input([40]), net.const(np.float32(0))), axis=0
    )
    x = net.add("Relu", net.add("MatMul", chosen, net.weight(24, 20, name="w2")))
    net.output(net.add("Softmax", net.add("MatMul", x, net.weight(20, 4, name="w3", scale=3e3)), axis=1))
    return net.proto()


def test_layers_behind_a_size_that_depends_on_values_are_compared() -> None:
    result = onnxprune.prune(selected(), 0.5)
    verdict = result.report.verdict
    assert verdict is not None
    assert len(verdict.inside) == 3
    assert verdict.strength == Strength(2, {"w1": True, "w2": True})
    wrong = spoil(result.model, "w3", lambda v: scaled(v, int(np.abs(v).argmax())))
    assert "of MatMul" in onnxprune.verify(selected(), wrong, result.plan).problem
