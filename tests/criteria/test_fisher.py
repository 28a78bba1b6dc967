"""Fisher information: squared products of gradient and weight."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune import api, criteria
from tests.graphs.net import Net


def linear() -> onnx.ModelProto:
    """y = (x W) v: the gradient of one output is known."""
    net = Net()
    h = net.add("MatMul", net.input(["n", 4]), net.weight(4, 6, name="w"), name="h")
    net.output(net.add("MatMul", h, net.weight(6, 1, name="v")), ["n", 1])
    return net.proto()


def test_one_linear_output_has_a_known_score() -> None:
    """Of unit i: sum over its weights of E[dw^2] w^2, dy/dW[j, i] = x_j v_i; v is a vector and does not count."""
    proto = linear()
    w, v = (onnx.numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    groups = api.trace(proto)
    found = criteria.score(groups, "fisher", runs=[{"x": row[None]} for row in x])
    of = groups.classes.of[np.ravel(groups.tracing.axes["w"][1])]
    wanted = np.mean([((r[:, None] * v[:, 0] * w) ** 2).sum(axis=0) for r in x], axis=0)
    np.testing.assert_allclose(found[of], wanted, rtol=1e-4)
