"""Experts of a mixture."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.pipelines.expert_groups import expert_groups
from tests.graphs.net import Net, array_of, run, with_arrays
from tests.tracing.rules.test_fused import experts, quantized_experts


def mixture(kind: str) -> Net:
    """A residual branch that is a mixture of four experts."""
    net = Net(opset=17)
    x = net.input((9, 8 if kind == "floats" else 32))
    mixed = quantized_experts(net, x) if kind == "packed" else experts(activation_type="relu", flat=True)(net, x)
    net.output(net.add("Gemm", net.add("Add", x, mixed), net.weight(8 if kind == "floats" else 32, 3, name="head")))
    return net


@pytest.mark.parametrize("kind", ["floats", "packed"])
def test_experts_are_found_by_structure(kind):
    (found,) = expert_groups(mixture(kind).model())
    assert found.count == 4 and found.node.startswith(("moe", "qmoe"))
    assert {"route", "first", "second"} <= {*found.weights}


def test_what_is_no_mixture_has_none():
    net = Net()
    x = net.add("ConvTranspose", net.input((1, 4, 5, 5)), net.weight(4, 6, 3, 3))
    net.output(net.add("Conv", x, net.weight(4, 6, 3, 3)))
    assert not expert_groups(net.model())


def test_the_column_of_the_router_goes_with_the_expert():
    """The same as the original whose router never chooses the expert."""
    net = mixture("floats")
    (found,) = expert_groups(net.model())
    done = onnxprune.prune(net.proto(), ratio=0.25, only=[found.group], recovery="none")
    assert done.report.verdict is not None and done.report.verdict.ok
    (step,) = (s for s in done.plan.steps if s.remove)
    left = np.delete(np.arange(4), step.remove)
    for name, axis in (("route", 1), ("first", 0), ("second", 0), ("first_bias", 0), ("second_bias", 0)):
        np.testing.assert_array_equal(array_of(done.model, name), np.take(array_of(net.proto(), name), left, axis))
    # Inputs that are all positive, and a column far below zero: the router leaves the expert out.
    feeds = {"x": np.random.default_rng(0).uniform(0.5, 1.0, (9, 8)).astype(np.float32)}
    route = array_of(net.proto(), "route").copy()
    route[:, list(step.remove)] = -1e4
    never: onnx.ModelProto = with_arrays(net.proto(), {"route": route})
    for one, other in zip(run(done.model, feeds=feeds).values(), run(never, feeds=feeds).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
